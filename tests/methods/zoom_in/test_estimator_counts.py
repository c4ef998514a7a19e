"""How many draws each tile gets: sums, rounding, and the released code's ways."""

from __future__ import annotations

import pytest
import torch

from wsi_attention.methods.zoom_in import estimator as c

ALPHA = torch.tensor([[0.5, 0.0, 0.3, 0.2], [0.0, 0.0, 0.0, 1.0]])


def test_counts_sum_to_the_draws_and_spare_empty_cells() -> None:
    draws = torch.tensor([50, 7])
    found = c.draw_counts(ALPHA, draws, torch.Generator().manual_seed(0))
    assert torch.equal(found.sum(-1), draws)
    assert not found[ALPHA == 0].any()
    again = c.draw_counts(ALPHA, draws, torch.Generator().manual_seed(0))
    assert torch.equal(found, again)


def test_rounded_counts_by_hand() -> None:
    assert c.rounded_counts(ALPHA, torch.tensor([10, 3])).tolist() == [[5, 0, 3, 2], [0, 0, 0, 3]]
    assert c.rounded_counts(ALPHA[:1], torch.tensor([3])).tolist() == [[1, 0, 1, 1]]
    even = torch.full((1, 4), 0.25)
    assert c.rounded_counts(even, torch.tensor([6])).tolist() == [[2, 2, 1, 1]]


@pytest.mark.parametrize("seed", range(5))
def test_rounded_counts_stay_within_one_of_the_share(seed: int) -> None:
    alpha = torch.randn(20, 11, generator=torch.Generator().manual_seed(seed)).softmax(-1)
    alpha[:, 4] = 0
    draws = torch.arange(1, 21)
    found = c.rounded_counts(alpha, draws)
    wanted = draws.unsqueeze(-1) * alpha / alpha.sum(-1, keepdim=True)
    assert torch.equal(found.sum(-1), draws)
    assert ((found - wanted).abs() < 1).all()
    assert not found[:, 4].any()


def test_highest_is_in_order_of_attention() -> None:
    assert c.highest(ALPHA[:1], 3).cells.tolist() == [[0, 2, 3]]


def test_gumbel_on_probabilities_hardly_ever_draws_the_peak_first() -> None:
    beta = torch.full((1, 625), 0.1 / 624, dtype=torch.float64)
    beta[0, 300] = 0.9
    assert float(c.noisy_distribution_as_released(beta)[0, 300]) == pytest.approx(0.0039, abs=5e-5)


def test_released_draws_are_the_largest_of_beta_plus_noise() -> None:
    beta = torch.tensor([[0.6, 0.0, 0.3, 0.1]], dtype=torch.float64)
    draw = c.noisy_as_released(beta, 3, torch.Generator().manual_seed(2))
    assert float(c.noisy_distribution_as_released(beta)[0, 1]) == 0.0
    noise = draw.keys - c.noisy_distribution_as_released(beta).gather(1, draw.cells).log()
    assert (beta.gather(1, draw.cells) + noise).diff().max() < 0


def test_rescaled_as_released_drops_the_lowest_and_keeps_the_order() -> None:
    alpha = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25], [0.5, 0.0, 0.3, 0.2]])
    found = c.rescaled_as_released(alpha)
    torch.testing.assert_close(found[0], torch.tensor([0.0, 0.1, 0.2, 0.3]).mul(torch.tensor([0, 1, 1, 1])) / 0.6)
    assert torch.equal(found[1], alpha[1])
    torch.testing.assert_close(found[2], torch.tensor([0.75, 0.0, 0.25, 0.0]))
    assert torch.equal(c.rescaled_as_released(torch.tensor([[1.0, 0.0]])), torch.tensor([[1.0, 0.0]]))
    strict = c.rescaled_as_released(alpha[:1], quantile=0.5)
    torch.testing.assert_close(strict, torch.tensor([[0.0, 0.0, 0.4, 0.6]]))
    exact = c.rescaled_as_released(alpha[2:], quantile=0.5)
    torch.testing.assert_close(exact, torch.tensor([[0.75, 0.0, 0.25, 0.0]]))
