"""Tiles that share stored tiles: each stored tile is decoded once, by whichever thread, and cut to all that need it.

A request cut into groups of tiles decodes again what two groups share. Where tiles lie in clusters or overlap, the work
is cut by stored tiles instead: any cut is as good as another, and all tasks are equally long. So at level 0 only, where
stored pixels are pixels of the result at whole places, and with readers that decode a whole stored tile at no loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_attention.slide.view import View

WORTH = 1.5
"""Tiles that need a stored tile, on average, from which on it is decoded for all of them together."""
LARGEST = 2**18
"""Pixels of a stored tile, at most, because a task holds as many as it has."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Shares:
    """Which stored tiles a request needs, each once in the order of rows, and what of them goes where.

    Attributes:
        cells: (k, 2) columns and rows of stored tiles.
        side: (w, h) of a stored tile.
        first: (k + 1,) where the cuts of each stored tile begin.
        tile: (m,) the tile of the request that each cut goes to.
        source: (m, 4) left, top, right, bottom in the stored tile.
        target: (m, 2) left and top in the tile.
        partly: (p,) tiles of which some lies beyond the slide.
    """

    cells: NDArray[np.int64]
    side: tuple[int, int]
    first: NDArray[np.int64]
    tile: NDArray[np.int64]
    source: NDArray[np.int64]
    target: NDArray[np.int64]
    partly: NDArray[np.int64]

    def paste(self, cell: int, stored: Pixels, pixels: Pixels) -> None:
        """Cut a stored tile (h, w, 3) into all tiles (n, h, w, 3) that need some of it."""
        cuts = slice(int(self.first[cell]), int(self.first[cell + 1]))
        for tile, (left, top, right, bottom), (x, y) in zip(
            self.tile[cuts].tolist(), self.source[cuts].tolist(), self.target[cuts].tolist(), strict=True
        ):
            pixels[tile, y : y + bottom - top, x : x + right - left] = stored[top:bottom, left:right]

    def tiles_of(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which tiles need some of these stored tiles, in ascending order."""
        cuts = [self.tile[self.first[cell] : self.first[cell + 1]] for cell in cells.tolist()]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *cuts]))


def shares_of(view: View, locations: NDArray[np.int64], size: tuple[int, int]) -> Shares | None:
    """Return the stored tiles of a request, None where it is better read tile by tile.

    Args:
        view: that is read.
        locations: (n, 2) top left corners in level-0 pixels.
        size: (w, h) of a tile.
    """
    stored = view.stored
    if stored.tile is None or stored.tile[0] * stored.tile[1] > LARGEST or len(locations) < 2:
        return None
    if (view.downsample, stored.downsample) != (1.0, 1.0) or not view.slide.reads_together:
        return None
    side, extent = np.array(stored.tile), np.array(stored.extent)
    tile, cell = _pairs(np.clip(locations, 0, extent), np.clip(locations + size, 0, extent), side)
    across = int(-(-extent[0] // side[0]))
    order = np.argsort(cell @ (1, across), kind="stable")
    tile, cell = tile[order], cell[order]
    _, first = np.unique(cell @ (1, across), return_index=True)
    if len(tile) < WORTH * len(first):
        return None
    corner, place = cell * side, locations[tile]
    begin, end = np.maximum(corner, place), np.minimum(np.minimum(corner + side, place + size), extent)
    beyond = ((locations < 0) | (locations + size > extent)).any(axis=1)
    return Shares(
        cell[first],
        stored.tile,
        np.append(first, len(tile)),
        tile,
        np.concatenate([begin - corner, end - corner], axis=1),
        begin - place,
        np.flatnonzero(beyond),
    )


def _pairs(
    begin: NDArray[np.int64], end: NDArray[np.int64], side: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each meeting of a rectangle (n, 2) with a stored tile: (m,) its number, (m, 2) the tile's column and row.

    A rectangle without area, because it lies beyond the slide, meets none.
    """
    low, high = begin // side, -(-end // side)
    high[(end <= begin).any(axis=1)] = 0
    across, down = (np.arange((high - low)[:, axis].max(initial=0)) for axis in (0, 1))
    cols, rows = low[:, :1] + across, low[:, 1:] + down
    tile, row, col = np.nonzero((rows < high[:, 1:])[:, :, None] & (cols < high[:, :1])[:, None, :])
    return tile, np.stack([cols[tile, col], rows[tile, row]], axis=1)
