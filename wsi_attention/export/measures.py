"""Numbers about a prediction's tiles: ranks, percentiles, how much of the tissue they cover."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wsi_attention.geometry import Grid
from wsi_attention.structures import AttentionMap, Glimpse, Prediction

LEAST_RANGE = 10.0
"""A colour scale ends no lower than this many times the average, so that noise does not look like a finding."""


def map_of(prediction: Prediction, number: int) -> AttentionMap | None:
    """Return the attention map that glimpse `number` drew from: its own, or the last where there are fewer, or None."""
    maps = prediction.maps
    return maps[min(number, len(maps) - 1)] if maps else None


def main_map(prediction: Prediction) -> AttentionMap | None:
    """Return the map to show where there is room for one: "attention", over the whole slide, else the last, or None."""
    named = (found for found in prediction.maps if found.name == "attention")
    return next(named, prediction.maps[-1] if prediction.maps else None)


def shown_name(prediction: Prediction, found: AttentionMap) -> str:
    """Return a map's name for readers: "class-1" becomes "class tumour" with the class's own name."""
    kind, _, number = found.name.partition("-")
    if kind == "class" and number.isdecimal() and int(number) < len(prediction.classes):
        return f"class {prediction.classes[int(number)]}"
    return found.name


def above_average(found: AttentionMap) -> AttentionMap:
    """Return attention × cells: each value over the mean of the tissue cells; NaN stays NaN."""
    known = np.isfinite(found.values)
    mean = float(found.values[known].mean(dtype=np.float64)) if known.any() else 0.0
    values = found.values / mean if mean > 0 else np.where(known, 0.0, np.nan)
    return AttentionMap(values.astype(np.float32), found.grid, found.name)


def percentiles(attention: NDArray[np.float64], found: AttentionMap | None) -> NDArray[np.float64]:
    """Return percent of the map's tissue cells whose attention is no higher than each value, in [0, 100].

    Args:
        attention: (n,) raw attention of cells.
        found: the map they come from; its NaN cells are no tissue and do not count.

    Returns:
        (n,) float64; NaN where the attention is not finite or there is no map.
    """
    ranks = np.full(len(attention), np.nan)
    values = found.values[np.isfinite(found.values)] if found is not None else np.empty(0, np.float32)
    known = np.isfinite(attention)
    if values.size and known.any():
        below = np.searchsorted(np.sort(values), attention[known].astype(np.float32), side="right")
        ranks[known] = 100.0 * below / values.size
    return ranks


def deciding(prediction: Prediction) -> Glimpse | None:
    """Return the last glimpse that read a tile: the one the label rests on; None where nothing was read."""
    return next((glimpse for glimpse in reversed(prediction.glimpses) if glimpse.valid.any()), None)


def heaviest(glimpse: Glimpse, count: int) -> NDArray[np.int64]:
    """Return indices of the `count` heaviest tiles, heaviest first; a box drawn twice counts once, equals keep order.

    Tiles that could not be read, and tiles of weight 0, are never among them.
    """
    weights = np.where(glimpse.valid & np.isfinite(glimpse.weights), glimpse.weights, 0.0)
    _, first, member = np.unique(glimpse.tiles.locations[0], axis=0, return_index=True, return_inverse=True)
    total = np.bincount(member.ravel(), weights, minlength=len(first))
    order = np.lexsort((first, -total))
    return np.array(first[order[total[order] > 0]][:count], np.int64)


def read_boxes(prediction: Prediction) -> NDArray[np.int64]:
    """Return the tiles that were really read, all glimpses together, clipped to the slide.

    Returns:
        (n, 4) int64: x, y, w, h in level-0 pixels; repeats and tiles outside the slide are left out.
    """
    found = [glimpse.tiles.boxes[0][glimpse.valid] for glimpse in prediction.glimpses]
    boxes = clipped(np.concatenate(found) if found else np.empty((0, 4), np.int64), prediction.extent)
    return np.unique(boxes[(boxes[:, 2] > 0) & (boxes[:, 3] > 0)], axis=0)


def clipped(boxes: NDArray[np.int64], extent: tuple[int, int]) -> NDArray[np.int64]:
    """Return the part of each (x, y, w, h) box inside a (w, h) slide; width or height 0 where they do not meet."""
    limits = np.array(extent, np.int64)
    low = np.clip(boxes[:, :2], 0, limits)
    high = np.clip(boxes[:, :2] + boxes[:, 2:], 0, limits)
    return np.concatenate([low, high - low], axis=1)


def disjoint(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the same area as non-overlapping boxes: strips between all top and bottom edges, x intervals merged.

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
    """Merge intervals sorted by their left ends."""
    reach = np.maximum.accumulate(right)
    first = np.concatenate([[True], left[1:] > reach[:-1]])
    last = np.concatenate([first[1:], [True]])
    return left[first], reach[last]


def covered(boxes: NDArray[np.int64], grid: Grid) -> NDArray[np.float32]:
    """Return the exact share of each cell that the union of the boxes covers, of shape grid.shape, in [0, 1]."""
    share = np.zeros(grid.shape, np.float32)
    for x, y, w, h in disjoint(boxes):
        cols, wide = _overlap(x, x + w, grid.origin[0], grid.step[0], grid.cols)
        rows, high = _overlap(y, y + h, grid.origin[1], grid.step[1], grid.rows)
        share[rows, cols] += np.outer(high, wide)
    return np.clip(share, 0.0, 1.0, out=share)


def _overlap(start: float, stop: float, origin: float, step: float, cells: int) -> tuple[slice, NDArray[np.float64]]:
    """Return the cells along one axis that [start, stop) touches, and the share of each that it covers."""
    low, high = np.clip([(start - origin) / step, (stop - origin) / step], 0, cells)
    first, last = int(np.floor(low)), int(np.ceil(high))
    index = np.arange(first, last)
    return slice(first, last), np.minimum(index + 1, high) - np.maximum(index, low)


def area_read(prediction: Prediction) -> float:
    """Return the share of the tissue area that was read at least once, in [0, 1]; 0 where there is no tissue."""
    mask = prediction.tissue.mask
    if not mask.any():
        return 0.0
    grid = Grid(mask.shape[0], mask.shape[1], (prediction.tissue.downsample, prediction.tissue.downsample))
    return float(covered(read_boxes(prediction), grid)[mask].sum(dtype=np.float64) / mask.sum())
