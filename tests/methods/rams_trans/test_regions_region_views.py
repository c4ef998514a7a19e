"""Regions found on a view and read again: which pixels come, for one scale, for two, and side by side."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from wsi_attention.errors import TileReadError
from wsi_attention.methods.rams_trans.regions import (
    Region,
    Views,
    boxes_of,
    find_regions,
    look_again,
    tissue_of,
    whole_images,
    within,
    without_surroundings,
)
from wsi_attention.testing.models import FailingSource
from wsi_attention.tiles.tensors import TensorSource


def coordinates(width: int, height: int, b: int = 1) -> Tensor:
    """(b, 2, h, w): each pixel holds its own x and y, at its centre."""
    x = (torch.arange(width) + 0.5).expand(height, -1)
    y = (torch.arange(height) + 0.5)[:, None].expand(-1, width)
    return torch.stack([x, y]).expand(b, -1, -1, -1).clone()


def region(view: int = 0) -> Region:
    return Region(view, (0, 0, 1, 1), 0.5, (0, 0))


def corners(views: Views, number: int = 0) -> list[float]:
    """Left, top, right, bottom of what a view shows, from its pixels."""
    pixels, half = views.pixels[number], views.downsample / 2
    return [float(v) for v in (*(pixels[:, 0, 0] - half), *(pixels[:, -1, -1] + half))]


def test_flat_map_gives_all_tissue() -> None:
    flat = torch.full((2, 4, 4), 1 / 16)
    assert find_regions(flat, 1.3) == tuple(Region(view, (0, 0, 4, 4), 1 / 16, (0, 0)) for view in (0, 1))
    flat[0, :, 0] = flat[0, 3, :] = torch.nan
    assert find_regions(flat, 1.3)[0].box == (1, 0, 3, 3)


def test_one_cell_of_tissue_is_a_region() -> None:
    values = torch.full((1, 4, 4), torch.nan)
    values[0, 2, 1] = 1.0
    assert find_regions(values, 1.3) == (Region(0, (1, 2, 1, 1), 1.0, (1, 2)),)


def test_background_does_not_lower_the_threshold() -> None:
    values = torch.tensor([[[2.0, 2, 2], [2, 3, 2], [0, 0, 0]]])
    assert find_regions(values, 1.3)[0].box == (0, 0, 3, 2)
    values[0, 2] = torch.nan
    assert find_regions(values, 1.3)[0].box == (1, 1, 1, 1)


def test_several_regions_largest_first_above_an_area() -> None:
    values = torch.ones(1, 8, 8)
    values[0, 0, 0:2], values[0, 3:5, 3:6], values[0, 7, 7] = 9.0, 8.0, 20.0
    boxes = [found.box for found in find_regions(values, 1.3, most=3)]
    assert boxes == [(3, 3, 3, 2), (0, 0, 2, 1), (7, 7, 1, 1)]
    assert [found.attention for found in find_regions(values, 1.3, most=3)] == [8.0, 9.0, 20.0]
    assert len(find_regions(values, 1.3, most=2)) == 2
    assert [found.box for found in find_regions(values, 1.3, most=3, least_area=2)] == boxes[:2]
    assert [found.box for found in find_regions(values, 1.3, most=3, least_area=50)] == boxes[:1]


def test_boxes_stay_between_the_least_and_the_most_side() -> None:
    values = torch.ones(1, 10, 10)
    values[0, 1:9, 2:4], values[0, 7, 3] = 5.0, 6.0
    found = find_regions(values, 1.3)
    assert found[0].peak == (3, 7)
    assert boxes_of(found, 10).tolist() == [[2, 1, 2, 8]]
    assert boxes_of(found, 10, least=4).tolist() == [[1, 1, 4, 8]]
    assert boxes_of(found, 10, most=8).tolist() == [[2, 1, 2, 8]]
    assert boxes_of(found, 10, most=5).tolist() == [[1, 5, 5, 5]]
    assert boxes_of(found, 10, least=5, most=5).tolist() == [[1, 5, 5, 5]]


def test_the_whole_image_lies_in_the_middle() -> None:
    views = whole_images(TensorSource(coordinates(256, 128)), 64)
    assert views.downsample == 4.0
    assert views.origins.tolist() == [[0.0, -64.0]]
    assert views.grids(8)[0].step == (32.0, 32.0)
    assert views.grids(8)[0].origin == (0.0, -64.0)


def test_a_box_is_read_at_its_own_downsample() -> None:
    """16 pixels of a view at 4 are 64 level-0 pixels: read at 1, they fill a view of 64, pixel by pixel."""
    image = coordinates(256, 256)
    source = TensorSource(image)
    views = whole_images(source, 64)
    found, inside, ((glimpse),) = look_again(
        source, views, [region()], torch.tensor([[16, 32, 16, 16]]), 1.0, "scale-2"
    )
    assert torch.equal(found.pixels[0], image[0, :, 128:192, 64:128])
    assert found.downsample == 1.0
    assert inside.tolist() == [[0, 0, 64, 64]]
    assert glimpse.tiles.boxes.tolist() == [[[64, 128, 64, 64]]]
    assert glimpse.name == "scale-2"
    assert glimpse.weights.tolist() == [1.0]
    assert glimpse.attention.tolist() == [0.5]


@pytest.mark.parametrize(("finest", "side"), [(1.0, 16), (2.0, 32), (3.5, 56), (4.0, 64), (9.0, 64)])
def test_a_small_box_grows_until_nothing_is_up_sampled(finest: float, side: int) -> None:
    source = TensorSource(coordinates(256, 256))
    views = whole_images(source, 64)
    found, inside, _ = look_again(source, views, [region()], torch.tensor([[30, 30, 4, 4]]), finest, "scale-2")
    assert found.downsample == side * 4 / 64
    start = (30 - (side - 4) // 2) * 4.0 if side < 64 else 0.0
    assert corners(found) == pytest.approx([start, start, start + side * 4, start + side * 4], abs=0.05)
    scale = 64 / side
    assert inside[0].tolist() == pytest.approx([(30 - start / 4) * scale] * 2 + [4 * scale] * 2)


def test_an_image_smaller_than_a_view_stays_at_level_0() -> None:
    image = coordinates(40, 20)
    source = TensorSource(image)
    views = whole_images(source, 64)
    found, _, (glimpse,) = look_again(source, views, [region()], torch.tensor([[30, 30, 8, 8]]), 1.0, "scale-2")
    assert found.downsample == 1.0
    assert glimpse.tiles.boxes.tolist() == [[[-12, -22, 64, 64]]]
    assert torch.equal(found.pixels, views.pixels)


def test_the_chain_of_boxes_adds_up() -> None:
    """A box in a view of a box lies where both offsets say, at the product of the scales."""
    source = TensorSource(coordinates(1024, 1024))
    first = whole_images(source, 64)
    second, _, _ = look_again(source, first, [region()], torch.tensor([[10, 20, 32, 32]]), 1.0, "scale-2")
    third, _, _ = look_again(source, second, [region()], torch.tensor([[8, 4, 16, 16]]), 1.0, "scale-3")
    assert (first.downsample, second.downsample, third.downsample) == (16.0, 8.0, 2.0)
    assert corners(second) == pytest.approx([160, 320, 672, 832], abs=1e-3)
    assert corners(third) == pytest.approx([160 + 64, 320 + 32, 160 + 192, 320 + 160], abs=1e-3)
    assert third.origins.tolist() == [[224.0, 352.0]]


def test_images_side_by_side_share_a_side_and_records_know_no_filling() -> None:
    source = TensorSource(coordinates(256, 256, b=2))
    views = whole_images(source, 64)
    boxes = torch.tensor([[0, 0, 16, 16], [40, 40, 8, 8], [8, 8, 20, 32]])
    found, _, (one, other) = look_again(source, views, [region(0), region(0), region(1)], boxes, 1.0, "scale-2")
    assert found.images == (0, 0, 1)
    assert found.downsample == 2.0
    assert one.tiles.boxes.tolist() == [[[0, 0, 128, 128], [112, 112, 128, 128]]]
    assert other.tiles.boxes.tolist() == [[[8, 32, 128, 128]]]
    assert corners(found, 2) == pytest.approx([8, 32, 136, 160], abs=1e-3)
    np.testing.assert_array_equal(one.weights, [0.5, 0.5])


def test_a_failed_region_leaves_views_and_weights() -> None:
    source = FailingSource(coordinates(256, 256), (0, 2))
    boxes = torch.tensor([[0, 0, 16, 16], [40, 40, 16, 16], [8, 8, 16, 16]])
    found, inside, (glimpse,) = look_again(source, whole_images(source, 64), [region()] * 3, boxes, 1.0, "scale-2")
    assert found.images == (0,)
    assert len(inside) == 1
    assert corners(found) == pytest.approx([160, 160, 224, 224], abs=1e-3)
    assert glimpse.valid.tolist() == [False, True, False]
    assert glimpse.weights.tolist() == [0.0, 1.0, 0.0]
    with pytest.raises(TileReadError, match="none of the 1 regions of scale-2"):
        look_again(source, whole_images(source, 64), [region()], boxes[:1], 1.0, "scale-2")


def test_tissue_of_each_view_is_its_own_images() -> None:
    tissue = torch.zeros(2, 256, 256, dtype=torch.bool)
    tissue[0, :128], tissue[1, :, 128:] = True, True
    source = TensorSource(coordinates(256, 256, b=2), tissue)
    cells = tissue_of(source, whole_images(source, 64), 4)
    assert cells[0].tolist() == [[True] * 4] * 2 + [[False] * 4] * 2
    assert cells[1].tolist() == [[False, False, True, True]] * 4


def test_surroundings_become_background() -> None:
    boxes = torch.tensor([[1.0, 0, 2, 3], [0, 0, 4, 4]], dtype=torch.float64)
    shown = without_surroundings(torch.ones(2, 3, 4, 4, dtype=torch.uint8), boxes)
    expected = torch.full((4, 4), 255, dtype=torch.uint8)
    expected[:3, 1:3] = 1
    assert torch.equal(shown[0], expected.expand(3, -1, -1))
    assert (shown[1] == 1).all()


def test_tissue_within_boxes() -> None:
    tissue = torch.ones(2, 4, 4, dtype=torch.bool)
    tissue[:, 1] = False
    boxes = torch.tensor([[4, 0, 5, 9], [8, 4, 4, 4]])
    found = within(tissue, boxes, 16)
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[[0, 2], 1:3] = True
    assert torch.equal(found[0], expected)
    assert torch.equal(found[1], tissue[1])
