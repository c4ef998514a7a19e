"""Encoders: unit features, one tile at a time, any pooling; ResNet-18 takes torchvision's names."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, nn

from wsi_attention.nn.encoders import POOLS, MnistEncoder, SmallEncoder
from wsi_attention.nn.resnet import ResNet18


def tiles(m: int, channels: int, side: int) -> torch.Tensor:
    return torch.randn(m, channels, side, side, generator=Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("encoder", "channels", "side"),
    [(MnistEncoder(), 1, 50), (SmallEncoder(widths=(8, 16, 16)), 3, 64), (ResNet18(), 3, 64)],
)
def test_features_are_unit_and_of_each_tile_alone(encoder: nn.Module, channels: int, side: int) -> None:
    encoder.eval()
    x = tiles(4, channels, side)
    with torch.no_grad():
        features = encoder(x)
        assert features.shape == (4, encoder.dim)
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(4))
        torch.testing.assert_close(features[2:3], encoder(x[2:3]), atol=1e-5, rtol=1e-4)


def test_mnist_encoder_is_the_papers() -> None:
    before_pooling = nn.Sequential(*list(MnistEncoder())[:-2])(tiles(1, 1, 50))
    assert before_pooling.shape == (1, 32, 38, 38)


@pytest.mark.parametrize("pool", POOLS)
def test_poolings(pool: str) -> None:
    encoder = SmallEncoder(widths=(8, 16), dim=12, pool=pool)
    assert encoder(tiles(2, 3, 32)).shape == (2, 12)


def test_unknown_pooling() -> None:
    with pytest.raises(ValueError, match="mean, max, mean"):
        SmallEncoder(pool="median")


def test_small_encoder_is_the_same_in_both_modes() -> None:
    encoder = SmallEncoder(widths=(8, 16), dim=12)
    x = tiles(3, 3, 32)
    torch.testing.assert_close(encoder.train()(x), encoder.eval()(x))


def test_default_size_fits_a_shipped_model() -> None:
    assert sum(p.numel() for p in SmallEncoder().parameters()) * 4 < 3_000_000


def test_resnet_has_torchvisions_names() -> None:
    names = ResNet18().state_dict()
    assert len(names) == 120
    for name, shape in {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "layer1.1.bn2.bias": (64,),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer3.0.downsample.1.num_batches_tracked": (),
        "layer4.1.conv2.weight": (512, 512, 3, 3),
    }.items():
        assert tuple(names[name].shape) == shape
    assert sum(p.numel() for p in ResNet18().parameters()) == 11_176_512


def test_resnet_takes_a_backbone_without_its_classifier() -> None:
    weights = dict(ResNet18().state_dict()) | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    encoder = ResNet18()
    encoder.load_backbone(weights)
    torch.testing.assert_close(encoder.conv1.weight, weights["conv1.weight"])
    del weights["bn1.weight"]
    with pytest.raises(RuntimeError, match=r"bn1\.weight"):
        encoder.load_backbone(weights)
