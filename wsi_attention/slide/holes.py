"""Stored tiles that are not in a file: which parts of a region they leave empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]
Absent = Callable[[NDArray[np.int64]], NDArray[np.bool_]]
"""Whether stored tiles, (n, 2) of (column, row), are missing, (n,)."""


class Hole(NamedTuple):
    """The part of a stored tile that a region would show, in pixels of the level: left, top, right, bottom."""

    left: int
    top: int
    right: int
    bottom: int


def tiles_under(corner: Size, size: Size, tile: Size, extent: Size) -> NDArray[np.int64]:
    """(n, 2): column and row of the stored tiles that a region of a level meets."""
    ranges = []
    for axis in (0, 1):
        begin, end = max(corner[axis], 0), min(corner[axis] + size[axis], extent[axis])
        ranges.append(np.arange(begin // tile[axis], -(-end // tile[axis])) if end > begin else np.arange(0))
    cols, rows = np.meshgrid(*ranges)
    return np.stack([cols.ravel(), rows.ravel()], axis=-1).astype(np.int64)


def holes_in(corner: Size, size: Size, tile: Size, extent: Size, absent: Absent) -> tuple[Hole, ...]:
    """What of a region no stored tile covers.

    Args:
        corner: (x, y) of the region, in the level's pixels.
        size: (w, h) of it.
        tile: (w, h) of a stored tile.
        extent: (w, h) of the level.
        absent: which stored tiles are missing.
    """
    tiles = tiles_under(corner, size, tile, extent)
    missing = tiles[absent(tiles)] if len(tiles) else tiles
    return tuple(
        Hole(
            max(col * tile[0], corner[0]),
            max(row * tile[1], corner[1]),
            min((col + 1) * tile[0], corner[0] + size[0], extent[0]),
            min((row + 1) * tile[1], corner[1] + size[1], extent[1]),
        )
        for col, row in missing.tolist()
    )


def whitened(pixels: NDArray[np.uint8], corner: Size, tile: Size, absent: Absent) -> NDArray[np.uint8]:
    """Pixels (h, w, c) of a region inside its level, white where no stored tile is; a copy where that changes any."""
    size = pixels.shape[1], pixels.shape[0]
    holes = holes_in(corner, size, tile, (corner[0] + size[0], corner[1] + size[1]), absent)
    if holes:
        pixels = pixels.copy()
    for left, top, right, bottom in holes:
        pixels[top - corner[1] : bottom - corner[1], left - corner[0] : right - corner[0]] = 255
    return pixels
