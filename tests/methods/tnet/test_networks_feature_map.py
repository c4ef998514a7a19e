"""Maps from inside encoders: which layer, what shape, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wsi_attention.errors import InputError
from wsi_attention.methods.tnet.networks import FeatureAndMap
from wsi_attention.nn.encoders import SmallEncoder, TileEncoder
from wsi_attention.nn.vit import VisionTransformer

TILES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def tokens() -> VisionTransformer:
    return VisionTransformer(3, 16, (4, 4), 24, 3, 2)


@pytest.mark.parametrize(
    ("encoder", "shape"),
    [
        (TileEncoder(name="small", widths=(8, 16, 24), features=32).build(), (16, 8, 8)),
        (TileEncoder(name="small", widths=(8,), features=32).build(), (8, 16, 16)),
        (TileEncoder(name="small", widths=(8, 16, 24), features=32, frozen=True).build(), (16, 8, 8)),
        (TileEncoder(name="resnet18").build(), (256, 4, 4)),
        (tokens(), (24, 4, 4)),
    ],
)
def test_feature_is_the_encoders_and_the_map_the_last_but_one(encoder: nn.Module, shape: tuple[int, ...]) -> None:
    seen = FeatureAndMap(encoder, "", 3, 64)
    encoder.eval()
    feature, found = seen.split(seen(TILES))
    assert tuple(found.shape) == (2, *shape) == (2, *seen.map_shape)
    torch.testing.assert_close(feature, encoder(TILES))
    assert not list(seen.parameters())
    assert not any(module._forward_hooks for module in encoder.modules())


def test_the_map_is_what_the_layer_gives() -> None:
    encoder = SmallEncoder(3, (8, 16, 24), 32)
    feature, found = (seen := FeatureAndMap(encoder, "", 3, 64)).split(seen(TILES))
    assert bool((found >= 0).all())
    rest = encoder.unit(encoder.project(encoder.trunk[7:](found)))
    torch.testing.assert_close(rest, feature)


def test_special_tokens_are_left_out() -> None:
    encoder = tokens().eval()
    seen = FeatureAndMap(encoder, "blocks.0", 3, 64)
    _, found = seen.split(seen(TILES))
    (first, *_), kept = encoder.blocks, []
    first.register_forward_hook(lambda module, given, result: kept.append(result))
    encoder(TILES)
    torch.testing.assert_close(found.flatten(2).mT, kept[0][:, 1:])


def test_trying_an_encoder_out_leaves_it_as_it_was() -> None:
    encoder = TileEncoder(name="resnet18").build()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    FeatureAndMap(encoder, "layer2", 3, 64)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(module.training for module in encoder.modules())


def test_nothing_read_gives_zeros() -> None:
    seen = FeatureAndMap(SmallEncoder(3, (8, 16), 32), "", 3, 32)
    feature, found = seen.nothing(torch.zeros(2, 5, dtype=torch.bool))
    assert feature.shape == (2, 5, 32)
    assert found.shape == (2, 5, 8, 8, 8)
    assert feature.dtype == found.dtype == torch.float32


@pytest.mark.parametrize(
    ("encoder", "layer", "text"),
    [
        (SmallEncoder(3, (8, 16), 32), "layer9", "no layer 'layer9'"),
        (SmallEncoder(3, (8, 16), 32), "project", "one tensor"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 4)), "", "names none"),
    ],
)
def test_encoders_without_a_map(encoder: nn.Module, layer: str, text: str) -> None:
    encoder.dim = 4  # type: ignore[assignment]
    with pytest.raises(InputError, match=text):
        FeatureAndMap(encoder, layer, 3, 64)
