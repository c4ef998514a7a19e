"""Tile encoders by name, so that every method takes the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wsi_attention.errors import InputError
from wsi_attention.nn.encoders import SmallEncoder
from wsi_attention.nn.resnet import ResNet18
from wsi_attention.nn.transparent import hide_wrapper

ENCODERS = ("small", "resnet18")


def build_encoder(
    name: str,
    channels: int = 3,
    *,
    widths: Sequence[int] = (24, 48, 96, 128),
    features: int = 128,
    pool: str = "mean+max",
    frozen: bool = False,
) -> Any:
    """A fresh encoder (m, c, h, w) -> (m, dim), rows of length 1, with attribute `dim`.

    Args:
        name: one of `ENCODERS`.
        channels: of the tiles.
        widths: channels of the small encoder's stages.
        features: length of the small encoder's feature.
        pool: "mean", "max" or "mean+max", of the small encoder.
        frozen: whether training leaves it as it is; its weights then come from elsewhere.

    Raises:
        InputError: the name is not known.
    """
    if name not in ENCODERS:
        raise InputError(f"encoder {name!r} is not known; there is: {', '.join(ENCODERS)}")
    network = SmallEncoder(channels, widths, features, pool) if name == "small" else ResNet18(channels)
    return Frozen(network) if frozen else network


class Frozen(nn.Module):
    """A network that training does not change: no gradient, and always in eval mode; its weights keep their names.

    Args:
        network: with attribute `dim`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.dim = int(network.dim)  # type: ignore[arg-type]
        self.classifiers: tuple[str, ...] = getattr(network, "classifiers", ())
        hide_wrapper(self)

    def train(self, mode: bool = True) -> Frozen:
        """Stays in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        """(m, c, h, w) -> (m, dim)."""
        features: Tensor = self.network(tiles)
        return features
