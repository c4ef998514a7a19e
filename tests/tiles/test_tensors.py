"""Plain tensors as a `TileSource`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from wsi_attention.errors import NoTissueError
from wsi_attention.geometry import Grid
from wsi_attention.structures import TileSet
from wsi_attention.tiles.tensors import TensorSource


def images(dtype: torch.dtype = torch.float64, b: int = 2, h: int = 12, w: int = 18) -> torch.Tensor:
    values = torch.rand(b, 3, h, w, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (values * 255).to(dtype) if dtype == torch.uint8 else values.to(dtype)


def test_scale() -> None:
    source = TensorSource(images(), mpp=0.5)
    assert (source.extent, source.batch) == ((18, 12), 2)
    assert [source.downsample(mpp) for mpp in (2.0, 0.51, 0.5, 0.1, 1.25)] == [4.0, 1.0, 1.0, 1.0, 2.5]
    assert source.overview_downsample(2.0) == 4.0


@pytest.mark.parametrize("downsample", [1, 2, 3, 6])
def test_a_whole_overview_is_average_pooling(downsample: int) -> None:
    x = images()
    torch.testing.assert_close(TensorSource(x).overview(downsample), functional.avg_pool2d(x, downsample))


@pytest.mark.parametrize("downsample", [2.5, 5.0, 7.0])
def test_beyond_the_images_all_is_zero(downsample: float) -> None:
    x = images()
    view = TensorSource(x).overview(downsample)
    fine = x.repeat_interleave(10, 2).repeat_interleave(10, 3)
    h, w = -(-120 // int(10 * downsample)), -(-180 // int(10 * downsample))
    padding = (0, int(w * 10 * downsample) - 180, 0, int(h * 10 * downsample) - 120)
    torch.testing.assert_close(view, functional.avg_pool2d(functional.pad(fine, padding), int(10 * downsample)))


def test_eight_bits_stay_eight_bits() -> None:
    x = images(torch.uint8)
    view = TensorSource(x).overview(3.0)
    assert view.dtype == torch.uint8
    exact = functional.avg_pool2d(x.double(), 3)
    assert (view - exact).abs().max() <= 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_crops_in_the_order_asked_zero_outside(dtype: torch.dtype) -> None:
    x = images(dtype)
    source = TensorSource(x)
    places = np.array([[[3, 2], [-2, -1], [16, 10]], [[0, 0], [17, 11], [40, 40]]])
    batch = source.read(TileSet(places, (5, 4), 1.0))
    padded = functional.pad(x, (50, 50, 50, 50))
    for i in range(2):
        for j, (left, top) in enumerate(places[i]):
            assert torch.equal(batch.pixels[i, j], padded[i, :, top + 50 : top + 54, left + 50 : left + 55])
    assert batch.pixels.dtype == dtype
    assert batch.valid.all()
    assert batch.valid.shape == (2, 3)
    assert (source.counters.tiles, source.counters.pixels) == (6, 6 * 20)
    assert source.counters.bytes == 6 * 20 * 3 * x.element_size()


def test_coarse_tiles_are_averaged() -> None:
    x = images()
    batch = TensorSource(x).read(TileSet(np.array([[[2, 4]], [[-2, 0]]]), (3, 2), 2.0))
    torch.testing.assert_close(batch.pixels[0, 0], functional.avg_pool2d(x[0, :, 4:8, 2:8], 2))
    torch.testing.assert_close(batch.pixels[1, 0, :, :, 0], torch.zeros(3, 2, dtype=torch.float64))
    torch.testing.assert_close(batch.pixels[1, 0, :, :, 1:], functional.avg_pool2d(x[1, :, 0:4, 0:4], 2))


def test_tissue() -> None:
    grid = Grid(2, 3, (6.0, 6.0))
    assert TensorSource(images()).tissue(grid).all()
    mask = torch.zeros(2, 12, 18, dtype=torch.bool)
    mask[0, :6, :6] = True
    mask[1, 11, 17] = True
    cells = TensorSource(images(), mask).tissue(grid)
    assert torch.nonzero(cells).tolist() == [[0, 0, 0], [1, 1, 2]]
    mask[0] = False
    with pytest.raises(NoTissueError, match="image 0 of 2"):
        TensorSource(images(), mask).tissue(grid)


def test_without_a_mask_cells_on_the_image_are_tissue() -> None:
    h, w = images().shape[-2:]
    found = TensorSource(images()).tissue(Grid(4, 4, (w / 2, h / 2), (-w / 2, -h / 2)))
    assert torch.nonzero(found[0]).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert TensorSource(images()).tissue(Grid(2, 2, (w / 2 + 1, h / 2), (-1.5, 0.0))).all()


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="b, c, h, w"):
        TensorSource(torch.zeros(3, 4, 5))
    with pytest.raises(ValueError, match="tissue must be"):
        TensorSource(images(), torch.zeros(2, 5, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="2 images"):
        TensorSource(images()).read(TileSet(np.zeros((1, 1, 2)), (2, 2), 1.0))


def test_no_tiles() -> None:
    batch = TensorSource(images()).read(TileSet(np.zeros((2, 0, 2)), (4, 3), 2.0))
    assert batch.pixels.shape == (2, 0, 3, 3, 4)
    assert batch.valid.shape == (2, 0)


def test_strips_of_the_overview_are_the_overview() -> None:
    source = TensorSource(torch.rand(2, 3, 23, 11, dtype=torch.float64))
    strips = list(source.overview_strips(2.0, 5, 2))
    assert [(strip.first, strip.last, strip.top, strip.pixels.shape[2]) for strip in strips] == [
        (0, 5, 0, 7),
        (5, 10, 3, 9),
        (10, 12, 8, 4),
    ]
    assert torch.equal(torch.cat([strip.pixels[:, :, strip.own] for strip in strips], dim=2), source.overview(2.0))
