"""TNet's crop grid, positions and encoding, by the tables of its page."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from wsi_attention.errors import InputError
from wsi_attention.methods.tnet import crops as g

TABLE = [
    ((448, 0.5, 3), (224, 112, 0, 0)),
    ((896, 0.5, 3), (448, 224, 0, 0)),
    ((448, 0.35, 5), (157, 73, 1, 0)),
    ((224, 0.34375, 5), (77, 37, 1, 0)),
]


@pytest.mark.parametrize(("arguments", "expected"), TABLE)
def test_crop_grid_of_the_published_settings(arguments: tuple[int, float, int], expected: tuple[int, ...]) -> None:
    assert tuple(g.crop_grid(*arguments)) == expected


@pytest.mark.parametrize("size", [7, 77, 100, 448, 897])
@pytest.mark.parametrize(("overlap", "n"), [(0.5, 2), (0.5, 3), (0.35, 5), (0.34375, 5), (1.0, 2)])
def test_crops_lie_in_the_padded_image_and_cover_it(size: int, overlap: float, n: int) -> None:
    grid = g.crop_grid(size, overlap, n)
    starts = [i * grid.stride - grid.before for i in range(n)]
    assert starts[0] == -grid.before
    assert starts[-1] + grid.patch == size + grid.after
    assert 0 <= grid.before - grid.after <= 1
    covered = {p for start in starts for p in range(start, start + grid.patch)}
    assert (covered >= set(range(size))) == (n * grid.patch >= size)
    assert len(set(range(size)) - covered) <= (n - 1 if overlap * n == 1 else 0)


@pytest.mark.parametrize(("arguments", "expected"), TABLE)
def test_published_grids_cover_the_image(arguments: tuple[int, float, int], expected: tuple[int, ...]) -> None:
    patch, stride, before, _ = expected
    covered = {i * stride - before + p for i in range(arguments[2]) for p in range(patch)}
    assert covered >= set(range(arguments[0]))


@pytest.mark.parametrize(("overlap", "n"), [(0.5, 1), (0.0, 3), (1.5, 3)])
def test_impossible_grids_are_refused(overlap: float, n: int) -> None:
    with pytest.raises(InputError, match="crop grid"):
        g.crop_grid(100, overlap, n)


def test_crops_without_padding_are_slices_of_the_parent() -> None:
    size = 16
    image = torch.arange(size * size).reshape(size, size)
    grid = g.crop_grid(size, 0.5, 3)
    corners = g.child_locations(torch.zeros(1, 2, dtype=torch.int64), torch.tensor([[0, 4, 2]]), (grid, grid), 3)
    crops = [image[y : y + grid.patch, x : x + grid.patch] for x, y in corners[0].tolist()]
    assert torch.equal(crops[0], image[:8, :8])
    assert torch.equal(crops[1], image[4:12, 4:12])
    assert torch.equal(crops[2], image[:8, 8:])


def test_locations_are_x_y_and_agree_with_padding_first() -> None:
    across, down = g.crop_grid(448, 0.35, 5), g.crop_grid(224, 0.34375, 5)
    image = torch.randn(224, 448, generator=torch.Generator().manual_seed(0))
    padded = functional.pad(image, (across.before, across.after, down.before, down.after))
    cell = 1 * 5 + 3
    origin = torch.tensor([[1000, 2000]])
    (x, y), *_ = g.child_locations(origin, torch.tensor([[cell]]), (across, down), 5)[0].tolist()
    expected = padded[1 * down.stride :, 3 * across.stride :][: down.patch, : across.patch]
    assert torch.equal(image[y - 2000 :, x - 1000 :][: down.patch, : across.patch], expected)


def test_positions_descend_through_two_levels() -> None:
    overview = torch.zeros(1, 3, dtype=torch.int64)
    first = g.child_positions(overview, torch.tensor([[1 * 3 + 2]]), 3)
    assert first[0].tolist() == [[1, 2, 1]]
    second = g.child_positions(first[0], torch.tensor([[0 * 3 + 1]]), 3)
    assert second[0].tolist() == [[3, 7, 2]]


def test_encoding_of_the_overview_is_zero_and_one() -> None:
    encoding = g.positional_encoding(torch.zeros(3, dtype=torch.int64), 20)
    block = [0.0] * 3 + [1.0] * 3
    assert encoding.tolist() == block * 3 + [0.0, 0.0]


def test_encoding_of_320_channels() -> None:
    encoding = g.positional_encoding(torch.tensor([[3, 7, 2], [0, 0, 0]]), 320)
    assert encoding.shape == (2, 320)
    assert torch.equal(encoding[:, 318:], torch.zeros(2, 2))
    assert int((encoding[0] != 0).sum()) == 318
    first, last = 106 * 1, 106 * 1 + 52
    expected = torch.tensor([7.0, 0.07, 2.0, 0.02]).sin()
    torch.testing.assert_close(encoding[0, [first, last, 212, 264]], expected)
    torch.testing.assert_close(encoding[0, 106 + 53], torch.tensor(7.0).cos())


def test_encoding_of_the_fewest_channels() -> None:
    torch.testing.assert_close(
        g.positional_encoding(torch.tensor([1, 2, 3]), 6)[::2], torch.tensor([1.0, 2.0, 3.0]).sin()
    )


def test_grids_go_down_until_the_finest_scale() -> None:
    """3840 px seen at 96: 40, 10 and 2.5 pixels a pixel, then 1; a fifth level would show nothing new."""
    grids = g.crop_grids(3840, 96, 0.25, 5, 4)
    assert [grid.patch for grid in grids] == [960, 240, 96]
    assert grids[2] == g.crop_grid(240, 0.4, 5)
    assert [grid.patch for grid in g.crop_grids(3840, 96, 0.25, 5, 2)] == [960, 240]
    assert g.crop_grids(96, 96, 0.25, 5, 3) == ()


@pytest.mark.parametrize("side", [97, 130, 1000, 99999])
def test_no_crop_is_smaller_than_a_view(side: int) -> None:
    for grid in g.crop_grids(side, 96, 0.25, 5, 9):
        assert 96 <= grid.patch < side
        covered = {p for i in range(5) for p in range(i * grid.stride - grid.before, i * grid.stride + grid.patch)}
        assert len(set(range(side)) - covered) == 0
        side = grid.patch
    assert side == 96


def test_overlaps_of_intervals_with_cells() -> None:
    share = g.overlaps(torch.tensor([-3.0, 4.0, 25.0]), 10.0, 8.0, 3)
    expected = torch.tensor([[7 / 8, 0, 0], [4 / 8, 6 / 8, 0], [0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(share, expected)
    cut = g.overlaps(torch.tensor([4.0, 13.0]), 10.0, 8.0, 2, end=13.0)
    torch.testing.assert_close(cut, torch.tensor([[4 / 8, 5 / 8], [0, 0]], dtype=torch.float64))


def test_crop_means_are_means_of_what_the_crops_show() -> None:
    maps = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    grid = g.crop_grid(160, 0.5, 3)
    phi = g.crop_means(maps, grid, 160, 3)
    for gy, gx in [(0, 0), (1, 2), (2, 1)]:
        expected = maps[:, :, 4 * gy : 4 * gy + 8, 4 * gx : 4 * gx + 8].mean(dim=(-2, -1))
        torch.testing.assert_close(phi[:, :, gy, gx], expected)


def test_crop_means_leave_out_what_lies_outside() -> None:
    """At 448 px the first of five crops starts one pixel outside: nothing is averaged with zeros there."""
    phi = g.crop_means(torch.ones(1, 1, 12, 12), g.crop_grid(448, 0.35, 5), 448, 5)
    torch.testing.assert_close(phi, torch.ones(1, 1, 5, 5))
