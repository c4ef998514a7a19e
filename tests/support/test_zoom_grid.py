"""Zoom-In's coordinates by the example of its page, and the pixels it reads."""

from __future__ import annotations

import pytest
import torch
import zoom_grid as z


def test_example_of_the_page() -> None:
    assert z.tile_centres(torch.arange(5), 5, 1000).tolist() == [0, 249, 499, 749, 999]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50, 181])
@pytest.mark.parametrize("size", [181, 1000, 4097, 100_003])
def test_corners_are_exact_and_tiles_lie_in_the_padded_image(count: int, size: int) -> None:
    centres = z.tile_centres(torch.arange(count), count, size)
    assert centres.dtype == torch.int64
    if count == 1:
        assert centres.tolist() == [(size - 1) // 2]
        return
    assert (int(centres[0]), int(centres[-1])) == (0, size - 1)
    assert (centres.diff() > 0).all()
    for tile in [64, 65]:
        starts = z.tile_starts(centres, tile)
        assert int(starts[0]) == -(tile // 2)
        assert int(starts[-1]) + tile <= size + tile // 2


def test_tiles_of_one_coarse_cell_leave_no_gap() -> None:
    centres = z.tile_centres(torch.arange(50), 50, 500)
    covered = {p for start in z.tile_starts(centres, 11).tolist() for p in range(start, start + 11)}
    assert covered >= set(range(500))


def test_pixels_read_add_up() -> None:
    found = z.pixels_read((500, 500), 0.1, (3, (250, 250), 0.2), (10, (27, 27)))
    assert found == pytest.approx(50 * 50 + 3 * 50 * 50 + 10 * 27 * 27)
