from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely

from wsi_attention.export.measures import area_read, clipped, covered, disjoint, read_boxes
from wsi_attention.export.sampling import without_boxes
from wsi_attention.geometry import Grid
from wsi_attention.structures import Glimpse, TileSet, TissueMask
from wsi_attention.testing.exporters import example_prediction


def some_boxes(seed: int, count: int, size: int = 300) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.integers(0, 700, (count, 2)), rng.integers(1, size, (count, 2))], axis=1)


def union(boxes: np.ndarray):
    return shapely.union_all(shapely.box(*(boxes[:, :2]).T, *(boxes[:, :2] + boxes[:, 2:]).T))


@pytest.mark.parametrize("seed", range(5))
def test_disjoint_boxes_are_the_union_without_overlap(seed: int) -> None:
    boxes = some_boxes(seed, 30)
    parts = disjoint(boxes)
    assert (parts[:, 2] * parts[:, 3]).sum() == pytest.approx(union(boxes).area)
    assert union(parts).equals(union(boxes))


@pytest.mark.parametrize("seed", range(5))
def test_covered_is_exact_on_a_grid_that_fits_nothing(seed: int) -> None:
    boxes = some_boxes(seed, 12)
    grid = Grid(9, 11, (93.7, 101.3), (-20.5, 3.25))
    whole = union(boxes)
    for row in range(grid.rows):
        for col in range(grid.cols):
            x, y = grid.origin[0] + col * grid.step[0], grid.origin[1] + row * grid.step[1]
            cell = shapely.box(x, y, x + grid.step[0], y + grid.step[1])
            share = cell.intersection(whole).area / cell.area
            assert covered(boxes, grid)[row, col] == pytest.approx(share, abs=1e-6)


def test_nothing_covers_nothing() -> None:
    grid = Grid(2, 3, (5.0, 5.0))
    assert covered(np.empty((0, 4), np.int64), grid).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert covered(np.array([[100, 100, 5, 5], [-50, 0, 10, 10]]), grid).sum() == 0


def test_clipped_keeps_the_inner_part() -> None:
    boxes = np.array([[-5, -5, 10, 10], [95, 40, 10, 20], [100, 0, 5, 5], [10, 10, 5, 5]])
    assert clipped(boxes, (100, 50)).tolist() == [[0, 0, 5, 5], [95, 40, 5, 10], [100, 0, 0, 5], [10, 10, 5, 5]]


def prediction_of(locations, valid, mask, downsample=10.0):
    count = len(locations)
    tiles = TileSet(np.array(locations), (100, 100), 1.0)
    glimpse = Glimpse(tiles, np.full(count, 1 / count), np.full(count, 0.1), np.array(valid))
    tissue = TissueMask(mask, downsample)
    return replace(example_prediction(), extent=(1000, 1000), glimpses=(glimpse, glimpse), tissue=tissue)


def test_area_read_counts_tissue_once_and_no_failed_tile() -> None:
    mask = np.zeros((100, 100), bool)
    mask[:, :50] = True
    prediction = prediction_of([(0, 0), (50, 0), (450, 0), (0, 500)], [True, True, True, False], mask)
    assert area_read(prediction) == pytest.approx((150 * 100 + 50 * 100) / (500 * 1000), rel=1e-6)


def test_area_read_of_no_tissue_is_zero() -> None:
    assert area_read(prediction_of([(0, 0)], [True], np.zeros((100, 100), bool))) == 0.0


def test_read_boxes_are_clipped_and_unique() -> None:
    prediction = prediction_of([(950, 0), (0, 0), (0, 0), (1000, 1000)], [True] * 4, np.ones((100, 100), bool))
    assert read_boxes(prediction).tolist() == [[0, 0, 100, 100], [950, 0, 50, 100]]


def test_cells_whose_centre_a_box_holds_leave_a_mask() -> None:
    grid, boxes = Grid(5, 7, (10.0, 8.0), (3.0, -4.0)), np.array([[10, 0, 21, 12], [60, 25, 40, 40], [-9, -9, 13, 9]])
    rows, cols = np.mgrid[:5, :7]
    x, y = 3.0 + (cols + 0.5) * 10.0, -4.0 + (rows + 0.5) * 8.0
    inside = [(bx <= x) & (x < bx + w) & (by <= y) & (y < by + h) for bx, by, w, h in boxes.tolist()]
    left = without_boxes(np.ones((5, 7), bool), boxes, grid)
    np.testing.assert_array_equal(left, ~np.any(inside, axis=0))
    assert 0 < left.sum() < left.size
