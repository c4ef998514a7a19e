"""The classifier's scale."""

from __future__ import annotations

import torch

from wsi_attention.nn.heads import ScaledLinear


def test_scaled_linear() -> None:
    head = ScaledLinear(4, 3, scale=5.0)
    x = torch.randn(2, 7, 4)
    torch.testing.assert_close(head(x), 5.0 * x @ head.linear.weight.T)
    assert head.log_scale.requires_grad
    head(x).sum().backward()
    assert head.log_scale.grad is not None
