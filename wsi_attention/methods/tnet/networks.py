"""TNet's small networks: the location module, position in features, pooling, and a feature map from inside an encoder.

docs/methods/tnet.md §2.3, §2.4 and §2.5. Encoders return features of length 1. Before a positional encoding is added
they are scaled to length √d, so that a component of the feature and one of the encoding are of similar size.
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
from wsi_attention.nn.blocks import Encoder


class AddedPosition(nn.Module):
    """Add the position to a feature: silu(U f + W·pe + b) with d/4 encoding channels (docs/methods/tnet.md §2.4).

    Args:
        dim: d, at least 24.
        projected: True learns U, which is how the features of a frozen encoder adapt; False takes U = 1.
    """

    def __init__(self, dim: int, projected: bool = False) -> None:
        super().__init__()
        self.dim = dim
        self.project = nn.Linear(dim, dim, bias=False) if projected else nn.Identity()
        self.encode = nn.Linear(max(6, dim // 4), dim)

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """Map features (..., d) of length 1 and positions (..., 3) to (..., d)."""
        encoding = positional_encoding(positions, self.encode.in_features)
        return functional.silu(self.project(features * math.sqrt(self.dim)) + self.encode(encoding))


class JoinedPosition(nn.Module):
    """Join the position to a feature: W·[f, pe] + b with d encoding channels (docs/methods/tnet.md §2.4).

    Args:
        dim: d, at least 6.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.mix = nn.Linear(2 * dim, dim)

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """Map features (..., d) of length 1 and positions (..., 3) to (..., d)."""
        encoding = positional_encoding(positions, self.dim)
        mixed: Tensor = self.mix(torch.cat([features * math.sqrt(self.dim), encoding], dim=-1))
        return mixed


class FeatureWeighting(nn.Module):
    """Pool by learned shares: F̄ = Σ π_n F_n, with the gate's squeeze ratio of 0.25 (docs/methods/tnet.md §2.5).

    Args:
        dim: d.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = SqueezeExcitation(dim, 0.25)
        self.weight = nn.Parameter(torch.zeros(dim))

    def forward(self, features: Tensor, real: Tensor, level: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return F̄ (b, d) and π (b, n), 0 where not real, from features (b, n, d) and real (b, n) bool."""
        mean, _ = feature_mean(features, real)
        return weighted_feature(features, self.gate(mean), self.weight, real)


class LevelWeighting(FeatureWeighting):
    """Pool by learned shares that start alike for every level: π = softmax(w·(F ⊙ s) − log N of the level).

    The overview is one feature among all regions; where all shares start alike, what it shows hardly counts. N is the
    number of features of the level in the image (docs/methods/tnet.md §2.5).
    """

    def forward(self, features: Tensor, real: Tensor, level: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return F̄ (b, d) and π (b, n), 0 where not real, from features (b, n, d), real (b, n) bool, level (b, n)."""
        mean, _ = feature_mean(features, real)
        level = torch.zeros_like(real) if level is None else level
        same = (level.unsqueeze(-1) == level.unsqueeze(-2)) & real.unsqueeze(-2)
        number = same.sum(dim=-1).clamp(min=1).to(features.dtype)
        return weighted_feature(features, self.gate(mean), self.weight, real, -number.log())


class FeatureMean(nn.Module):
    """Pool by the mean of the features (docs/methods/tnet.md §2.5)."""

    def forward(self, features: Tensor, real: Tensor, level: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return F̄ (b, d) and π (b, n), 0 where not real, from features (b, n, d) and real (b, n) bool."""
        return feature_mean(features, real)


def feature_mean(features: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (b, d) over the features that are real, and the share of each in it (b, n)."""
    share = real.to(features.dtype) / real.sum(dim=-1, keepdim=True)
    return (share.unsqueeze(-1) * features).sum(dim=-2), share


class SqueezeExcitation(nn.Module):
    """A gate in (0, 1) for each channel, σ(W2 silu(W1 mean)), from the mean over positions.

    Args:
        channels: c.
        ratio: channels between W1 and W2, divided by c.
    """

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        squeezed = max(1, round(ratio * channels))
        self.squeeze = nn.Linear(channels, squeezed)
        self.excite = nn.Linear(squeezed, channels)

    def forward(self, mean: Tensor) -> Tensor:
        """Map means (b, c) to gates (b, c)."""
        gate: Tensor = self.excite(functional.silu(self.squeeze(mean))).sigmoid()
        return gate


class Coordinates(nn.Module):
    """Two further channels, α_y·y + β_y and α_x·x + β_x, with y and x from −1 to 1 and α and β learned from 1 and 0."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.shift = nn.Parameter(torch.zeros(2))

    def forward(self, maps: Tensor) -> Tensor:
        """Map (b, c, h, w) to (b, c + 2, h, w), y before x."""
        along = [torch.linspace(-1, 1, size, device=maps.device, dtype=maps.dtype) for size in maps.shape[-2:]]
        places = torch.stack(torch.meshgrid(*along, indexing="ij"))
        channels = self.scale[:, None, None] * places + self.shift[:, None, None]
        return torch.cat([maps, channels.to(maps.dtype).expand(len(maps), -1, -1, -1)], dim=1)


class LocationModule(nn.Module):
    """From a feature map φ to a logit per crop; one module serves all levels (docs/methods/tnet.md §2.3).

    conv 1×1, squeeze-and-excitation (ratio 0.5), two coordinate channels, conv 1×1, conv 1×1 to one logit. The last
    layer starts near zero, so that probabilities start near uniform.

    Args:
        channels: channels of φ.
        hidden: channels of the layers in between.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.gate = SqueezeExcitation(hidden, 0.5)
        self.coordinates = Coordinates()
        self.mix = nn.Conv2d(hidden + 2, hidden, 1)
        self.score = nn.Conv2d(hidden, 1, 1)
        assert self.score.bias is not None
        with torch.no_grad():
            self.score.weight.mul_(0.05)
            self.score.bias.zero_()

    def forward(self, phi: Tensor) -> Tensor:
        """Map φ (b, c, n, n) to logits (b, n²), row by row."""
        h = functional.silu(self.reduce(phi))
        h = h * self.gate(h.mean(dim=(-2, -1)))[:, :, None, None]
        logits: Tensor = self.score(functional.silu(self.mix(self.coordinates(h))))
        return logits.float().flatten(1)


class FeatureAndMap(nn.Module):
    """Runs an encoder once and returns both its feature and the output of one of its layers.

    It holds no weights of its own: the encoder is registered in the model alone, so each weight has one name.

    Args:
        encoder: (m, c, h, w) -> (m, dim).
        layer: name of a module inside the encoder, or inside the network that it wraps. Where empty: the layer that
            the encoder names itself (`map_layer`), or the last but one of a timm network's feature maps or of a
            transformer's blocks.
        channels: channels of the tiles.
        size: side of the tiles in pixels.

    Attributes:
        map_shape: (channels, h, w) of the map of one tile.

    Raises:
        InputError: there is no such layer, or its output is no feature map.
    """

    def __init__(self, encoder: Encoder, layer: str, channels: int, size: int) -> None:
        super().__init__()
        self._unregistered = encoder, _layer_of(encoder, layer)
        self.dim = encoder.dim
        self.map_shape = self._probed(torch.zeros(1, channels, size, size))

    def forward(self, tiles: Tensor) -> Tensor:
        """Map tiles (m, c, h, w) to (m, dim + map), each feature followed by its flattened map; `split` undoes this."""
        encoder, layer = self._unregistered
        with _kept(layer) as kept:
            feature: Tensor = encoder(tiles)
        return torch.cat([feature, _as_map(kept).to(feature.dtype).flatten(1)], dim=-1)

    def split(self, both: Tensor) -> tuple[Tensor, Tensor]:
        """Split (..., dim + map) into features (..., dim) and maps (..., channels, h, w)."""
        return both[..., : self.dim], both[..., self.dim :].reshape(*both.shape[:-1], *self.map_shape)

    def nothing(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `split` returns, all zeros, for tiles (...) of which none could be read."""
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
    raise InputError(f"the encoder has no feature map for the location module: {asked}")


def _usual_layer(module: nn.Module) -> str:
    layers = [str(one["module"]) for one in getattr(module, "feature_info", ())]
    blocks = getattr(module, "blocks", None)
    if isinstance(blocks, nn.ModuleList | nn.Sequential):
        layers = layers or [f"blocks.{i}" for i in range(len(blocks))]
    return str(getattr(module, "map_layer", "")) or (layers[-2:] or [""])[0]


def _as_map(kept: list[Tensor]) -> Tensor:
    """Return a map (m, c, h, w) as it is, tokens (m, t, c) as a square map without the special tokens before them."""
    found = kept[0] if len(kept) == 1 else None
    if not isinstance(found, Tensor) or found.ndim not in (3, 4):
        raise InputError("map_layer must run once per pass and return one tensor, (m, c, h, w) or tokens (m, t, c)")
    if found.ndim == 4:
        return found
    side = math.isqrt(found.shape[1])
    return found[:, found.shape[1] - side * side :].mT.reshape(len(found), -1, side, side)
