"""TNet's features: told where and at what scale each was seen, then pooled over all regions (page §2.4 and §2.5).

Papadopoulos, Korus & Memon, NeurIPS 2021, https://arxiv.org/abs/2102.10212. Features of length 1 are first stretched
to √d: one component is then about as large as one of the encoding, which would drown it otherwise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_attention.attention.glimpse_grid import positional_encoding
from wsi_attention.attention.glimpse_policy import weighted_feature
from wsi_attention.nn.location import SqueezeExcitation


class AddedPosition(nn.Module):
    """act(U f + W·pe + b) with d/4 encoding channels, as for fMoW, CUB and NABirds; U = 1 unless asked for.

    Args:
        dim: d, at least 24.
        projected: whether U is learned: a frozen encoder's features have no other way to adapt.
    """

    def __init__(self, dim: int, projected: bool = False) -> None:
        super().__init__()
        self.dim = dim
        self.project = nn.Linear(dim, dim, bias=False) if projected else nn.Identity()
        self.encode = nn.Linear(max(6, dim // 4), dim)

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """Features (..., d) of length 1 and positions (..., 3) -> (..., d)."""
        encoding = positional_encoding(positions, self.encode.in_features)
        return functional.silu(self.project(features * math.sqrt(self.dim)) + self.encode(encoding))


class JoinedPosition(nn.Module):
    """W·[f, pe] + b with d encoding channels, as for ImageNet.

    Args:
        dim: d, at least 6.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.mix = nn.Linear(2 * dim, dim)

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """Features (..., d) of length 1 and positions (..., 3) -> (..., d)."""
        encoding = positional_encoding(positions, self.dim)
        mixed: Tensor = self.mix(torch.cat([features * math.sqrt(self.dim), encoding], dim=-1))
        return mixed


class FeatureWeighting(nn.Module):
    """F̄ = Σ π_n F_n with π from the features gated by their mean, as for CUB and NABirds (squeeze ratio 0.25).

    Args:
        dim: d.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = SqueezeExcitation(dim, 0.25)
        self.weight = nn.Parameter(torch.zeros(dim))

    def forward(self, features: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Features (b, n, d), real (b, n) bool -> F̄ (b, d) and π (b, n), 0 where not real."""
        mean, _ = feature_mean(features, real)
        return weighted_feature(features, self.gate(mean), self.weight, real)


class FeatureMean(nn.Module):
    """F̄ = mean of the features, as for ImageNet and fMoW."""

    def forward(self, features: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Features (b, n, d), real (b, n) bool -> F̄ (b, d) and π (b, n), 0 where not real."""
        return feature_mean(features, real)


def feature_mean(features: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (b, d) over those that are real, and the share of each (b, n)."""
    share = real.to(features.dtype) / real.sum(dim=-1, keepdim=True)
    return (share.unsqueeze(-1) * features).sum(dim=-2), share
