"""What commands print: one text a line, whatever the names of others in it hold."""

from __future__ import annotations

import typer

from wsi_attention.plain_text import visible


def say(*lines: object, err: bool = False) -> None:
    """Print each text on one line, with harmful characters as escapes (`plain_text.visible`)."""
    for line in lines:
        typer.echo(visible(str(line)), err=err)


def warn(text: str) -> None:
    """Print a sentence on stderr, as from this program."""
    say(f"wsi-attention: {text}", err=True)
