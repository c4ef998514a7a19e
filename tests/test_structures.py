"""Tissue per cell, against a table of summed areas over every pixel."""

from __future__ import annotations

import numpy as np
import pytest

from wsi_attention.geometry import Grid
from wsi_attention.structures import Strip, TissueMask


def by_pixels(mask: np.ndarray, step: tuple[float, float], origin: tuple[float, float], cell: tuple[int, int]) -> float:
    """Share of one cell (row, col) that is tissue, pixel by pixel; all in mask pixels."""
    left, top = (start + index * side for start, index, side in zip(origin, cell[::-1], step, strict=True))
    y, x = np.arange(mask.shape[0]), np.arange(mask.shape[1])
    tall = np.clip(np.minimum(y + 1, top + step[1]) - np.maximum(y, top), 0, None)
    wide = np.clip(np.minimum(x + 1, left + step[0]) - np.maximum(x, left), 0, None)
    return float(tall @ mask @ wide / (step[0] * step[1]))


@pytest.mark.parametrize("seed", range(8))
def test_shares_of_cells_with_fractional_borders(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 30, 2)) < 0.4
    downsample, step, origin = rng.uniform(1, 9), rng.uniform(0.3, 12, 2), rng.uniform(-6, 6, 2)
    rows, cols = (int(n) for n in rng.integers(1, 9, 2))
    grid = Grid(rows, cols, tuple(step * downsample), tuple(origin * downsample))
    expected = [[by_pixels(mask, tuple(step), tuple(origin), (r, c)) for c in range(cols)] for r in range(rows)]
    np.testing.assert_allclose(TissueMask(mask, downsample).fraction(grid), expected, atol=1e-9)


def test_a_strip_knows_its_own_rows() -> None:
    strip = Strip(first=8, last=12, top=5, pixels=np.arange(5, 15))
    assert strip.pixels[strip.own].tolist() == [8, 9, 10, 11]
