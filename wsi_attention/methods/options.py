"""Checks of arguments that several models take."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wsi_attention.errors import InputError


def one_of(option: str, value: str, choices: Sequence[str]) -> None:
    """Whether an option's value is among its choices.

    Raises:
        InputError: it is not; the text lists the choices.
    """
    if value not in choices:
        raise InputError(f"{option} {value!r} is not known; there is: {', '.join(choices)}")


def within(option: str, value: float, low: float, high: float = math.inf) -> None:
    """Whether an option's number lies in [low, high].

    Raises:
        InputError: it does not.
    """
    if not low <= value <= high:
        wanted = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise InputError(f"{option} must be {wanted}, got {value:g}")
