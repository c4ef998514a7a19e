"""Values of the evaluation as plain JSON values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np


def as_plain(value: object) -> object:
    """Return dataclasses as mappings, arrays and tuples as lists, numbers as they are; what is not finite is None.

    Raises:
        TypeError: the value is none of these.
    """
    if isinstance(value, np.ndarray):
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
