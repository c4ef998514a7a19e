"""Tiles that show something else than the overview shows at their place: damaged pixels that decode all the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_attention.slide.agreement import is_another_pattern
from wsi_attention.slide.resample import Pixels

FAR = 45.0
"""Grey levels, in the mean of the colours, by which a place is off that shows something else."""
MOST = 0.5
"""Share of a tile's places that may be."""
LEAST = 8
"""Pixels of the overview a side that a tile covers where it is compared."""


def strays(tiles: Pixels, boxes: NDArray[np.int64], overview: Pixels, downsample: float) -> NDArray[np.bool_]:
    """Find the tiles that do not show what an overview shows.

    Colours are compared at places of 2 × 2 pixels of the overview, so that levels made in different ways agree; and how
    brightness varies from place to place (`slide.agreement`), for tissue has much the same colours everywhere.

    Args:
        tiles: (n, h, w, 3).
        boxes: (n, 4): x, y, w, h in level-0 pixels.
        overview: (H, W, 3), the whole slide.
        downsample: level-0 pixels per pixel of the overview.

    Returns:
        (n,); False where a tile covers too little of the overview to be compared.
    """
    found = [_is_stray(tile, box, overview, downsample) for tile, box in zip(tiles, boxes.tolist(), strict=True)]
    return np.array(found, np.bool_)


def _is_stray(tile: Pixels, box: list[int], overview: Pixels, downsample: float) -> bool:
    from PIL import Image

    x, y, w, h = box
    left, top = max(0, int(np.ceil(x / downsample))), max(0, int(np.ceil(y / downsample)))
    right = min(overview.shape[1], int((x + w) / downsample))
    bottom = min(overview.shape[0], int((y + h) / downsample))
    cols, rows = (right - left) // 2, (bottom - top) // 2
    if 2 * min(cols, rows) < LEAST:
        return False
    across, down = tile.shape[1] / w, tile.shape[0] / h
    part = (
        (left * downsample - x) * across,
        (top * downsample - y) * down,
        ((left + 2 * cols) * downsample - x) * across,
        ((top + 2 * rows) * downsample - y) * down,
    )
    seen = np.asarray(Image.fromarray(tile).resize((2 * cols, 2 * rows), Image.Resampling.BOX, box=part))
    shown = overview[top : top + 2 * rows, left : left + 2 * cols]
    one, other = (pixels.reshape(rows, 2, cols, 2, 3).mean((1, 3)) for pixels in (seen, shown))
    if bool((np.abs(one - other).mean(-1) > FAR).mean() > MOST):
        return True
    # Levels end a pixel apart where the slide ends, and in a few pixels that edge would be all there is of a pattern.
    whole = x >= 0 and y >= 0 and x + w <= overview.shape[1] * downsample and y + h <= overview.shape[0] * downsample
    return whole and is_another_pattern(seen, shown)
