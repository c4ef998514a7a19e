"""Numbers that every export shows alike: attention percentiles, and which tiles weigh most."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_attention.structures import AttentionMap, Glimpse, Prediction

LEAST_RANGE = 10.0
"""A colour scale ends no lower than this many times the average, so that noise does not look like a finding."""


def map_of(prediction: Prediction, number: int) -> AttentionMap | None:
    """The attention map that glimpse `number` drew from: its own, the last one where there are fewer maps, or None."""
    maps = prediction.maps
    return maps[min(number, len(maps) - 1)] if maps else None


def main_map(prediction: Prediction) -> AttentionMap | None:
    """The map to show where there is room for one: that over the whole slide, "attention", else the last, or None."""
    named = (found for found in prediction.maps if found.name == "attention")
    return next(named, prediction.maps[-1] if prediction.maps else None)


def shown_name(prediction: Prediction, found: AttentionMap) -> str:
    """A map's name for readers: "class-1" with the class's own name, e.g. "class tumour"; others as they are."""
    kind, _, number = found.name.partition("-")
    if kind == "class" and number.isdecimal() and int(number) < len(prediction.classes):
        return f"class {prediction.classes[int(number)]}"
    return found.name


def above_average(found: AttentionMap) -> AttentionMap:
    """Attention × cells: each value over the mean of the tissue cells; NaN stays NaN."""
    known = np.isfinite(found.values)
    mean = float(found.values[known].mean(dtype=np.float64)) if known.any() else 0.0
    values = found.values / mean if mean > 0 else np.where(known, 0.0, np.nan)
    return AttentionMap(values.astype(np.float32), found.grid, found.name)


def percentiles(attention: NDArray[np.float64], found: AttentionMap | None) -> NDArray[np.float64]:
    """Percent of the map's tissue cells whose attention is no higher than each value, in [0, 100].

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
    """The last glimpse that read a tile: the one the label rests on; None where nothing was read."""
    return next((glimpse for glimpse in reversed(prediction.glimpses) if glimpse.valid.any()), None)


def heaviest(glimpse: Glimpse, count: int) -> NDArray[np.int64]:
    """Indices of the `count` tiles that weigh most, heaviest first; a box drawn twice counts once, equals keep order.

    Tiles that could not be read, and tiles of weight 0, are never among them.
    """
    weights = np.where(glimpse.valid & np.isfinite(glimpse.weights), glimpse.weights, 0.0)
    _, first, member = np.unique(glimpse.tiles.locations[0], axis=0, return_index=True, return_inverse=True)
    total = np.bincount(member.ravel(), weights, minlength=len(first))
    order = np.lexsort((first, -total))
    return np.array(first[order[total[order] > 0]][:count], np.int64)
