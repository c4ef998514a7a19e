"""How much a command says: `-q` problems and nothing else, `-v` a line for each step."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from typer import Option

from wsi_attention.errors import InputError

Quiet = Annotated[bool, Option("-q", "--quiet", help="Print problems alone: no progress, no summary.")]
Verbose = Annotated[bool, Option("-v", "--verbose", help="Print a line for each step and slide, also into a file.")]


class Voice(Enum):
    """How much is said."""

    QUIET = "problems alone"
    USUAL = "a bar on a terminal, and the summary"
    VERBOSE = "a line for each step"


def voice_of(quiet: bool, verbose: bool) -> Voice:
    """Return how much to say.

    Raises:
        InputError: both were asked for.
    """
    if quiet and verbose:
        raise InputError("-q and -v contradict each other: give one of them, or neither")
    return Voice.QUIET if quiet else Voice.VERBOSE if verbose else Voice.USUAL
