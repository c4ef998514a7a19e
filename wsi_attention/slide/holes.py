"""Stored tiles that are not in a file: which parts of a region they leave empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsi_attention.geometry import Size

CELL = 32
"""Pixels a side of the cells in which transparent pixels are remembered."""
Absent = Callable[[NDArray[np.int64]], NDArray[np.bool_]]
"""Whether stored tiles, (n, 2) of (column, row), are missing, (n,)."""


class Hole(NamedTuple):
    """The part of a stored tile that a region would show, in pixels of the level: left, top, right, bottom."""

    left: int
    top: int
    right: int
    bottom: int


def tiles_under(corner: Size, size: Size, tile: Size, extent: Size) -> NDArray[np.int64]:
    """Return (n, 2): column and row of the stored tiles that a region of a level meets."""
    ranges = []
    for axis in (0, 1):
        begin, end = max(corner[axis], 0), min(corner[axis] + size[axis], extent[axis])
        ranges.append(np.arange(begin // tile[axis], -(-end // tile[axis])) if end > begin else np.arange(0))
    cols, rows = np.meshgrid(*ranges)
    return np.stack([cols.ravel(), rows.ravel()], axis=-1).astype(np.int64)


def holes_in(corner: Size, size: Size, tile: Size, extent: Size, absent: Absent) -> tuple[Hole, ...]:
    """Return the parts of a region that no stored tile covers.

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


def scaled_holes(corner: Size, size: Size, step: float, tile: Size, extent: Size, absent: Absent) -> tuple[Hole, ...]:
    """Do as `holes_in` for a region of a level that another level's missing tiles leave empty.

    Args:
        corner: (x, y) of the region, in its level's pixels.
        size: (w, h) of it.
        step: pixels of the other level a pixel; the others are of that level.
        tile: (w, h) of its stored tiles.
        extent: (w, h) of it.
        absent: which of its tiles are missing.
    """
    if step == 1:
        return holes_in(corner, size, tile, extent, absent)
    left, top = (int(at * step) for at in corner)
    region = round(size[0] * step), round(size[1] * step)
    found = holes_in((left, top), region, tile, extent, absent)
    return tuple(Hole(*(round(side / step) for side in hole)) for hole in found)


def transparent_cells(pixels: NDArray[np.uint8], corner: Size, extent: Size) -> NDArray[np.int64]:
    """Return (n, 2): column and row of the cells, `CELL` pixels a side, that lie in a region and are transparent.

    Args:
        pixels: (h, w, 4) of the region.
        corner: (x, y) of it, in the level's pixels.
        extent: (w, h) of the level.
    """
    if pixels[..., 3].min(initial=255) > 0:
        return np.empty((0, 2), np.int64)
    size = pixels.shape[1], pixels.shape[0]
    first = [-(-max(corner[axis], 0) // CELL) for axis in (0, 1)]
    last = [min(corner[axis] + size[axis], extent[axis]) // CELL for axis in (0, 1)]
    cols, rows = (max(last[axis] - first[axis], 0) for axis in (0, 1))
    left, top = (first[axis] * CELL - corner[axis] for axis in (0, 1))
    alpha = pixels[top : top + rows * CELL, left : left + cols * CELL, 3] if cols and rows else pixels[:0, :0, 3]
    empty = alpha.reshape(rows, CELL, cols, CELL).max((1, 3), initial=0) == 0
    found = np.argwhere(empty)[:, ::-1] + first
    return np.asarray(found, np.int64)


def whitened(pixels: NDArray[np.uint8], corner: Size, tile: Size, absent: Absent) -> NDArray[np.uint8]:
    """Return pixels (h, w, c) of a region inside its level, white where no tile is stored."""
    size = pixels.shape[1], pixels.shape[0]
    holes = holes_in(corner, size, tile, (corner[0] + size[0], corner[1] + size[1]), absent)
    if holes:
        pixels = pixels.copy()
    for left, top, right, bottom in holes:
        pixels[top - corner[1] : bottom - corner[1], left - corner[0] : right - corner[0]] = 255
    return pixels
