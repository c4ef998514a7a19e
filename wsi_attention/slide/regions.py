"""Small islands, holes and clefts of a mask, measured in pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_attention.slide.components import large_components


def without_clefts(mask: NDArray[np.bool_], width: float) -> NDArray[np.bool_]:
    """The mask with gaps of up to `width` pixels closed, 8 at most."""
    from skimage.morphology import closing

    side = 2 * round(min(width, 8.0) / 2) + 1
    return np.asarray(closing(mask, np.ones((side, side), np.uint8)), np.bool_)


def without_specks(mask: NDArray[np.bool_], area: float) -> NDArray[np.bool_]:
    """The mask without islands (8-connected) of fewer pixels than `area`."""
    return large_components(mask, area, connectivity=2)


def without_holes(mask: NDArray[np.bool_], area: float) -> NDArray[np.bool_]:
    """The mask with holes (4-connected) of fewer pixels than `area` filled; a gap open to the border is none."""
    empty = np.pad(~mask, 1, constant_values=True)
    return ~large_components(empty, area, connectivity=1)[1:-1, 1:-1]
