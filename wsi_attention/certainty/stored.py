"""Read what config.json says of a fit; whatever is wrong with it is a ValueError that says what was expected."""

from __future__ import annotations

import math
from collections.abc import Mapping


def numbers(found: object, name: str) -> list[float]:
    """Return a list of finite numbers.

    Raises:
        ValueError: it is something else.
    """
    values = listed(found, name)
    if not all(map(is_finite, values)):
        raise ValueError(f"{name!r} must be made of finite numbers")
    return [float(one) for one in values if isinstance(one, int | float)]


def is_finite(value: object) -> bool:
    """Return whether it is a number that a float can hold, and neither a truth value nor infinite."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False


def listed(found: object, name: str) -> list[object]:
    """Return a list.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(found, list):
        return found
    raise ValueError(f"{name!r} must be a list")


def entry(found: object) -> Mapping[str, object]:
    """Return an object of JSON.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(found, Mapping):
        return found
    raise ValueError("it must be an object")


def whole(found: Mapping[str, object], name: str) -> int:
    """Return a whole number, 0 or more.

    Raises:
        ValueError: it is something else.
    """
    value = found.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(f"{name!r} must be a whole number, 0 or more")
