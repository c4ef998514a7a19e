"""Zoom-In as a model: the shipped contract, the page's toy by enumeration, reads, gradients, the contrastive pass."""

from __future__ import annotations

import torch
from torch import nn

from wsi_attention.models.zoom_in import ZoomIn
from wsi_attention.models.zoom_in_builders import zoom_in
from wsi_attention.testing.models import ModelContract

SMALL = {
    "tile_size": 16,
    "tile_mpp": 1.0,
    "overview_mpp": 8.0,
    "view_mpps": (4.0,),
    "cells_um": (64.0, 16.0),
    "draws": 8,
    "encoder_widths": (8, 16),
    "features": 16,
    "attention_widths": (8, 8),
    "context": 3,
}


def small(**arguments: object) -> ZoomIn:
    torch.manual_seed(0)
    return zoom_in(2, **{**SMALL, **arguments}).eval()  # type: ignore[arg-type]


class TestDefault(ModelContract):
    def build(self) -> nn.Module:
        return zoom_in(self.classes, **SMALL)  # type: ignore[arg-type]


class TestSampled(ModelContract):
    def build(self) -> nn.Module:
        return zoom_in(self.classes, inference="sample", **SMALL)  # type: ignore[arg-type]


class TestAsReleased(ModelContract):
    classes = 3

    def build(self) -> nn.Module:
        return zoom_in(3, inference="as-released", gradient="as-released", noise="as-released", **SMALL)  # type: ignore[arg-type]


class TestThreeSteps(ModelContract):
    def build(self) -> nn.Module:
        scales = {"view_mpps": (4.0, 2.0), "cells_um": (64.0, 32.0, 16.0)}
        return zoom_in(self.classes, inference="sample", gradient="centred", **{**SMALL, **scales})  # type: ignore[arg-type]
