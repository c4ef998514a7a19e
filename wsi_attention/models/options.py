"""Checks of arguments that several models take."""

from __future__ import annotations

from collections.abc import Sequence

from wsi_attention.errors import InputError


def one_of(option: str, value: str, choices: Sequence[str]) -> None:
    """Whether an option's value is among its choices.

    Raises:
        InputError: it is not; the text lists the choices.
    """
    if value not in choices:
        raise InputError(f"{option} {value!r} is not known; there is: {', '.join(choices)}")
