"""Which stored level shows a slide at a wanted downsample, and where its pixels lie on level 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsi_attention.geometry import same_scale


class StoredLevel(NamedTuple):
    """A stored level: its downsample, the (w, h) of its tiles or None, its own (w, h)."""

    downsample: float
    tile: tuple[int, int] | None
    extent: tuple[int, int]


def snapped(level_downsamples: Sequence[float], downsample: float) -> float:
    """Return the stored downsample within 5 % of the wanted one, else the wanted one; never below 1."""
    nearest = _nearest(level_downsamples, downsample)
    found = level_downsamples[nearest] if same_scale(downsample, level_downsamples[nearest]) else downsample
    return max(1.0, float(found))


def best_level(level_downsamples: Sequence[float], downsample: float) -> int:
    """Return the coarsest stored level that is at least as fine as wanted; a level within 5 % counts as equal."""
    nearest = _nearest(level_downsamples, downsample)
    if same_scale(downsample, level_downsamples[nearest]):
        return nearest
    finer = [level for level, stored in enumerate(level_downsamples) if stored <= downsample]
    return max(finer, key=level_downsamples.__getitem__, default=0)


def _nearest(level_downsamples: Sequence[float], downsample: float) -> int:
    ratios = [abs(math.log(stored / downsample)) for stored in level_downsamples]
    return ratios.index(min(ratios))


Starts = NDArray[np.floating]
Block = tuple[tuple[int, int], tuple[int, int]]
"""Offset (x, y) and size (w, h) of a part of a region."""


def spans(starts: Starts, step: float, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first stored pixel and the number of stored pixels that `count` output pixels need.

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
    """Return the stored pixel at the centre of an output pixel; a centre on a border belongs to the pixel after it."""
    return np.asarray(np.floor(starts + 0.5 * step + 1e-6), np.int64)


def centres(start: float, step: float, count: int) -> NDArray[np.int64]:
    """Return the stored pixels at the centres of `count` output pixels, the first of which begins at `start`."""
    return picked(start + np.arange(count) * step, step)


def blocks(size: tuple[int, int], limit: float) -> list[Block]:
    """Cut a region into near-square blocks of at most `limit` pixels, which decode the fewest stored tiles twice."""
    if size[0] * size[1] <= limit:
        return [((0, 0), size)]
    width = min(size[0], max(1, int(math.sqrt(limit)), int(limit / size[1])))
    height = min(size[1], max(1, int(limit / width)))
    return [
        ((left, top), (min(width, size[0] - left), min(height, size[1] - top)))
        for top in range(0, size[1], height)
        for left in range(0, size[0], width)
    ]
