"""`wsi-attention study`: what can be done with the folder that crossvalidate wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsi_attention.cli.say import say

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def study() -> None:
    """Do something with a study, the folder that crossvalidate wrote."""


@app.command(no_args_is_help=True)
def report(folder: Annotated[Path, typer.Argument(help="The study's folder.")]) -> None:
    """Write record.html and record.md again: data flow, splits, recipe, versions, weights, licences, guidelines.

    Example: wsi-attention study report study/
    """
    from wsi_attention.study.record import write_record

    say(write_record(folder))
