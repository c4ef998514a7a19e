"""Regions by the figures of the RAMS-Trans page, and against a flood fill on random masks."""

from __future__ import annotations

import pytest
import torch

from wsi_attention.methods.rams_trans import regions as r


def flooded(mask: torch.Tensor) -> list[set[tuple[int, int]]]:
    """Components in scan order, by a plain flood fill over the eight neighbours."""
    left = {(int(i), int(j)) for i, j in mask.nonzero()}
    found = []
    while left:
        stack, blob = [min(left)], set()
        while stack:
            i, j = stack.pop()
            if (i, j) in left:
                left.remove((i, j))
                blob.add((i, j))
                stack += [(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
        found.append(blob)
    return found


def cells_of(mask: torch.Tensor) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in mask.nonzero()}


def test_threshold_lies_at_alpha_times_the_mean() -> None:
    values = torch.tensor([[[1.0, 1.0], [1.0, 5.0]]])
    expected = torch.tensor([[[False, False], [False, True]]])
    for scale in [1.0, 0.01, 1e6]:
        assert torch.equal(r.above_mean(values * scale), expected)
    assert torch.equal(r.above_mean(values, 0.4), torch.ones_like(expected))


def test_cells_without_tissue_count_neither_way() -> None:
    values = torch.tensor([[[1.0, 1.0, torch.nan], [1.0, 5.0, torch.nan]]])
    assert cells_of(r.above_mean(values)[0]) == {(1, 1)}
    assert cells_of(r.above_mean(values, 0.49)[0]) == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_diagonal_neighbours_belong_together() -> None:
    mask = torch.eye(4, dtype=torch.bool)
    assert len(r.components(mask)) == 1
    assert torch.equal(r.components(mask)[0], mask)


def test_largest_component_wins_and_the_first_of_equals() -> None:
    mask = torch.zeros(5, 7, dtype=torch.bool)
    mask[0, :3] = True
    mask[3:5, 4:6] = True
    assert torch.equal(r.propose(mask[None]), torch.tensor([[4, 3, 2, 2]]))
    mask[4, 5] = False
    assert torch.equal(r.propose(mask[None]), torch.tensor([[0, 0, 3, 1]]))


@pytest.mark.parametrize("seed", range(6))
def test_components_equal_a_flood_fill(seed: int) -> None:
    mask = torch.rand(9, 11, generator=torch.Generator().manual_seed(seed)) < 0.35
    expected = sorted(flooded(mask), key=lambda blob: -len(blob))
    assert [cells_of(component) for component in r.components(mask)] == expected


def test_no_component_in_an_empty_mask() -> None:
    assert r.components(torch.zeros(3, 4, dtype=torch.bool)) == ()


def test_box_of_the_page_in_pixels() -> None:
    mask = torch.zeros(1, 14, 14, dtype=torch.bool)
    mask[0, 3:7, 2:10] = True
    boxes = r.propose(mask)
    assert torch.equal(boxes * 32, torch.tensor([[64, 96, 256, 128]]))
    assert torch.equal(r.pixel_boxes_as_released(boxes, 32), torch.tensor([[63, 95, 257, 129]]))
    at_border = r.pixel_boxes_as_released(torch.tensor([[0, 0, 2, 1]]), 32)
    assert torch.equal(at_border, torch.tensor([[0, 0, 64, 32]]))


def test_flat_map_gives_the_full_image() -> None:
    flat = torch.full((2, 3, 5), 1 / 15)
    assert not r.above_mean(flat).any()
    assert torch.equal(r.propose(r.above_mean(flat)), torch.tensor([[0, 0, 5, 3]] * 2))
    assert torch.equal(r.propose(r.above_share(flat, 0.1)), torch.tensor([[0, 0, 5, 3]] * 2))


def test_a_single_component_stays_whole() -> None:
    values = torch.ones(1, 6, 6)
    values[0, 2:4, 1:5] = 9.0
    mask = r.above_mean(values)
    assert torch.equal(r.components(mask[0])[0], mask[0])


def test_share_of_the_maximum_after_min_max() -> None:
    values = torch.tensor([[[-1.0, -0.75, -0.875], [0.0, 1.0, -1.0]]])
    assert torch.equal(r.above_share(values, 0.125), torch.tensor([[[False, True, False], [True, True, False]]]))


def test_boxes_grow_around_their_centre_and_stay_inside() -> None:
    boxes = torch.tensor([[4, 4, 1, 1], [0, 9, 1, 1], [2, 3, 6, 2]])
    grown = r.grown(boxes, torch.tensor([3, 3]), (10, 10))
    assert torch.equal(grown, torch.tensor([[3, 3, 3, 3], [0, 7, 3, 3], [2, 3, 6, 3]]))
    assert torch.equal(r.grown(boxes, r.square_size(boxes), (10, 10))[2], torch.tensor([2, 1, 6, 6]))
    assert torch.equal(r.grown(boxes, r.square_size(boxes), (4, 10))[2, 2:], torch.tensor([6, 4]))


def test_full_box_at_the_same_size_returns_the_input_exactly() -> None:
    pixels = torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(r.enlarged(pixels, torch.tensor([[0, 0, 6, 8]] * 2), (8, 6)), pixels)


def test_enlarged_keeps_the_corners_of_the_box() -> None:
    pixels = torch.arange(48.0).reshape(1, 1, 6, 8)
    crop = r.enlarged(pixels, torch.tensor([[2, 1, 4, 3]]), (9, 12))[0, 0]
    assert crop.shape == (9, 12)
    corners = [crop[0, 0], crop[0, -1], crop[-1, 0], crop[-1, -1]]
    assert [float(corner) for corner in corners] == [10, 13, 26, 29]
    torch.testing.assert_close(crop[0], torch.linspace(10, 13, 12))
    torch.testing.assert_close(crop[:, 0], torch.linspace(10, 26, 9))
