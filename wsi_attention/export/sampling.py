"""Masks and maps over the slide as the pixels of a picture show them: the value at each pixel's centre."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wsi_attention.geometry import Grid
from wsi_attention.structures import Prediction

Kind = TypeVar("Kind", bound=np.generic)


def mask_grid(prediction: Prediction) -> Grid:
    """Return the grid of a prediction's tissue mask."""
    step = prediction.tissue.downsample
    rows, cols = prediction.tissue.mask.shape
    return Grid(rows, cols, (step, step))


def sampled(values: NDArray[Kind], source: Grid, target: Grid) -> NDArray[Kind]:
    """Return for each target cell the value at its centre; beyond the source NaN, or 0 where numbers are whole.

    Args:
        values: (rows, cols, …) of the source.
        source: the grid that values lie on.
        target: the grid that is wanted.
    """
    found = values
    for axis, side in ((0, 1), (1, 0)):
        centres = (np.arange(target.shape[axis]) + 0.5) * target.step[side] + target.origin[side]
        index = np.floor((centres - source.origin[side]) / source.step[side]).astype(np.int64)
        found = found.take(np.clip(index, 0, values.shape[axis] - 1), axis)
        beyond = (index < 0) | (index >= values.shape[axis])
        found[(slice(None),) * axis + (beyond,)] = np.nan if np.issubdtype(values.dtype, np.floating) else 0
    return found


def without_boxes(mask: NDArray[np.bool_], boxes: NDArray[np.int64], grid: Grid) -> NDArray[np.bool_]:
    """Return the mask of a grid without the cells whose centre lies in one of the boxes.

    Args:
        mask: (rows, cols).
        boxes: (n, 4): x, y, w, h in level-0 pixels.
        grid: of the mask.
    """
    left = mask.copy()
    edges = np.stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    cells = np.ceil((edges - grid.origin) / grid.step - 0.5).clip(0).astype(np.int64)
    for (first_col, first_row), (last_col, last_row) in zip(*cells.tolist(), strict=True):
        left[first_row:last_row, first_col:last_col] = False
    return left
