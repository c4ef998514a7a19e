"""A request cut into tasks: tiles that share stored tiles go into one task, in an order that keeps neighbours together.

The order is the Z-order curve over the stored tiles that hold the tiles' centres, so that a piece of it is a compact
block however close together or far apart the tiles lie.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

MAX_TASKS = 500
"""Tasks of one request; beyond this, batches grow. dask costs 0.1-0.5 ms a task, and more the more there are."""
LEAST = 8
"""Tiles of a task below which dask's own work would show: reading them takes 2 ms."""
TASKS_PER_THREAD = 2


def batch_of(n: int, batch: int) -> int:
    """Tiles per task: as wanted, or as many as keep a request within `MAX_TASKS`."""
    return max(1, batch, math.ceil(n / MAX_TASKS))


def busy_batch(n: int, batch: int, threads: int) -> int:
    """Tiles per task: as wanted, but fewer, down to `LEAST`, where so many threads would else stand idle."""
    return min(batch, max(LEAST, math.ceil(n / (TASKS_PER_THREAD * threads))))


def cut(
    locations: NDArray[np.int64], footprint: tuple[int, int], stored: tuple[float, float] | None, batch: int
) -> list[NDArray[np.int64]]:
    """The positions of the tiles of each task.

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
    holder = _holders(locations, footprint, stored)
    key = _along_curve(holder) if stored else holder[:, 1]
    order = np.lexsort((locations[:, 1], locations[:, 0], key))
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    cuts = np.arange(0, len(order), step)
    moved = starts[np.searchsorted(starts, cuts, side="right") - 1]
    kept = np.unique(np.where(cuts - moved < step, moved, cuts))
    return [np.asarray(part, np.int64) for part in np.split(order, kept[1:])]


def _holders(
    locations: NDArray[np.int64], footprint: tuple[int, int], stored: tuple[float, float] | None
) -> NDArray[np.int64]:
    """(n, 2) columns and rows, from 0 on, of the stored tiles that hold the tiles' centres."""
    centres = locations + np.array(footprint) / 2
    found = np.floor(centres / np.array(stored or footprint)).astype(np.int64)
    return np.asarray(found - found.min(axis=0), np.int64)


def _along_curve(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) places of cells (n, 2) along the Z-order curve: the bits of column and row, interleaved."""
    place = np.zeros(len(cells), np.int64)
    for bit in range(int(cells.max(initial=0)).bit_length()):
        place |= (cells[:, 0] >> bit & 1) << 2 * bit | (cells[:, 1] >> bit & 1) << 2 * bit + 1
    return place
