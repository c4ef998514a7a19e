"""Which cells of a grid hold enough tissue to be looked at (NumPy)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_attention.geometry import Grid
from wsi_attention.structures import TissueMask

MIN_TISSUE = 0.1
"""Share of a cell that must be tissue for the cell to be looked at."""


def cells_with_tissue(mask: TissueMask, grid: Grid) -> NDArray[np.bool_]:
    """Return the cells of which at least 10 % is tissue; where there is none, those with the most.

    Args:
        mask: where there is tissue.
        grid: cells over the slide.

    Returns:
        (rows, cols) bool; all False only where no tissue lies on the grid.
    """
    share = mask.fraction(grid)
    cells = share >= MIN_TISSUE
    if not cells.any():
        cells = (share > 0) & (share >= share.max(initial=0.0))
    return cells
