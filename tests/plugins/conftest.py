"""What the tests of plugins share: a slide with a lesion in a known place, and a model that points at it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_attention.checkpoint import Classifier
from wsi_attention.geometry import Box
from wsi_attention.methods.ats import AttentionSampling, SamplingOptions
from wsi_attention.nn.blocks import Encoder, OverviewNet
from wsi_attention.testing.slide_levels import encoded, pyramid
from wsi_attention.testing.slide_writers import TILED

ROOT = Path(__file__).resolve().parents[2]
LESION = Box(512, 320, 64, 64)
"""A cell of the model's grid, so that the heaviest tile is the lesion to the pixel."""
OTHER = Box(192, 640, 64, 64)
"""A paler one, the second tile."""
EXTENT = (1003, 811)

if importlib.util.find_spec("torchvision") and torch.version.cuda is None and not hasattr(torch.ops.torchvision, "nms"):
    # torchvision on PyPI is built for GPUs and misses two operators beside a CPU build of torch
    _TORCHVISION = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _TORCHVISION.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


class Darkness(OverviewNet):
    """(b, 3, h, w) -> logits (b, h / 8, w / 8): how dark the overview is, on average over a cell."""

    stride = 8

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        dark = functional.avg_pool2d(1 - view.mean(1, keepdim=True), self.stride)
        return 30 * dark[:, 0], dark


class Fractions(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.float() / 255


class MeanColour(Encoder):
    def forward(self, tiles: Tensor) -> Tensor:
        return tiles.mean((2, 3))


class ColourScores(nn.Module):
    def forward(self, colour: Tensor) -> Tensor:
        return 10 * colour


@pytest.fixture
def pointing() -> Callable[[int], Classifier]:
    """A model that reads the darkest cells of 64 × 64 level-0 pixels, and tells their mean colour."""

    def made(draws: int = 2) -> Classifier:
        options = SamplingOptions(
            tile_size=64, tile_mpp=0.5, overview_mpp=4.0, draws=draws, inference="top", gradient="unbiased"
        )
        model = AttentionSampling(Darkness(), MeanColour(), ColourScores(), Fractions(), options)
        return Classifier(model.eval(), ("red", "green", "blue"), {}, "0" * 64, "darkest")

    return made


@pytest.fixture
def lesion_slide(tmp_path: Path) -> Path:
    """An SVS of 1003 × 811 pixels at 0.5 µm: tissue with `LESION` and the paler `OTHER` in it."""
    rgb = np.full((EXTENT[1], EXTENT[0], 3), 246, np.uint8)
    rgb[130:, 136:] = (232, 200, 222)
    for box, colour in ((LESION, (95, 55, 140)), (OTHER, (130, 90, 165))):
        rgb[box.y : box.y + box.h, box.x : box.x + box.w] = colour
    levels, path = pyramid(rgb, 4, 64), tmp_path / "slides" / "lesion.svs"
    path.parent.mkdir()
    TILED["svs"](path, encoded(levels, 95), 0.5, levels[-1])
    return path


@pytest.fixture(scope="session")
def sample_slide() -> Path:
    """A sample slide with a lesion that the demo model finds."""
    return ROOT / "sample_slides" / "sample_01.svs"


@pytest.fixture(scope="session")
def real_slide(shared_data: Path) -> Path:
    """A small real slide, Aperio SVS."""
    return shared_data / "slides" / "aperio" / "CMU-1-Small-Region.svs"


@pytest.fixture
def places() -> dict[str, Any]:
    """Where things lie on `lesion_slide`, level-0 pixels: "lesion", "other", "extent"."""
    return {"lesion": LESION, "other": OTHER, "extent": EXTENT}
