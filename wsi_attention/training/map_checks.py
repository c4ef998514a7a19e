"""Whether what a store of accumulated maps holds can be maps: a store may come from elsewhere, or be damaged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsi_attention.geometry import Grid

MOST_VALUES = 100_000_000
"""Of an array: a slide of 100 000² pixels in cells of 64 has 2.4 million a class."""


def read_array(array: Any) -> Tensor:
    """A stored array whole.

    Raises:
        ValueError: it says that it is larger than maps ever are.
    """
    if math.prod(array.shape) > MOST_VALUES:
        raise ValueError(f"an array of shape {tuple(array.shape)} is too large for maps")
    return torch.from_numpy(np.array(array[:]))


def check_maps(arrays: Mapping[str, Tensor], waiting: Sequence[int], classes: int) -> None:
    """Whether a slide's arrays fit each other and hold what maps hold.

    Args:
        arrays: "values", "updates" and perhaps "pending", see `map_store.SlideMaps`.
        waiting: classes.
        classes: number of classes.

    Raises:
        ValueError: they do not.
    """
    values, updates, pending = arrays["values"], arrays["updates"], arrays.get("pending", arrays["values"])
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    if values.ndim != 3 or len(values) != classes or pending.shape != values.shape:
        raise ValueError(f"maps of {classes} classes have other shapes than {shapes}")
    if updates.shape not in (values.shape, (classes, 1, 1)):
        raise ValueError(f"updates fit no maps: {shapes}")
    for one in (values, pending):
        share = one.dtype == torch.float32 and bool(((one >= 0) & (one <= 1)).all())
        if one.dtype != torch.uint8 and not share:
            raise ValueError(f"maps are bytes, or float32 numbers from 0 to 1; found others, of {one.dtype}")
    if not all(one in range(classes) for one in waiting):
        raise ValueError(f"waiting classes are among 0 to {classes - 1}, not {list(waiting)}")


def checked_grid(shape: tuple[int, int], step: Sequence[float], origin: Sequence[float]) -> Grid:
    """The grid of maps (rows, cols).

    Raises:
        ValueError: the cells have no size, or the numbers are not finite.
    """
    (dx, dy), (x, y) = (float(one) for one in step), (float(one) for one in origin)
    if not (min(dx, dy) > 0 and math.isfinite(dx + dy + x + y)):
        raise ValueError(f"cells cannot have the size {dx:g} × {dy:g} at ({x:g}, {y:g})")
    return Grid(shape[0], shape[1], (dx, dy), (x, y))
