"""Where output pixels lie in the pixels of a stored level, and regions cut into blocks (NumPy)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_attention.geometry import same_scale

Starts = NDArray[np.floating[Any]]
Block = tuple[tuple[int, int], tuple[int, int]]
"""Offset (x, y) and size (w, h) of a part of a region."""


def spans(starts: Starts, step: float, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first stored pixel and the number of stored pixels that `count` output pixels need.

    Args:
        starts: (n,) where the first output pixel begins, in stored pixels.
        step: stored pixels per output pixel; within 5 % of 1, output pixels are single stored ones.
        count: output pixels.
    """
    if same_scale(step, 1.0):
        first, last = picked(starts, step), picked(starts + (count - 1) * step, step)
        return first, last - first + 1
    first = np.floor(np.round(starts, 6)).astype(np.int64)
    return first, np.ceil(np.round(starts + count * step, 6)).astype(np.int64) - first


def picked(starts: Starts, step: float) -> NDArray[np.int64]:
    """The stored pixel at the centre of an output pixel; a centre on a border belongs to the pixel after it."""
    return np.asarray(np.floor(starts + 0.5 * step + 1e-6), np.int64)


def centres(start: float, step: float, count: int) -> NDArray[np.int64]:
    """The stored pixels at the centres of `count` output pixels, the first of which begins at `start`."""
    return picked(start + np.arange(count) * step, step)


def blocks(size: tuple[int, int], limit: float) -> list[Block]:
    """A region in near-square blocks of `limit` pixels at most; square ones decode the fewest stored tiles twice."""
    if size[0] * size[1] <= limit:
        return [((0, 0), size)]
    width = min(size[0], max(1, int(math.sqrt(limit)), int(limit / size[1])))
    height = min(size[1], max(1, int(limit / width)))
    return [
        ((left, top), (min(width, size[0] - left), min(height, size[1] - top)))
        for top in range(0, size[1], height)
        for left in range(0, size[0], width)
    ]
