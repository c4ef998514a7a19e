"""A feature and, in the same pass, a map from inside an encoder: any encoder, frozen or not, by the name of a layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wsi_attention.errors import InputError


class FeatureAndMap(nn.Module):
    """Runs an encoder and keeps what one of its layers gives.

    It holds no weights: the encoder stays a part of the model, under its own name.

    Args:
        encoder: (m, c, h, w) -> (m, dim).
        layer: name of a module inside it, or inside what it wraps. Where empty, what the encoder itself says
            (`map_layer`), a timm network's last feature map but one, or a transformer's last block but one.
        channels: of the tiles.
        size: side of the tiles in pixels.

    Attributes:
        map_shape: (channels, h, w) of the map of one tile.

    Raises:
        InputError: there is no such layer, or it gives no map.
    """

    def __init__(self, encoder: nn.Module, layer: str, channels: int, size: int) -> None:
        super().__init__()
        self._unregistered = encoder, _layer_of(encoder, layer)
        self.dim = int(encoder.dim)  # type: ignore[arg-type]
        self.map_shape = self._probed(torch.zeros(1, channels, size, size))

    def forward(self, tiles: Tensor) -> Tensor:
        """(m, c, h, w) -> (m, dim + map), the feature and then the map, flat; `split` takes them apart."""
        encoder, layer = self._unregistered
        with _kept(layer) as kept:
            feature: Tensor = encoder(tiles)
        return torch.cat([feature, _as_map(kept).to(feature.dtype).flatten(1)], dim=-1)

    def split(self, both: Tensor) -> tuple[Tensor, Tensor]:
        """(..., dim + map) -> features (..., dim) and maps (..., channels, h, w)."""
        return both[..., : self.dim], both[..., self.dim :].reshape(*both.shape[:-1], *self.map_shape)

    def nothing(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """What `split` gives, all zeros, for tiles (...) none of which could be read."""
        return like.new_zeros((*like.shape, self.dim)).float(), like.new_zeros((*like.shape, *self.map_shape)).float()

    @torch.no_grad()
    def _probed(self, tiles: Tensor) -> tuple[int, int, int]:
        encoder, layer = self._unregistered
        modes = {module: module.training for module in encoder.modules()}
        encoder.eval()
        with _kept(layer) as kept:
            encoder(tiles)
        for module, training in modes.items():
            module.training = training
        _, c, h, w = _as_map(kept).shape
        return c, h, w


@contextmanager
def _kept(layer: nn.Module) -> Iterator[list[Tensor]]:
    kept: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, given, result: kept.append(result))
    try:
        yield kept
    finally:
        hook.remove()


def _layer_of(encoder: nn.Module, name: str) -> nn.Module:
    for module in encoder.modules():
        wanted = name or _usual_layer(module)
        if wanted and any(wanted == known for known, _ in module.named_modules()):
            return module.get_submodule(wanted)
    asked = f"no layer {name!r} in it" if name else "it names none; give one of its layers as map_layer"
    raise InputError(f"the encoder gives no feature map for the location module: {asked}")


def _usual_layer(module: nn.Module) -> str:
    layers = [str(one["module"]) for one in getattr(module, "feature_info", ())]
    if isinstance(getattr(module, "blocks", None), nn.ModuleList | nn.Sequential):
        layers = layers or [f"blocks.{i}" for i in range(len(module.blocks))]  # type: ignore[arg-type]
    return str(getattr(module, "map_layer", "")) or (layers[-2:] or [""])[0]


def _as_map(kept: list[Tensor]) -> Tensor:
    """(m, c, h, w) as it is; a transformer's tokens (m, t, c) as a square map, special tokens in front left out."""
    found = kept[0] if len(kept) == 1 else None
    if not isinstance(found, Tensor) or found.ndim not in (3, 4):
        raise InputError("map_layer must run once a pass and give one tensor, (m, c, h, w) or tokens (m, t, c)")
    if found.ndim == 4:
        return found
    side = math.isqrt(found.shape[1])
    return found[:, found.shape[1] - side * side :].mT.reshape(len(found), -1, side, side)
