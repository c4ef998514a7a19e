"""TNet's small networks: where to look, what a feature says of its place, a map from inside an encoder.

Papadopoulos, Korus & Memon, NeurIPS 2021, https://arxiv.org/abs/2102.10212. Features of length 1 are first stretched
to √d: one component is then about as large as one of the encoding, which would drown it otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_attention.errors import InputError
from wsi_attention.methods.tnet.crops import positional_encoding
from wsi_attention.methods.tnet.policy import weighted_feature


class AddedPosition(nn.Module):
    """act(U f + W·pe + b) with d/4 encoding channels, as for fMoW, CUB and NABirds; U = 1 unless asked for.

    Args:
        dim: d, at least 24.
        projected: whether U is learned: a frozen encoder's features have no other way to adapt.
    """

    def __init__(self, dim: int, projected: bool = False) -> None:
        super().__init__()
        self.dim = dim
        self.project = nn.Linear(dim, dim, bias=False) if projected else nn.Identity()
        self.encode = nn.Linear(max(6, dim // 4), dim)

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """Features (..., d) of length 1 and positions (..., 3) -> (..., d)."""
        encoding = positional_encoding(positions, self.encode.in_features)
        return functional.silu(self.project(features * math.sqrt(self.dim)) + self.encode(encoding))


class JoinedPosition(nn.Module):
    """W·[f, pe] + b with d encoding channels, as for ImageNet.

    Args:
        dim: d, at least 6.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.mix = nn.Linear(2 * dim, dim)

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """Features (..., d) of length 1 and positions (..., 3) -> (..., d)."""
        encoding = positional_encoding(positions, self.dim)
        mixed: Tensor = self.mix(torch.cat([features * math.sqrt(self.dim), encoding], dim=-1))
        return mixed


class FeatureWeighting(nn.Module):
    """F̄ = Σ π_n F_n with π from the features gated by their mean, as for CUB and NABirds (squeeze ratio 0.25).

    Args:
        dim: d.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = SqueezeExcitation(dim, 0.25)
        self.weight = nn.Parameter(torch.zeros(dim))

    def forward(self, features: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Features (b, n, d), real (b, n) bool -> F̄ (b, d) and π (b, n), 0 where not real."""
        mean, _ = feature_mean(features, real)
        return weighted_feature(features, self.gate(mean), self.weight, real)


class FeatureMean(nn.Module):
    """F̄ = mean of the features, as for ImageNet and fMoW."""

    def forward(self, features: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Features (b, n, d), real (b, n) bool -> F̄ (b, d) and π (b, n), 0 where not real."""
        return feature_mean(features, real)


def feature_mean(features: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (b, d) over those that are real, and the share of each (b, n)."""
    share = real.to(features.dtype) / real.sum(dim=-1, keepdim=True)
    return (share.unsqueeze(-1) * features).sum(dim=-2), share


class SqueezeExcitation(nn.Module):
    """A gate in (0, 1) for each channel, σ(W2 act(W1 mean)), from the mean over positions.

    Args:
        channels: c.
        ratio: of the channels between W1 and W2 to c.
    """

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        squeezed = max(1, round(ratio * channels))
        self.squeeze = nn.Linear(channels, squeezed)
        self.excite = nn.Linear(squeezed, channels)

    def forward(self, mean: Tensor) -> Tensor:
        """(b, c) -> (b, c)."""
        gate: Tensor = self.excite(functional.silu(self.squeeze(mean))).sigmoid()
        return gate


class Coordinates(nn.Module):
    """Appends α_y·y + β_y and α_x·x + β_x, y and x from −1 to 1; the learned α start at 1, the β at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.shift = nn.Parameter(torch.zeros(2))

    def forward(self, maps: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c + 2, h, w), y first."""
        along = [torch.linspace(-1, 1, size, device=maps.device, dtype=maps.dtype) for size in maps.shape[-2:]]
        places = torch.stack(torch.meshgrid(*along, indexing="ij"))
        channels = self.scale[:, None, None] * places + self.shift[:, None, None]
        return torch.cat([maps, channels.to(maps.dtype).expand(len(maps), -1, -1, -1)], dim=1)


class LocationModule(nn.Module):
    """conv 1×1, squeeze-excitation (ratio 0.5), two coordinate channels, conv 1×1, conv 1×1 to one logit.

    The last layer starts near zero: probabilities start near uniform. One module serves all levels.

    Args:
        channels: of φ.
        hidden: channels in between.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.gate = SqueezeExcitation(hidden, 0.5)
        self.coordinates = Coordinates()
        self.mix = nn.Conv2d(hidden + 2, hidden, 1)
        self.score = nn.Conv2d(hidden, 1, 1)
        with torch.no_grad():
            self.score.weight.mul_(0.05)
            nn.init.zeros_(self.score.bias)  # type: ignore[arg-type]

    def forward(self, phi: Tensor) -> Tensor:
        """(b, c, n, n) -> logits (b, n²), row by row."""
        h = functional.silu(self.reduce(phi))
        h = h * self.gate(h.mean(dim=(-2, -1)))[:, :, None, None]
        logits: Tensor = self.score(functional.silu(self.mix(self.coordinates(h))))
        return logits.float().flatten(1)


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
