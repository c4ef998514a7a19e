"""Encoders by name; frozen ones keep every value, running statistics too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wsi_attention.errors import InputError
from wsi_attention.nn.encoders import ENCODERS, Frozen, TileEncoder, bare


def tiles(side: int) -> Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ENCODERS)
def test_every_built_in_takes_tiles_of_any_size(name: str) -> None:
    encoder = TileEncoder(name=name, widths=(8, 16), features=24).build().eval()
    with torch.no_grad():
        for side in (64, 75):
            features = encoder(tiles(side))
            assert features.shape == (3, encoder.dim)
            torch.testing.assert_close(features.norm(dim=-1), torch.ones(3))
            torch.testing.assert_close(encoder(tiles(side)[1:2]), features[1:2], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_frozen_encoder_keeps_every_value_in_train_mode(name: str) -> None:
    plain, frozen = (
        TileEncoder(name=name, widths=(8, 16), features=24, frozen=one).build().train() for one in (False, True)
    )
    before = {key: value.clone() for key, value in frozen.state_dict().items()}
    assert list(before) == list(plain.state_dict())
    features = frozen(tiles(64))
    assert not features.requires_grad
    assert plain(tiles(64)).requires_grad
    assert all(torch.equal(value, before[key]) for key, value in frozen.state_dict().items())
    assert not any(module.training for module in bare(frozen).modules())
    assert isinstance(frozen, Frozen)
    assert bare(plain) is plain


def test_without_freezing_running_statistics_do_move() -> None:
    encoder = TileEncoder(name="resnet18").build().train()
    before = encoder.state_dict()["bn1.running_mean"].clone()
    encoder(tiles(64))
    assert not torch.equal(encoder.state_dict()["bn1.running_mean"], before)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet-18", r"encoder 'resnet-18' is not known; did you mean 'resnet18'\?"),
        ("qqq", "encoder 'qqq' is not known; there is: small, resnet18, vit, timm:NAME"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TileEncoder(name=name).build()


def test_a_vits_feature_must_be_shared_by_its_heads() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        TileEncoder(name="vit", features=30).build()
