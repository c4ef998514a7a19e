"""`wsi-attention report`: a results folder as one page to read offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsi_attention.cli.say import say, warn


def report(
    results: Annotated[Path, typer.Argument(help="The results folder that classify wrote.")],
    slide: Annotated[list[str] | None, typer.Option(help="Only this slide, as predictions.csv names it.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page. [default: report.html in the results folder]")
    ] = None,
) -> None:
    """Write report.html again: all slides in a table, with attention, the tiles that weigh most, and where they lie.

    The page needs no network and no other file. Slides are opened only where the results are older than the report.

    Example: wsi-attention report results/
    """
    from wsi_attention.inference.results.export_again import export_again
    from wsi_attention.inference.results.mirror import check_folder
    from wsi_attention.inference.results.page import without_part, write_page

    check_folder(results)
    names = slide or ()
    missing = without_part(results, names)
    if missing:
        for _ in export_again(results, "report", missing, tell=warn):
            pass
    say(write_page(results, names, output))
