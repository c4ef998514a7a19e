"""What the tiles of a prediction cover: exact areas of a union of boxes, on any grid."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wsi_attention.geometry import Grid
from wsi_attention.structures import Prediction


def read_boxes(prediction: Prediction) -> NDArray[np.int64]:
    """The tiles that were really read, all glimpses together, clipped to the slide.

    Returns:
        (n, 4) int64: x, y, w, h in level-0 pixels; repeats and tiles outside the slide are left out.
    """
    found = [glimpse.tiles.boxes[0][glimpse.valid] for glimpse in prediction.glimpses]
    boxes = clipped(np.concatenate(found) if found else np.empty((0, 4), np.int64), prediction.extent)
    return np.unique(boxes[(boxes[:, 2] > 0) & (boxes[:, 3] > 0)], axis=0)


def clipped(boxes: NDArray[np.int64], extent: tuple[int, int]) -> NDArray[np.int64]:
    """The part of each (x, y, w, h) box inside a (w, h) slide; width or height 0 where they do not meet."""
    limits = np.array(extent, np.int64)
    low = np.clip(boxes[:, :2], 0, limits)
    high = np.clip(boxes[:, :2] + boxes[:, 2:], 0, limits)
    return np.concatenate([low, high - low], axis=1)


def disjoint(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same area as non-overlapping boxes: strips between all top and bottom edges, with x intervals merged.

    Args:
        boxes: (n, 4) x, y, w, h.

    Returns:
        (m, 4) int64, from top to bottom and left to right.
    """
    order = boxes[np.argsort(boxes[:, 0], kind="stable")]
    top, bottom = order[:, 1], order[:, 1] + order[:, 3]
    edges = np.unique(np.concatenate([top, bottom]))
    strips = []
    for start, stop in pairwise(edges):
        active = order[(top <= start) & (bottom >= stop)]
        if len(active):
            left, right = _merged(active[:, 0], active[:, 0] + active[:, 2])
            strip = np.stack([left, np.full_like(left, start), right - left, np.full_like(left, stop - start)], axis=1)
            strips.append(strip)
    return np.concatenate(strips) if strips else np.empty((0, 4), np.int64)


def _merged(left: NDArray[np.int64], right: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Unites intervals sorted by their left ends."""
    reach = np.maximum.accumulate(right)
    first = np.concatenate([[True], left[1:] > reach[:-1]])
    last = np.concatenate([first[1:], [True]])
    return left[first], reach[last]


def covered(boxes: NDArray[np.int64], grid: Grid) -> NDArray[np.float32]:
    """Share of each cell that the union of the boxes covers, exact, shape grid.shape, in [0, 1]."""
    share = np.zeros(grid.shape, np.float32)
    for x, y, w, h in disjoint(boxes):
        cols, wide = _overlap(x, x + w, grid.origin[0], grid.step[0], grid.cols)
        rows, high = _overlap(y, y + h, grid.origin[1], grid.step[1], grid.rows)
        share[rows, cols] += np.outer(high, wide)
    return np.clip(share, 0.0, 1.0, out=share)


def _overlap(start: float, stop: float, origin: float, step: float, cells: int) -> tuple[slice, NDArray[np.float64]]:
    """The cells along one axis that [start, stop) touches, and the share of each that it covers."""
    low, high = np.clip([(start - origin) / step, (stop - origin) / step], 0, cells)
    first, last = int(np.floor(low)), int(np.ceil(high))
    index = np.arange(first, last)
    return slice(first, last), np.minimum(index + 1, high) - np.maximum(index, low)


def area_read(prediction: Prediction) -> float:
    """Share of the tissue area that was read at least once, in [0, 1]; 0 where there is no tissue."""
    mask = prediction.tissue.mask
    if not mask.any():
        return 0.0
    grid = Grid(mask.shape[0], mask.shape[1], (prediction.tissue.downsample, prediction.tissue.downsample))
    return float(covered(read_boxes(prediction), grid)[mask].sum(dtype=np.float64) / mask.sum())
