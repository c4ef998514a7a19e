"""Parts that decide something run in float32 whatever surrounds them."""

from __future__ import annotations

import torch
from torch import nn

from wsi_attention.nn.preprocess import in_float32


def test_autocast_does_not_reach_it() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 4), torch.randn(8, 64)
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, kept = layer(x), in_float32(layer, x)
        assert rounded.dtype == torch.bfloat16
        assert layer(x).dtype == torch.bfloat16, "and it is on again afterwards"
    assert torch.equal(kept, expected)
    assert not torch.equal(rounded.float(), expected)


def test_half_precision_inputs_are_widened_and_others_left_alone() -> None:
    kinds = (torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64, torch.bool)
    given = [torch.zeros(1, dtype=kind) for kind in kinds]
    found = in_float32(lambda *tensors: tuple(one.dtype for one in tensors), *given)
    assert found == (*(torch.float32,) * 3, *kinds[3:])


def test_gradients_go_through() -> None:
    x = torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)
    in_float32(nn.Linear(3, 1), x).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
