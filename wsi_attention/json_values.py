"""JSON that others wrote, whatever is wrong with it one kind of error; and values as JSON that anybody can read."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

JsonObject: TypeAlias = dict[str, Any]
"""A JSON object from a file; whoever reads a value in it checks what it is."""


def parse(text: str | bytes) -> Any:
    """Return the value that a JSON text stands for.

    Raises:
        ValueError: it is no JSON, or nested more deeply than can be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def as_plain(value: object) -> object:
    """Return dataclasses as mappings, arrays and tuples as lists, numbers as they are; NaN and infinities as None.

    Raises:
        TypeError: the value is none of these, nor a text, a number, True, False or None.
    """
    if hasattr(value, "tolist"):  # an array, or a number of numpy
        return as_plain(value.tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: as_plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"{type(value).__name__} has no plain JSON value")
