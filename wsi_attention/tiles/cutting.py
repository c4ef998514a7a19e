"""A request cut into tasks: tiles that share stored tiles go into one task, and neighbours stay together.

Tiles that hang together by stored tiles they share stand together, along the Z-order curve, so that a piece of a large
group is a compact block; a cut then goes where it parts the fewest stored tiles, because those are decoded twice.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_TASKS = 500
"""Tasks of one request; beyond this, batches grow. dask costs 0.1-0.5 ms a task, and more the more there are."""
LEAST = 8
"""Tiles of a task below which dask's own work would show: reading them takes 2 ms."""
TASKS_PER_THREAD = 2
UNEQUAL = 0.5
"""Stored tiles that may be parted for each tile by which tasks would else be unequal: threads wait for the longest."""


def batch_of(n: int, batch: int) -> int:
    """Return how many tiles go into a task: as wanted, or as many as keep a request within `MAX_TASKS`."""
    return max(1, batch, math.ceil(n / MAX_TASKS))


def busy_batch(n: int, batch: int, threads: int) -> int:
    """Return how many tiles go into a task: as wanted, but fewer, down to `LEAST`, where threads would stand idle."""
    return min(batch, max(LEAST, math.ceil(n / (TASKS_PER_THREAD * threads))))


def cut(
    locations: NDArray[np.int64], footprint: tuple[int, int], stored: tuple[float, float] | None, batch: int
) -> list[NDArray[np.int64]]:
    """Return the positions of the tiles of each task.

    Args:
        locations: (n, 2) top left corners in level-0 pixels.
        footprint: (w, h) of a tile in level-0 pixels.
        stored: (w, h) of a stored tile in level-0 pixels; None where the file has none, and whole strips are decoded.
        batch: tiles per task. A task may have fewer, or up to twice as many, so that tiles of one stored tile stay
            together.
    """
    if not len(locations):
        return []
    step = batch_of(len(locations), batch)
    touched = _touched(locations, footprint, stored)
    order = _order(touched, strips=stored is None)
    return [np.asarray(part, np.int64) for part in np.split(order, _cuts(_parted(order, touched), len(order), step))]


class Touched(NamedTuple):
    """Which stored tiles the tiles meet.

    Attributes:
        tile: (m,) positions of tiles.
        cell: (m, 2) columns and rows, from 0 on, of stored tiles they meet.
        number: (m,) of the cell; the same for the same cell.
        cells: how many differ.
    """

    tile: NDArray[np.int64]
    cell: NDArray[np.int64]
    number: NDArray[np.int64]
    cells: int


def _touched(locations: NDArray[np.int64], footprint: tuple[int, int], stored: tuple[float, float] | None) -> Touched:
    """Return the stored tiles under the corners of the tiles: enough to tell neighbours."""
    side = np.array(stored or footprint, np.float64)
    spans = np.array(footprint) - 1 if stored else np.array((0, footprint[1] - 1))
    corners = locations[:, None] + np.array([(0, 0), (1, 0), (0, 1), (1, 1)]) * spans
    found = np.floor(corners / side).astype(np.int64).reshape(-1, 2)
    found -= found.min(axis=0)
    found[:, 0] *= stored is not None
    numbers, inverse = np.unique(found @ (1, int(found[:, 0].max()) + 1), return_inverse=True)
    return Touched(np.repeat(np.arange(len(locations)), 4), found, inverse.reshape(-1), len(numbers))


def _order(touched: Touched, strips: bool) -> NDArray[np.int64]:
    """Order the tiles group by group, within a group along the curve; in strips from top to bottom."""
    place = _along_curve(touched.cell[::4])
    if strips:
        return np.lexsort((place,))
    group = _groups(touched)
    first = np.full(group.max() + 1, place.max(), np.int64)
    np.minimum.at(first, group, place)
    return np.lexsort((place, group, first[group]))


def _groups(touched: Touched) -> NDArray[np.int64]:
    """Return (n,) the group of each tile: tiles that share a stored tile, directly or through others, are one group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    tiles = int(touched.tile[-1]) + 1
    size = tiles + touched.cells
    ones = np.ones(len(touched.tile), np.bool_)
    graph = coo_array((ones, (touched.tile, tiles + touched.number)), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1][:tiles], np.int64)


def _parted(order: NDArray[np.int64], touched: Touched) -> NDArray[np.int64]:
    """Return (n + 1,) how many stored tiles a cut before each place of the order would split."""
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    first, last = np.full(touched.cells, len(order)), np.zeros(touched.cells, np.int64)
    np.minimum.at(first, touched.number, place[touched.tile])
    np.maximum.at(last, touched.number, place[touched.tile])
    steps = np.zeros(len(order) + 2, np.int64)
    np.add.at(steps, first + 1, 1)
    np.add.at(steps, last + 1, -1)
    return np.cumsum(steps)[: len(order) + 1]


def _cuts(parted: NDArray[np.int64], n: int, step: int) -> list[int]:
    """Return where the order is cut: into nearly equal parts, at the best place within half a part."""
    parts = math.ceil(n / step)
    reach = max(0, (n // parts - 1) // 2)
    found = []
    for number in range(1, parts):
        middle = n * number // parts
        window = np.arange(max(1, middle - reach), min(n, middle + reach + 1))
        found.append(int(window[np.argmin(parted[window] + UNEQUAL * abs(window - middle))]))
    return found


def _along_curve(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (n,) the place of each cell (n, 2) along the Z-order curve: the bits of column and row, interleaved."""
    place = np.zeros(len(cells), np.int64)
    for bit in range(int(cells.max(initial=0)).bit_length()):
        place |= (cells[:, 0] >> bit & 1) << 2 * bit | (cells[:, 1] >> bit & 1) << 2 * bit + 1
    return place
