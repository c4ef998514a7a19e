"""The entropy term by its values and its direction."""

from __future__ import annotations

import math

import pytest
import torch

from wsi_attention.attention.spread import negative_entropy


def test_values() -> None:
    uniform = torch.full((2, 50), 1 / 50, dtype=torch.float64)
    assert float(negative_entropy(uniform)) == pytest.approx(-math.log(50), abs=1e-4)
    one_hot = torch.zeros(1, 50, dtype=torch.float64)
    one_hot[0, 3] = 1.0
    assert float(negative_entropy(one_hot)) == pytest.approx(0.0, abs=1e-5)


def test_is_the_mean_over_images() -> None:
    a = torch.rand(3, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    each = [float(negative_entropy(row[None])) for row in a]
    assert float(negative_entropy(a)) == pytest.approx(sum(each) / 3)


def test_minimising_it_raises_the_entropy() -> None:
    z = torch.tensor([[2.0, 0.0, -1.0, 0.5]], requires_grad=True)
    before = negative_entropy(z.softmax(-1))
    (gradient,) = torch.autograd.grad(before, z)
    assert negative_entropy((z - 0.5 * gradient).softmax(-1)) < before


def test_cells_without_attention_do_not_matter() -> None:
    a = torch.tensor([[0.25, 0.75]], requires_grad=True)
    padded = torch.cat([a, torch.zeros(1, 3)], dim=-1)
    torch.testing.assert_close(negative_entropy(padded), negative_entropy(a))
    assert bool(torch.autograd.grad(negative_entropy(padded), a)[0].isfinite().all())
