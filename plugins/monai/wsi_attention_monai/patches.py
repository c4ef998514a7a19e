"""The tiles a label rests on, as items for MONAI's `PatchWSIDataset`."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def patches_of(path: str, boxes: Tensor, weights: Tensor) -> list[dict[str, Any]]:
    """Items for `PatchWSIDataset(…, center_location=False, include_label=False)`, one a tile, the heaviest first.

    Args:
        path: of the slide.
        boxes: (n, 4) x, y, w, h in level-0 pixels, as `AttentionClassify` gives them.
        weights: (n,) of the tiles.

    Returns:
        Items with `image`, `location` (top, left), `size` (height, width), `level` and `weight`. MONAI names rows
        before columns.
    """
    order = weights.argsort(descending=True, stable=True).tolist()
    return [
        {
            "image": path,
            "location": (int(boxes[one, 1]), int(boxes[one, 0])),
            "size": (int(boxes[one, 3]), int(boxes[one, 2])),
            "level": 0,
            "weight": float(weights[one]),
        }
        for one in order
    ]
