"""Which cells are worth looking at."""

from __future__ import annotations

import numpy as np

from wsi_attention.geometry import Grid
from wsi_attention.structures import TissueMask
from wsi_attention.tiles.cells import cells_with_tissue

GRID = Grid(2, 2, (10.0, 10.0))


def of_area(*shares: int) -> TissueMask:
    """A 20 × 20 mask whose four quarters hold the given numbers of tissue pixels, of 100 each."""
    mask = np.zeros((20, 20), bool)
    for share, (top, left) in zip(shares, [(0, 0), (0, 10), (10, 0), (10, 10)], strict=True):
        mask[top : top + 10, left : left + 10].flat[:share] = True
        block = np.zeros(100, bool)
        block[:share] = True
        mask[top : top + 10, left : left + 10] = block.reshape(10, 10)
    return TissueMask(mask, 1.0)


def test_a_tenth_is_enough() -> None:
    assert cells_with_tissue(of_area(10, 9, 100, 0), GRID).tolist() == [[True, False], [True, False]]


def test_where_no_cell_has_a_tenth_the_fullest_are_kept() -> None:
    assert cells_with_tissue(of_area(2, 7, 7, 0), GRID).tolist() == [[False, True], [True, False]]


def test_nothing_stays_nothing() -> None:
    assert not cells_with_tissue(of_area(0, 0, 0, 0), GRID).any()
    assert not cells_with_tissue(of_area(100, 100, 100, 100), Grid(1, 1, (5.0, 5.0), (50.0, 50.0))).any()
