"""Regions that overlap: their tissue, and the maps painted from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from wsi_attention.errors import NoTissueError
from wsi_attention.geometry import Grid
from wsi_attention.methods.tnet.crops import CropGrid, crop_grid
from wsi_attention.methods.tnet.regions import RegionCanvas, Regions
from wsi_attention.tiles.tensors import TensorSource


def regions(image: list[int], places: list[list[int]], side: int) -> Regions:
    v = len(image)
    ones, positions = torch.ones(v), torch.zeros(v, 3, dtype=torch.int64)
    return Regions(torch.tensor(image), torch.tensor(places), positions, ones, ones.log(), side)


def source(tissue: Tensor | None = None, b: int = 1) -> TensorSource:
    return TensorSource(torch.zeros(b, 1, 96, 160), tissue)


def test_cells_are_half_the_smallest_region_but_not_too_many() -> None:
    assert RegionCanvas(source(), 32).grid == Grid(6, 10, (16.0, 16.0))
    long = TensorSource(torch.zeros(1, 1, 2, 40_960))
    assert RegionCanvas(long, 32).grid.shape == (1, 512)


def test_crops_without_tissue_are_no_candidates() -> None:
    tissue = torch.zeros(2, 96, 160, dtype=torch.bool)
    tissue[0, :, :32] = True
    tissue[1, 48:, 128:] = True
    canvas = RegionCanvas(source(tissue, 2), 32)
    crop = crop_grid(160, 0.5, 3)
    found = canvas.candidates(regions([0, 1], [[0, -32], [0, -32]], 160), crop, 3).reshape(2, 3, 3)
    assert found[0].tolist() == [[True, False, False]] * 3
    assert found[1].tolist() == [[False] * 3, [False, False, True], [False, False, True]]


def test_a_sliver_of_tissue_counts_where_there_is_no_more() -> None:
    tissue = torch.zeros(1, 96, 160, dtype=torch.bool)
    tissue[0, 0, 0] = True
    canvas = RegionCanvas(source(tissue), 8)
    assert int(canvas.tissue.sum()) == 1
    crop = crop_grid(160, 0.5, 3)
    assert canvas.candidates(regions([0], [[0, -32]], 160), crop, 3)[0].nonzero().flatten().tolist() == [0]
    assert not canvas.candidates(regions([0], [[80, 0]], 80), crop_grid(80, 0.5, 3), 3).any()


def test_crops_beyond_the_image_are_no_candidates_though_a_border_cell_of_tissue_reaches_there() -> None:
    canvas = RegionCanvas(TensorSource(torch.zeros(1, 1, 100, 100)), 32)
    assert canvas.grid.cols * canvas.grid.step[0] == 112
    assert canvas.tissue.all()
    crop = CropGrid(32, 32, 0, 0)
    found = canvas.candidates(regions([0], [[8, 40]], 96), crop, 3).reshape(3, 3)
    assert found.tolist() == [[True] * 3, [True] * 3, [False] * 3]


def test_mass_is_spread_over_the_tissue_in_a_region() -> None:
    tissue = torch.ones(1, 96, 160, dtype=torch.bool)
    tissue[:, :, 32:] = False
    canvas = RegionCanvas(source(tissue), 32)
    overview, child = regions([0], [[0, -32]], 160), regions([0], [[16, 8]], 32)
    (found,) = canvas.spread([overview, child], [torch.tensor([0.4]), torch.tensor([0.6])])
    assert found.name == "attention"
    assert np.isnan(found.values[:, 2:]).all()
    assert np.nansum(found.values) == pytest.approx(1.0, abs=1e-6)
    expected = np.full((6, 2), 0.4 / 12)
    expected[:3, 1] += 0.6 * np.array([0.25, 0.5, 0.25])
    np.testing.assert_allclose(found.values[:, :2], expected, rtol=1e-5)


def test_each_image_gets_its_own_map() -> None:
    canvas = RegionCanvas(source(b=2), 32)
    both = regions([0, 1, 1], [[0, 0], [32, 32], [128, 64]], 32)
    maps = canvas.spread([both], [torch.tensor([1.0, 0.5, 0.5])])
    assert (maps[0].values > 0).nonzero()[0].tolist() == [0, 0, 1, 1]
    assert [float(one.values.sum()) for one in maps] == pytest.approx([1.0, 1.0])
    assert maps[1].values[2, 2] == maps[1].values[4, 8] == pytest.approx(0.125)


def test_the_best_crop_of_each_cell_is_shown() -> None:
    canvas, crop = RegionCanvas(source(), 32), CropGrid(32, 16, 0, 0)
    values = torch.tensor([[0.1, 0.4, 0.2, 0.3]])
    (found,) = canvas.highest(regions([0], [[16, 16]], 48), crop, values, "location-1")
    expected = np.zeros((6, 10))
    expected[1, 1:4], expected[2, 1:4], expected[3, 1:4] = (0.1, 0.4, 0.4), (0.2, 0.4, 0.4), (0.2, 0.3, 0.3)
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)
    assert found.name == "location-1"


class EmptySource(TensorSource):
    def tissue(self, grid: Grid) -> Tensor:
        return torch.zeros(self.batch, *grid.shape, dtype=torch.bool)


def test_no_tissue_is_an_error() -> None:
    with pytest.raises(NoTissueError, match="nothing to look at"):
        RegionCanvas(EmptySource(torch.zeros(1, 1, 96, 160)), 32)
