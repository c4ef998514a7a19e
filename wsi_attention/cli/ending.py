"""How `wsi-attention classify` ends: complaints, summary, exit status."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from wsi_attention.inference.report import Report


def warn(purpose: str) -> None:
    """Prints what labels are worth where the model says that it is no model in earnest."""
    from wsi_attention.structures import purpose_warning

    if purpose:
        typer.echo(f"wsi-attention: {purpose_warning(purpose)}", err=True)


def end(report: Report) -> None:
    """Prints what became of a batch and leaves with its exit status, whatever hangs in a library's thread."""
    from wsi_attention.inference.report import complaints, summary

    for line in complaints(report):
        typer.echo(f"wsi-attention: {line}", err=True)
    typer.echo(summary(report))
    if report.threads_left:  # a slide that hangs in a library must not keep the command from ending
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(report.exit_status)
    raise typer.Exit(report.exit_status)
