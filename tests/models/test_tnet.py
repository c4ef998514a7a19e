"""TNet as a model: the shipped contract, the page's numbers, gradients by enumeration, failed tiles, learning."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wsi_attention.models.tnet import TNet
from wsi_attention.models.tnet_builders import tnet
from wsi_attention.testing.models import FailingSource, ModelContract
from wsi_attention.tiles.tensors import TensorSource

SMALL = {
    "base": 32,
    "tile_mpp": 1.0,
    "overview_mpp": 4.0,
    "grid": 3,
    "overlap": 0.5,
    "attended": (2, 2),
    "encoder_widths": (8, 16),
    "features": 24,
    "location_width": 8,
}


def small(**arguments: object) -> TNet:
    torch.manual_seed(0)
    return tnet(2, **{**SMALL, **arguments}).eval()  # type: ignore[arg-type]


class TestPractical(ModelContract):
    attends = "location"

    def build(self) -> nn.Module:
        return tnet(self.classes, **SMALL)  # type: ignore[arg-type]


class TestReleased(ModelContract):
    attends = "location"

    def build(self) -> nn.Module:
        arguments = {"selection": "as-released", "logits": "unit-norm", "pooling": "mean", "position": "joined"}
        return tnet(self.classes, **SMALL, **arguments)  # type: ignore[arg-type]


class TestFrozen(ModelContract):
    attends = "location"

    def build(self) -> nn.Module:
        return tnet(self.classes, encoder_frozen=True, **SMALL)  # type: ignore[arg-type]
