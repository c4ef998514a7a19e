"""The cells of a map with the highest attention, as objects like those of the GeoJSON export."""

from __future__ import annotations

from typing import Any

import numpy as np

from wsi_attention import Prediction
from wsi_attention.export import clipped, main_map, percentiles


def top_cells(prediction: Prediction, count: int) -> list[dict[str, Any]]:
    """Up to `count` cells of the main map, highest first; none where it has no finite value.

    Args:
        prediction: with a map; its tiles play no part.
        count: cells wanted.
    """
    found = main_map(prediction)
    if found is None:
        return []
    values = found.values.ravel().astype(np.float64)
    boxes = clipped(found.grid.boxes(), prediction.extent)
    shown = np.flatnonzero(np.isfinite(values) & (boxes[:, 2:] > 0).all(axis=1))
    order = shown[np.argsort(-values[shown], kind="stable")][:count]
    numbers = zip(
        boxes[order].tolist(), values[order].tolist(), percentiles(values[order], found).tolist(), strict=True
    )
    return [_region(rank, *one) for rank, one in enumerate(numbers, start=1)]


def _region(rank: int, box: list[int], value: float, percentile: float) -> dict[str, Any]:
    x, y, w, h = box
    ring = [[x, y], [x + w, y], [x + w, y + h], [x, y + h], [x, y]]
    measurements = {"Rank": rank, "Attention": value, "Attention percentile": percentile}
    return {
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "measurements": measurements},
    }
