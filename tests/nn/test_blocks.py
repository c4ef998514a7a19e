"""Blocks: what they compute, and that they are local."""

from __future__ import annotations

import torch
from torch import Generator

from wsi_attention.nn.blocks import ChannelNorm, GlobalMax, GlobalMean, GlobalMeanMax, UnitNorm

X = torch.randn(2, 5, 4, 3, generator=Generator().manual_seed(0))


def test_channel_norm_is_per_pixel() -> None:
    norm = ChannelNorm(5)
    y = norm(X)
    torch.testing.assert_close(y.mean(1), torch.zeros(2, 4, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(y.var(1, unbiased=False), torch.ones(2, 4, 3), atol=1e-3, rtol=0)
    torch.testing.assert_close(norm(X[..., 1:, :2]), y[..., 1:, :2])


def test_pools() -> None:
    assert GlobalMax()(X).shape == GlobalMean()(X).shape == (2, 5)
    torch.testing.assert_close(GlobalMeanMax()(X), torch.cat([X.mean((2, 3)), X.amax((2, 3))], 1))


def test_unit_norm_in_float32_at_least() -> None:
    y = UnitNorm()(torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.bfloat16))
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
