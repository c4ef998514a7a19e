"""Draws: their distribution, what can never be drawn, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from wsi_attention.attention.sampling import (
    available,
    draw_with_replacement,
    draw_without_replacement,
    first_of,
    smoothed_softmax,
    top_k,
)

TOY = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
CHI2_999 = {2: 13.82, 5: 20.52}


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def chi_square(counts: torch.Tensor, probabilities: torch.Tensor) -> float:
    expected = probabilities * counts.sum()
    return float(((counts - expected).square() / expected).sum())


def test_softmax_floor_and_mask() -> None:
    logits = torch.tensor([[1.0, 2.0, -torch.inf, 0.0]])
    a = smoothed_softmax(logits, 0.1)
    p = logits[:, [0, 1, 3]].softmax(-1)
    torch.testing.assert_close(a[:, [0, 1, 3]], 0.9 * p + 0.1 / 3)
    assert a[0, 2] == 0.0
    assert float(a.sum()) == pytest.approx(1.0, abs=1e-6)


def test_softmax_does_not_see_a_constant() -> None:
    logits = torch.randn(2, 50, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(smoothed_softmax(logits, 1e-4), smoothed_softmax(logits + 7.0, 1e-4))


def test_softmax_is_computed_in_float32() -> None:
    assert smoothed_softmax(torch.zeros(1, 3, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize("row", [[-torch.inf, -torch.inf], [torch.nan, 0.0], [torch.inf, 0.0]])
def test_softmax_refuses(row: list[float]) -> None:
    with pytest.raises(ValueError, match="logits"):
        smoothed_softmax(torch.tensor([[0.0, 0.0], row]))


def test_first_draw_has_frequencies_a() -> None:
    a = TOY.expand(40_000, 3)
    for cells in (draw_without_replacement(a, 2, seeded()).cells, draw_with_replacement(a, 2, seeded())):
        counts = torch.bincount(cells[:, 0], minlength=3).double()
        assert chi_square(counts, TOY[0]) < CHI2_999[2]


def test_ordered_pairs_have_their_probabilities() -> None:
    draw = draw_without_replacement(TOY.expand(40_000, 3), 2, seeded(1))
    pairs = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    expected = torch.tensor([0.3, 0.2, 0.2142857, 0.0857143, 0.125, 0.075], dtype=torch.float64)
    code = draw.cells[:, 0] * 3 + draw.cells[:, 1]
    counts = torch.stack([(code == i * 3 + k).sum() for i, k in pairs]).double()
    assert int(counts.sum()) == 40_000
    assert chi_square(counts, expected) < CHI2_999[5]


def test_inclusion_probabilities() -> None:
    draw = draw_without_replacement(TOY.expand(40_000, 3), 2, seeded(2))
    share = torch.bincount(draw.cells.flatten(), minlength=3) / 40_000
    torch.testing.assert_close(share, torch.tensor([0.8392857, 0.675, 0.4857143]), atol=0.01, rtol=0)


def test_pairs_with_replacement_are_independent() -> None:
    cells = draw_with_replacement(TOY.expand(40_000, 3), 2, seeded(3))
    counts = torch.bincount(cells[:, 0] * 3 + cells[:, 1], minlength=9).double()
    assert chi_square(counts, torch.outer(TOY[0], TOY[0]).flatten()) < 26.12


def test_no_duplicates_and_background_never_drawn() -> None:
    logits = torch.randn(64, 200, generator=seeded())
    logits[:, ::2] = -torch.inf
    a = smoothed_softmax(logits)
    draw = draw_without_replacement(a, 100, seeded())
    assert all(len(set(row.tolist())) == 100 for row in draw.cells)
    for cells in (draw.cells, draw_with_replacement(a, 500, seeded()), top_k(a, 100)):
        assert bool((cells % 2 == 1).all())


def test_edges_of_the_map_are_never_drawn_when_empty() -> None:
    a = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0, 0.0]])
    assert set(draw_with_replacement(a.expand(5000, 6), 4, seeded()).flatten().tolist()) == {1, 3}


def test_keys_fall_and_the_threshold_is_the_next_one() -> None:
    a = torch.rand(8, 30, generator=seeded(), dtype=torch.float64)
    few, all_but_one = draw_without_replacement(a, 5, seeded(4)), draw_without_replacement(a, 6, seeded(4))
    assert bool((few.keys.diff(dim=-1) <= 0).all())
    torch.testing.assert_close(few.threshold, all_but_one.keys[:, 5])
    assert bool((few.cells == all_but_one.cells[:, :5]).all())


def test_threshold_is_minus_infinity_when_nothing_is_left() -> None:
    assert draw_without_replacement(TOY, 3, seeded()).threshold.tolist() == [-torch.inf]
    masked = torch.tensor([[0.5, 0.5, 0.0]])
    assert draw_without_replacement(masked, 2, seeded()).threshold.tolist() == [-torch.inf]


def test_top_k_takes_the_first_of_equals() -> None:
    a = torch.tensor([[0.2, 0.3, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4]])
    assert top_k(a, 3).tolist() == [[1, 3, 0], [3, 2, 1]]


def test_same_generator_same_cells() -> None:
    a = torch.rand(2, 100, generator=seeded())
    one, other = draw_without_replacement(a, 9, seeded(5)), draw_without_replacement(a, 9, seeded(5))
    assert bool((one.cells == other.cells).all())
    assert bool((one.cells != draw_without_replacement(a, 9, seeded(6)).cells).any())


def test_tiny_attention_is_drawn_rather_than_nothing() -> None:
    a = torch.tensor([[1.0, 1e-38, 0.0]])
    assert sorted(draw_without_replacement(a, 2, seeded()).cells[0].tolist()) == [0, 1]


@pytest.mark.parametrize("draw", [draw_without_replacement, top_k])
def test_more_draws_than_cells_are_refused(draw: object) -> None:
    a = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    assert available(a).tolist() == [2, 3]
    with pytest.raises(ValueError, match="asked for 3 different cells, but an image has 2"):
        draw(a, 3)  # type: ignore[operator]
    with pytest.raises(ValueError, match="at least one"):
        draw(a, 0)  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"\(b, K\)"):
        draw(a[0], 1)  # type: ignore[operator]


def test_nothing_to_draw_from() -> None:
    with pytest.raises(ValueError, match="has 0"):
        draw_with_replacement(torch.zeros(1, 4), 1)


@pytest.mark.parametrize("n", [1, 3, 7])
def test_a_draw_begins_with_the_shorter_ones(n: int) -> None:
    attention = torch.rand(2, 7, dtype=torch.float64, generator=Generator().manual_seed(0)).softmax(-1)
    longest = draw_without_replacement(attention, 7, Generator().manual_seed(5))
    short = draw_without_replacement(attention, n, Generator().manual_seed(5))
    for one, other in zip(first_of(longest, n), short, strict=True):
        assert one.tolist() == other.tolist()
