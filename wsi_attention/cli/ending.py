"""How `wsi-attention classify` ends: complaints, summary, exit status."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import typer

from wsi_attention.cli.say import say

if TYPE_CHECKING:
    from wsi_attention.inference.report import Report


def warn(purpose: str) -> None:
    """Prints what labels are worth where the model says that it is no model in earnest."""
    from wsi_attention.structures import purpose_warning

    if purpose:
        say(f"wsi-attention: {purpose_warning(purpose)}", err=True)


def end(report: Report) -> None:
    """Prints what became of a batch and leaves with its exit status, whatever hangs in a library's thread."""
    from wsi_attention.inference.report import complaints, summary

    say(*(f"wsi-attention: {line}" for line in complaints(report)), err=True)
    say(*summary(report).splitlines())
    if report.threads_left:  # a slide that hangs in a library must not keep the command from ending
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(report.exit_status)
    raise typer.Exit(report.exit_status)
