"""Features told their place, and pooled."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from wsi_attention.methods.tnet.crops import positional_encoding
from wsi_attention.methods.tnet.networks import AddedPosition, FeatureMean, FeatureWeighting, JoinedPosition


def seeded(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


POSITIONS = torch.tensor([[0, 0, 0], [1, 2, 1], [3, 7, 2]])


def test_added_position_by_hand() -> None:
    """c = D/4: 32 channels of 128."""
    module, features = AddedPosition(128), functional.normalize(seeded(3, 128), dim=-1)
    assert module.encode.in_features == 32
    expected = features * 128**0.5 + module.encode(positional_encoding(POSITIONS, 32))
    torch.testing.assert_close(module(features, POSITIONS), functional.silu(expected))
    assert sum(value.numel() for value in AddedPosition(128, projected=True).project.parameters()) == 128**2


def test_joined_position_by_hand() -> None:
    """c = D."""
    module, features = JoinedPosition(16), functional.normalize(seeded(3, 16), dim=-1)
    both = torch.cat([features * 4, positional_encoding(POSITIONS, 16)], dim=-1)
    torch.testing.assert_close(module(features, POSITIONS), both @ module.mix.weight.T + module.mix.bias)


@pytest.mark.parametrize("module", [AddedPosition(24), JoinedPosition(24)])
def test_the_same_region_elsewhere_is_another_feature(module: nn.Module) -> None:
    found = module(functional.normalize(torch.ones(3, 24), dim=-1), POSITIONS)
    assert float((found[0] - found[1]).detach().abs().max()) > 1e-3
    assert float((found[1] - found[2]).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("pooling", [FeatureWeighting(8), FeatureMean()])
def test_pooling_knows_no_order_and_skips_what_is_missing(pooling: nn.Module) -> None:
    if isinstance(pooling, FeatureWeighting):
        nn.init.normal_(pooling.weight, generator=torch.Generator().manual_seed(1))
    features, real = seeded(2, 5, 8), torch.tensor([[True] * 5, [True, False, True, True, False]])
    pooled, share = pooling(features, real)
    torch.testing.assert_close(share.sum(-1), torch.ones(2))
    assert share[1, [1, 4]].tolist() == [0.0, 0.0]
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(pooling(features[:, order], real[:, order])[0], pooled)
    spoilt = features.clone()
    spoilt[1, [1, 4]] = 99.0
    torch.testing.assert_close(pooling(spoilt, real)[0], pooled)
    equal, _ = pooling(features[:, :1].expand(-1, 5, -1), real)
    torch.testing.assert_close(equal, features[:, 0])


def test_weighting_starts_as_the_mean_and_squeezes_to_a_quarter() -> None:
    weighting, features, real = FeatureWeighting(8), seeded(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    torch.testing.assert_close(weighting(features, real)[0], features.mean(dim=1))
    assert weighting.gate.squeeze.out_features == 2
