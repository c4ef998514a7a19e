"""The contrastive pass: its distribution, where it may look, and how its loss is weighed."""

from __future__ import annotations

import math

import pytest
import torch

from wsi_attention.methods.zoom_in import contrastive as c
from wsi_attention.methods.zoom_in.estimator import draw_counts

EVERYWHERE = torch.ones(1, 4, dtype=torch.bool)


def test_distribution_is_the_reverse_over_k_minus_one() -> None:
    alpha = torch.tensor([[0.7, 0.2, 0.1, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(c.contrastive_attention(alpha, EVERYWHERE), (1 - alpha) / 3)


def test_cells_without_tissue_stay_at_zero_and_out_of_the_count() -> None:
    tissue = torch.tensor([[True, True, True, False]])
    found = c.contrastive_attention(torch.tensor([[0.7, 0.2, 0.1, 0.0]]), tissue)
    torch.testing.assert_close(found, torch.tensor([[0.15, 0.4, 0.45, 0.0]]))


def test_the_certain_cell_is_never_drawn() -> None:
    alpha = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    reverse = c.contrastive_attention(alpha, EVERYWHERE)
    assert float(reverse[0, 1]) == 0.0
    assert draw_counts(reverse, torch.tensor([200]), torch.Generator().manual_seed(0))[0, 1] == 0


@pytest.mark.parametrize("only", [1.0, 0.9999999, 1.0000001])
def test_one_cell_cannot_be_contrasted(only: float) -> None:
    alpha = torch.tensor([[only, 0.0, 0.0, 0.0]])
    tissue = torch.tensor([[True, False, False, False]])
    assert not c.contrastive_attention(alpha, tissue).any()


def test_gradient_flows_back_to_attention() -> None:
    alpha = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: c.contrastive_attention(a, EVERYWHERE), alpha)


def test_least_attended_tissue() -> None:
    alpha = torch.tensor([[0.4, 0.1, 0.3, 0.2], [0.0, 0.5, 0.5, 0.0]])
    tissue = torch.tensor([[True, True, True, True], [False, True, True, False]])
    assert c.least_attended(alpha, tissue, 0.5).tolist() == [[False, True, False, True], [False, True, False, False]]
    assert torch.equal(c.least_attended(alpha, tissue, 1.0), tissue)
    assert c.least_attended(alpha, tissue, 0.01).sum(-1).tolist() == [1, 1]
    assert not c.least_attended(alpha, torch.zeros_like(tissue), 0.5).any()


def test_loss_with_two_classes_is_minus_log_of_one_minus_the_positive() -> None:
    logits = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    positive = logits.softmax(-1)[:, 1]
    torch.testing.assert_close(c.contrastive_loss(logits, 0), -(1 - positive).log().mean())


def test_loss_with_three_classes_asks_for_the_background() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    assert float(c.contrastive_loss(logits, 2)) == pytest.approx(-math.log(float(logits.softmax(-1)[0, 2])))


def test_no_positive_image_costs_nothing() -> None:
    logits = torch.zeros(0, 2, requires_grad=True)
    loss = c.contrastive_loss(logits, 0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0


def test_weights_of_the_three_losses() -> None:
    expected = {0.4: 0.4 + 0.6 * (0.6 * 10 + 0.4 * 100), 1.0: 1.0, 0.0: 10.0}
    for share, value in expected.items():
        found = c.weighted_loss(torch.tensor(1.0), torch.tensor(10.0), torch.tensor(100.0), share)
        assert float(found) == pytest.approx(value)
