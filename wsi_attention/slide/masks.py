"""Small islands, holes and clefts of a mask, measured in pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_attention.slide.components import large_components

Mask = NDArray[np.bool_]


def widened(mask: Mask, reach: int) -> Mask:
    """The mask and all within `reach` pixels of it, across and down."""
    for axis in (0, 1):
        width = ((reach, reach), (0, 0))
        mask, length = np.pad(np.swapaxes(mask, 0, axis), width), 1
        while length <= 2 * reach:  # each step joins two windows of that length
            step = min(length, 2 * reach + 1 - length)
            mask, length = mask[:-step] | mask[step:], length + step
        mask = np.swapaxes(mask, 0, axis)
    return np.ascontiguousarray(mask)


def narrowed(mask: Mask, reach: int) -> Mask:
    """The pixels of the mask all around which, within `reach` pixels, there is mask or the view's border."""
    return ~widened(~mask, reach)


def without_clefts(mask: Mask, width: float) -> Mask:
    """The mask with gaps of up to `width` pixels closed, 8 at most."""
    reach = round(min(width, 8.0) / 2)
    return narrowed(widened(mask, reach), reach)


def without_specks(mask: Mask, area: float) -> Mask:
    """The mask without islands (8-connected) of fewer pixels than `area`."""
    return large_components(mask, area, connectivity=2)


def without_holes(mask: Mask, area: float) -> Mask:
    """The mask with holes (4-connected) of fewer pixels than `area` filled; a gap open to the border is none."""
    empty = np.pad(~mask, 1, constant_values=True)
    return ~large_components(empty, area, connectivity=1)[1:-1, 1:-1]
