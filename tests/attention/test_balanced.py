"""Draws spread over the tissue: exact chances by enumeration of the one random number, clusters met, refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from wsi_attention.attention import balanced
from wsi_attention.attention.balanced import chances, curve, draw_balanced
from wsi_attention.attention.sampling import draw_without_replacement

SHAPE = 5, 7


def some_attention(seed: int = 0) -> Tensor:
    a = torch.rand(3, 35, dtype=torch.float64, generator=Generator().manual_seed(seed)) ** 4
    a[0, :9] = 0.0
    a[1, 4] = 3.0
    return a


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (8, 8), (5, 7), (3, 17)])
def test_the_curve_visits_every_cell_once(shape: tuple[int, int]) -> None:
    assert sorted(curve(*shape).tolist()) == list(range(shape[0] * shape[1]))


def test_the_curve_goes_from_neighbour_to_neighbour() -> None:
    row, col = np.divmod(curve(16, 16), 16)
    assert (np.abs(np.diff(row)) + np.abs(np.diff(col)) == 1).all()


@pytest.mark.parametrize("n", [1, 4, 12, 26])
def test_chances_are_in_proportion_and_sum_to_n(n: int) -> None:
    a = some_attention()
    found = chances(a, n)
    torch.testing.assert_close(found.sum(dim=-1), torch.full((3,), float(n), dtype=torch.float64))
    assert bool((found <= 1).all()) and bool(((found > 0) == (a > 0)).all())
    for chance, attention in zip(found, a, strict=True):
        shared = (chance < 1) & (attention > 0)
        ratio = chance[shared] / attention[shared]
        assert not len(ratio) or float(ratio.max() / ratio.min()) < 1 + 1e-9
        if len(ratio):
            assert bool((attention[(chance == 1)] * ratio.max() >= 1 - 1e-9).all())


@pytest.mark.parametrize("n", [1, 4, 12, 26])
def test_cells_are_drawn_with_exactly_their_chance(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything depends on one u in [0, 1): between all places where the draw changes, its share is summed."""
    a = some_attention()[:1]
    chance = chances(a, n)[0]
    jumps = (chance[torch.from_numpy(curve(*SHAPE))].cumsum(dim=-1) % 1).tolist()
    steps = np.unique([0.0, 1.0, *jumps])
    total = torch.zeros(35, dtype=torch.float64)
    for low, high in itertools.pairwise(steps):
        middle = torch.full((1, 1), (low + high) / 2, dtype=torch.float64)
        monkeypatch.setattr(balanced.torch, "rand", lambda *size, u=middle, **more: u)
        drawn = draw_balanced(a, n, SHAPE)
        assert len(set(drawn.cells[0].tolist())) == n
        torch.testing.assert_close(drawn.chance[0], chance[drawn.cells[0]])
        total[drawn.cells[0]] += high - low
    torch.testing.assert_close(total, chance, atol=1e-9, rtol=0)


def test_a_cluster_is_met_more_often_than_by_independent_draws() -> None:
    attention, cluster = torch.full((1, 256), 1 / 256), {16 * row + col for row in range(4, 8) for col in range(8, 12)}
    met = [0, 0]
    for seed in range(50):
        noise = Generator().manual_seed(seed)
        met[0] += bool(cluster & set(draw_balanced(attention, 16, (16, 16), noise).cells[0].tolist()))
        met[1] += bool(cluster & set(draw_without_replacement(attention, 16, noise).cells[0].tolist()))
    assert met[0] == 50 and met[1] < 45


def test_the_generator_decides() -> None:
    first, again, other = (draw_balanced(some_attention(), 5, SHAPE, Generator().manual_seed(s)) for s in (1, 1, 2))
    assert bool((first.cells == again.cells).all()) and bool((first.cells != other.cells).any())


@pytest.mark.parametrize("n", [0, 27])
def test_what_cannot_be_drawn_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"asked for {n} different cells where an image has 26"):
        draw_balanced(some_attention(), n, SHAPE)
