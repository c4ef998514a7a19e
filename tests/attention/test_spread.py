"""The jackknife: textbook value, failed tiles, and agreement with drawing again."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from wsi_attention.attention.expectation import ESTIMATORS, draw_sample, draw_top, estimate
from wsi_attention.attention.spread import jackknife_error, leave_one_out


def test_of_a_plain_mean_is_the_standard_error() -> None:
    x = torch.randn(1, 12, 1, generator=Generator().manual_seed(0), dtype=torch.float64)
    w = torch.full((1, 12), 1 / 12, dtype=torch.float64)
    error = jackknife_error(leave_one_out(x, w)[..., 0], x.mean(1)[:, 0], torch.ones_like(w))
    assert float(error) == pytest.approx(float(x.std() / 12**0.5))


def test_one_tile_with_all_the_weight() -> None:
    x, w = torch.randn(1, 3, 2), torch.tensor([[1.0, 0.0, 0.0]])
    torch.testing.assert_close(leave_one_out(x, w), x[:, :1].expand(1, 3, 2))


def test_failed_tiles_change_nothing() -> None:
    x = torch.randn(1, 4, 1, generator=Generator().manual_seed(0))
    w = torch.tensor([[0.5, 0.0, 0.3, 0.2]])
    chance = (w > 0).float()
    full = (w[..., None] * x).sum(1)[:, 0]
    few = jackknife_error(leave_one_out(x[:, w[0] > 0], w[:, w[0] > 0])[..., 0], full, chance[:, w[0] > 0])
    torch.testing.assert_close(jackknife_error(leave_one_out(x, w)[..., 0], full, chance), few)


@pytest.mark.parametrize("estimator", ["with-replacement", "sequential", "normalised-threshold"])
@pytest.mark.parametrize("sharpness", [0.0, 2.0])
def test_agrees_with_drawing_again(estimator: str, sharpness: float) -> None:
    generator = Generator().manual_seed(0)
    k, runs, n = 200, 3000, 20
    a = (sharpness * torch.randn(k, generator=generator, dtype=torch.float64)).softmax(-1).expand(runs, k)
    f = torch.randn(k, 1, generator=generator, dtype=torch.float64)
    drawn = draw_sample(a, n, estimator, generator)
    mean = estimate(f[drawn.cells], a.gather(-1, drawn.cells), drawn.coefficients, "unbiased")[:, 0]
    each = jackknife_error(leave_one_out(f[drawn.cells], drawn.coefficients)[..., 0], mean, drawn.chance)
    assert 0.6 < float(each.mean() / mean.std()) < (2.0 if estimator == "sequential" else 1.4)


def test_nothing_random_has_no_spread() -> None:
    a = torch.rand(1, 9, dtype=torch.float64).softmax(-1)
    drawn = draw_top(a, 4)
    assert drawn.chance.tolist() == [[0.0] * 4]
    assert float(draw_sample(a, 9, "normalised-threshold", None).chance.max()) == 0.0
    assert bool(jackknife_error(torch.rand(1, 4), torch.rand(1), drawn.chance).isnan())
    lone = torch.ones(1, 1)
    assert all(float(draw_sample(lone, 1, name, None).chance) == 0.0 for name in ESTIMATORS)


def test_without_one_tile_is_the_mean_of_the_others() -> None:
    f, w = torch.randn(2, 5, 3), torch.rand(2, 5)
    w[0, 1], w[1, 2] = 0.0, 2e3
    found = leave_one_out(f, w)
    for j in range(5):
        others = [k for k in range(5) if k != j]
        expected = (w[:, others, None] * f[:, others]).sum(1) / w[:, others].sum(1, keepdim=True)
        torch.testing.assert_close(found[:, j], expected, atol=1e-4, rtol=1e-4)
