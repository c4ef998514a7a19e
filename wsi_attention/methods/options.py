"""Checks of a method's numbers: which kinds they may be of, by name, and none that is not finite."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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


RANGES: tuple[tuple[re.Pattern[str], float, float], ...] = (
    (re.compile(r"overview_mpp"), 0.02, 1000),
    (re.compile(r"\w*mpps?"), 0.02, 50),
    (re.compile(r"\w*size|base|patch|least_side|most_side|grid|context"), 1, 8192),
    (re.compile(r"draws|budget|attended|boxes"), 1, 100_000),
    (re.compile(r"\w*widths?|features|dim|channels"), 1, 65_536),
    (re.compile(r"depth|heads|scales"), 1, 1000),
    (re.compile(r"overview_pixels"), 1, 10**9),
    (re.compile(r"std"), 1e-6, 1e6),
)
"""Names of arguments, and the least and the most that makes sense; a method may know better."""
MOST_CLASSES = 10_000
NUMBERS = 10**12
"""No number is larger, whatever it means."""


def check_numbers(method: str, classes: int, arguments: Mapping[str, Any]) -> None:
    """Checks a method's arguments before anything of that size is made.

    Raises:
        InputError: a number is not finite, or out of all proportion.
    """
    if not 1 <= classes <= MOST_CLASSES:
        raise InputError(f"method {method}: {classes} classes; 1 to {MOST_CLASSES} are possible")
    for name, value in arguments.items():
        low, high = next(
            ((low, high) for kind, low, high in RANGES if kind.fullmatch(name)),
            (-NUMBERS, NUMBERS),
        )
        for number in _numbers(value):
            if not (math.isfinite(number) and low <= number <= high):
                raise InputError(f"method {method}: {name} {number:g} is out of range; {low:g} to {high:g} is possible")


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for one in value:
            yield from _numbers(one)
