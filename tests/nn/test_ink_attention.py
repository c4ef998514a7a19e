"""Attention confined to ink: where it looks, what it sees, and what an empty view has."""

from __future__ import annotations

import torch

from wsi_attention.nn.ink_attention import InkAttentionNet


def net() -> InkAttentionNet:
    torch.manual_seed(0)
    return InkAttentionNet(1, stride=2, margin=1, width=4).double()


def test_cells_without_ink_are_never_drawn() -> None:
    view = torch.zeros(2, 1, 6, 8, dtype=torch.float64)
    view[0, 0, 3, 5] = 0.5
    view[1, 0, 0, 0] = view[1, 0, 5, 7] = 1.0
    logits, features = net()(view)
    assert logits.shape == (2, 3, 4)
    assert torch.equal(features[:, 0], logits)
    assert [tuple(at) for at in logits.isfinite().nonzero().tolist()] == [(0, 1, 2), (1, 0, 0), (1, 2, 3)]


def test_a_view_without_ink_has_attention_everywhere() -> None:
    view = torch.zeros(2, 1, 4, 4)
    view[1, 0, 0, 0] = 1
    logits = net().float()(view)[0]
    assert torch.equal(logits[0], torch.zeros(2, 2))
    assert int(logits[1].isfinite().sum()) == 1


def test_a_cell_sees_its_own_square_and_the_margin() -> None:
    view = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(net()(view)[0][0, 1, 2], view)
    seen = gradient[0, 0].nonzero()
    assert seen.amin(0).tolist() == [1, 3]
    assert seen.amax(0).tolist() == [4, 6]
