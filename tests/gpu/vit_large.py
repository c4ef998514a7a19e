"""ATS with a ViT-L/16 of random weights, and how long a GPU computes in it; processes side by side import it too."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsi_attention import Classifier, load_model
from wsi_attention.checkpoint import build_model, save_model
from wsi_attention.devices import autocast
from wsi_attention.methods.ats import AtsOptions, AttentionSampling
from wsi_attention.model_card import ModelCard
from wsi_attention.nn.attention_nets import TissueAttentionNet
from wsi_attention.nn.blocks import Encoder, UnitNorm
from wsi_attention.nn.encoders import Frozen
from wsi_attention.nn.heads import ScaledLinear
from wsi_attention.nn.vit import VisionTransformer

WIDTH, HEADS = 1024, 16
BATCH = 256


class VitLarge(Encoder):
    """ViT-L/16 at 224 px with random weights, timed on the GPU by events around each call."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.network, self.unit, self.dim = VisionTransformer(3, 16, (14, 14), WIDTH, depth, HEADS), UnitNorm(), WIDTH
        self.spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def forward(self, tiles: Tensor) -> Tensor:
        """Map (m, 3, 224, 224) to (m, 1024)."""
        if not tiles.is_cuda:
            return self.unit(self.network(tiles))
        span = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        span[0].record()
        features: Tensor = self.unit(self.network(tiles))
        span[1].record()
        self.spans.append(span)
        return features

    def seconds(self) -> float:
        """Seconds that the GPU computed since the last call."""
        torch.cuda.synchronize()
        spent = sum(begin.elapsed_time(end) for begin, end in self.spans) / 1000
        self.spans.clear()
        return spent


def classifier_of(depth: int, tiles: int, folder: Path) -> tuple[Classifier, VitLarge]:
    """ATS as it would be built for such an encoder; the model is in memory only."""
    options = AtsOptions(tile_size=224, tile_mpp=0.5, draws=tiles)
    arguments: dict[str, Any] = {"tile_size": 224, "tile_mpp": 0.5, "draws": tiles}
    card = ModelCard(method="ats", classes=("benign", "lesion"), arguments=arguments)
    save_model(folder, build_model("ats", 2, **arguments), card)
    torch.manual_seed(0)
    attention = TissueAttentionNet(options.channels, options.attention_widths, options.context)
    encoder, head = VitLarge(depth), nn.Conv2d(attention.dim, 2, 1)
    parts = attention, Frozen(encoder), ScaledLinear(WIDTH, 2), options.preprocess(), options, head
    return replace(load_model(folder), model=AttentionSampling(*parts).eval(), folder=None), encoder


@torch.inference_mode()
def limit(encoder: VitLarge, device: str, seconds: float = 4.0) -> float:
    """Tiles a second that the GPU encodes in bfloat16 where they lie on it already: what no run can exceed."""
    place, done = torch.device(device), 0
    tiles = torch.randn(BATCH, 3, 224, 224, device=place)
    with autocast(place, "bf16"):
        for _ in range(2):
            encoder(tiles)
        encoder.seconds()
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            encoder(tiles)
            torch.cuda.synchronize(place)
            done += BATCH
    found = done / (time.perf_counter() - start)
    encoder.seconds()
    return found
