"""What tiles stand for: exact where all is read, right on average where drawn; gradients against formulas."""

from __future__ import annotations

import torch
from torch import Generator

from wsi_attention.attention.expectation import inclusion
from wsi_attention.attention.sampling import draw_without_replacement
from wsi_attention.methods.grow.counting import attention_loss, counts, shares

A = torch.tensor([[0.3, 0.05, 0.15, 0.2, 0.1, 0.2]], dtype=torch.float64)
W = torch.tensor([[0.9, 0.1, 0.4, 0.2, 0.7, 0.3]], dtype=torch.float64)
F = torch.rand(1, 6, 3, dtype=torch.float64, generator=Generator().manual_seed(0))
CERTAIN = torch.ones(1, 6, dtype=torch.float64)
YES = torch.ones(1, 6, dtype=torch.bool)


def test_with_all_tiles_read_each_stands_for_itself() -> None:
    for known in (YES, ~YES):
        found = counts(A, CERTAIN, known, YES)
        torch.testing.assert_close(found.coefficients, A)
        assert float(found.chance.sum()) == 0


def test_known_tiles_stand_for_themselves_and_drawn_ones_for_the_rest() -> None:
    draw = draw_without_replacement(A, 3, Generator().manual_seed(0))
    at, known = A.gather(1, draw.cells), torch.tensor([[True, False, False]])
    chance = inclusion(at, draw.threshold)
    found = counts(at, chance, known, torch.ones_like(known))
    torch.testing.assert_close(found.coefficients[0, 0], at[0, 0])
    torch.testing.assert_close(found.coefficients.sum(), torch.ones((), dtype=torch.float64))
    assert found.chance[0, 0] == 0 and (found.chance[0, 1:] > 0).all()
    failed = counts(at, chance, known, torch.tensor([[True, False, True]]))
    torch.testing.assert_close(failed.coefficients[0], torch.stack([at[0, 0], 0 * at[0, 0], 1 - at[0, 0]]))


def test_drawn_tiles_stand_for_the_whole_on_average() -> None:
    draw = draw_without_replacement(A.expand(4000, 6), 4, Generator().manual_seed(1))
    none = torch.zeros_like(draw.cells, dtype=torch.bool)
    at = A.expand(4000, 6).gather(1, draw.cells)
    found = counts(at, inclusion(at, draw.threshold), none, ~none)
    total = (found.coefficients * W.expand(4000, 6).gather(1, draw.cells)).sum(dim=-1).mean()
    assert abs(float(total - (A * W).sum())) < 0.02


def test_shares_and_their_gradients() -> None:
    """F = Σ a ω f / Σ a ω, differentiated in a and ω; checked by automatic differentiation of the formula itself."""
    a, log_gate = A.clone().requires_grad_(), W.log().clone().requires_grad_()
    goal = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    (shares(A, a, log_gate)[0] @ F[0] @ goal).backward()
    b, log_w = A.clone().requires_grad_(), W.log().clone().requires_grad_()
    r = b * log_w.exp()
    ((r / r.sum())[0] @ F[0] @ goal).backward()
    assert a.grad is not None and b.grad is not None and log_gate.grad is not None and log_w.grad is not None
    torch.testing.assert_close(a.grad, b.grad)
    torch.testing.assert_close(log_gate.grad, log_w.grad)


def test_attention_learns_what_tiles_have_shown() -> None:
    """With all tiles read its gradient in the logits is a − p, p ∝ ω; gates learn nothing from it."""
    logits, log_gate = A.log().clone().requires_grad_(), W.log().clone().requires_grad_()
    attention_loss(logits.softmax(dim=-1), A, log_gate).backward()
    torch.testing.assert_close(logits.grad, A - W / W.sum())
    assert log_gate.grad is None


def test_what_was_drawn_teaches_in_the_place_of_all() -> None:
    """The mean gradient over draws is near that of all tiles, though tiles with much attention are drawn more often."""
    logits = A.log().expand(4000, 6).clone().requires_grad_()
    attention = logits.softmax(dim=-1)
    draw = draw_without_replacement(attention, 4, Generator().manual_seed(2))
    at, none = attention.gather(1, draw.cells), torch.zeros_like(draw.cells, dtype=torch.bool)
    found = counts(at, inclusion(at, draw.threshold), none, ~none)
    attention_loss(at, found.coefficients, W.log().expand(4000, 6).gather(1, draw.cells)).backward()
    assert logits.grad is not None
    assert float((logits.grad.sum(dim=0) - (A - W / W.sum())[0]).abs().max()) < 0.05
