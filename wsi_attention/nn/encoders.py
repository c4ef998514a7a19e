"""Networks that turn a tile into one feature: (m, c, h, w) -> (m, dim), of length 1."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_attention.encoders.table import entries, is_known
from wsi_attention.errors import InputError
from wsi_attention.nn.blocks import Encoder, GlobalMax, GlobalMean, GlobalMeanMax, UnitNorm
from wsi_attention.nn.known_encoder import known_encoder
from wsi_attention.nn.resnet import ResNet18
from wsi_attention.nn.timm_encoder import is_timm, timm_encoder
from wsi_attention.nn.transparent import hide_wrapper
from wsi_attention.nn.turned import ALL, ONE, TURNS, MeanOfTurns
from wsi_attention.nn.vit import VisionTransformer
from wsi_attention.options import Options, option

POOLS = {"mean": GlobalMean, "max": GlobalMax, "mean+max": GlobalMeanMax}


class MnistEncoder(nn.Sequential, Encoder):
    """The paper's encoder for Megapixel MNIST: conv 7×7, three conv 3×3, 32 channels, valid, ReLU, global max.

    Args:
        channels: channels of the tiles.
    """

    dim = 32

    def __init__(self, channels: int = 1) -> None:
        layers: list[nn.Module] = [nn.Conv2d(channels, 32, 7), nn.ReLU()]
        for _ in range(3):
            layers += [nn.Conv2d(32, 32, 3), nn.ReLU()]
        super().__init__(*layers, GlobalMax(), UnitNorm())

    def directions(self) -> Tensor:
        """Return the axes: after a ReLU no number is negative."""
        return torch.eye(self.dim)


class StridedMnistEncoder(nn.Sequential, Encoder):
    """An encoder for Megapixel MNIST with a fiftieth of the paper's cost: 39,000 weights, 0.6 million products a tile.

    The mean of 2 × 2 pixels, convolutions 5×5 and 3×3 of stride 2, one 3×3, valid, ReLU, global max. Tiles of 50 × 50
    pixels end as 3 × 3 cells, each of which sees 34 pixels: a whole digit.

    Args:
        channels: channels of the tiles.
    """

    dim = 64
    widths = (24, 48, 64)
    steps = ((5, 2), (3, 2), (3, 1))

    def __init__(self, channels: int = 1) -> None:
        layers: list[nn.Module] = [_Halved()]
        for before, after, (side, stride) in zip((channels, *self.widths), self.widths, self.steps, strict=False):
            layers += [nn.Conv2d(before, after, side, stride), nn.ReLU()]
        super().__init__(*layers, GlobalMax(), UnitNorm())
        for weight in self.parameters():
            if weight.dim() == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)

    def directions(self) -> Tensor:
        """Return the axes: after a ReLU no number is negative."""
        return torch.eye(self.dim)


class _Halved(nn.Module):
    """The mean of 2 × 2 pixels; several times faster than a pooling layer where there are few channels."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x[..., 0 : x.shape[-2] - 1 : 2, :] + x[..., 1::2, :]
        return (rows[..., 0 : x.shape[-1] - 1 : 2] + rows[..., 1::2]) / 4


class SmallEncoder(Encoder):
    """A residual network cheap enough for a laptop: about 0.3 GFLOP for a 256 × 256 tile.

    A strided stem, then one stage per width, each half the size of the one before, with one residual block. Group
    normalisation works on each tile alone: the feature of a tile does not depend on the others in the batch.

    Args:
        channels: channels of the tiles.
        widths: channels of each stage; multiples of 8.
        dim: length of the feature.
        pool: "mean", "max" or "mean+max" over the last stage.

    Attributes:
        map_layer: layer with the last feature map but one; TNet's location module sees it.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (24, 48, 96, 128),
        dim: int = 128,
        pool: str = "mean+max",
    ) -> None:
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"no pooling named {pool!r}; there is: {', '.join(POOLS)}")
        self.dim, self.pool = dim, pool
        self.map_layer = f"trunk.{2 + 4 * max(0, len(widths) - 2)}"
        stages: list[nn.Module] = [nn.Conv2d(channels, widths[0], 7, stride=4, padding=3, bias=False), _norm(widths[0])]
        for before, after in pairwise(widths):
            stages += [nn.ReLU(), nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), _norm(after)]
            stages += [_Residual(after)]
        self.trunk = nn.Sequential(*stages, nn.ReLU(), POOLS[pool]())
        self.project = nn.Linear(widths[-1] * (2 if pool == "mean+max" else 1), dim)
        self.unit = UnitNorm()

    def forward(self, tiles: Tensor) -> Tensor:
        """Map (m, c, h, w) to (m, dim), rows of length 1."""
        features: Tensor = self.unit(self.project(self.trunk(tiles)))
        return features

    @torch.no_grad()
    def directions(self) -> Tensor:
        """Return what the projection makes of numbers that are not negative, the largest at least as large as the mean.

        A feature is W x + b, scaled, and x ≥ 0 comes out of a ReLU. With "mean+max" x has a mean and a maximum of each
        channel: the same amount of both, and more of the maximum alone.
        """
        columns = self.project.weight.detach().T
        half = len(columns) // 2
        if self.pool == "mean+max":
            columns = torch.cat([columns[:half] + columns[half:], columns[half:]])
        return torch.cat([columns, self.project.bias.detach()[None]])


class _Residual(nn.Module):
    """x + conv(relu(norm(conv(relu(x)))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = _norm(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(functional.relu(self.norm(self.first(functional.relu(x)))))
        return x + y


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, channels)


ENCODERS = ("small", "resnet18", "vit")
FROM_TIMM = ("timm:NAME", "timm:hf-hub:OWNER/MODEL", "hub:OWNER/MODEL")
VIT_PATCH, VIT_DEPTH, VIT_HEADS = 16, 4, 4


@dataclass(frozen=True, kw_only=True)
class TileEncoder(Options):
    """The network that turns a tile into one feature; the same options for every method that reads tiles."""

    name: str = option(
        "small",
        f"the network: {', '.join((*ENCODERS, *FROM_TIMM))}, or a published one that `wsi-attention encoders` lists; "
        "timm's and published ones may carry constructor arguments",
    )
    widths: tuple[int, ...] = option((24, 48, 96, 128), 'channels of the stages of "small"', low=1, high=65_536)
    features: int = option(128, 'length of the feature of "small" and "vit"', low=1, high=65_536)
    pool: str = option("mean+max", 'how "small" pools its last map', choices=tuple(POOLS))
    frozen: bool = option(False, "true: training leaves the weights as they are; they come from elsewhere then")
    turns: int = option(
        ONE,
        "in how many turns prediction encodes each tile; its feature is their mean. 1: as it is, 4: its quarter turns, "
        "8: mirrored too. Steadier features for as many times the computing, and no more reading",
        "docs/how-to/encoders.md",
        low=ONE,
        high=ALL,
    )

    def check(self) -> None:
        """Raise InputError where the turns are no whole set."""
        if self.turns not in TURNS:
            raise InputError(f"turns {self.turns}: a tile is encoded in {', '.join(map(str, TURNS))} turns; take one")

    @classmethod
    def named(cls, name: str) -> TileEncoder:
        """Return the encoder of that name with defaults for the rest."""
        return cls(name=name)

    def build(self, channels: int = 3) -> Encoder:
        """Return a fresh encoder (m, channels, h, w) -> (m, dim), rows of length 1.

        Raises:
            InputError: the name is not known; the nearest ones are given.
            MissingExtraError: the name needs a package that is not installed.
        """
        network = self._network(channels)
        network = network if self.turns == ONE else MeanOfTurns(network, self.turns)
        return Frozen(network) if self.frozen else network

    def _network(self, channels: int) -> Encoder:
        if is_timm(self.name):
            return timm_encoder(self.name, channels)
        if is_known(self.name.partition(" ")[0]):
            return known_encoder(self.name, channels)
        if self.name == "small":
            return SmallEncoder(channels, self.widths, self.features, self.pool)
        if self.name == "resnet18":
            return ResNet18(channels)
        if self.name == "vit":
            return VitEncoder(channels, self.features)
        near = difflib.get_close_matches(self.name.lower(), (*ENCODERS, *entries()), n=3, cutoff=0.7)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise InputError(
            f"encoder {self.name!r} is not known; {hint}there is: {', '.join((*ENCODERS, *FROM_TIMM))}, and what "
            "`wsi-attention encoders` lists"
        )


def bare(encoder: nn.Module) -> nn.Module:
    """Return what computes the features: the encoder, out of `Frozen` where it is in it."""
    return encoder.network if isinstance(encoder, Frozen) else encoder


def innermost(encoder: nn.Module) -> nn.Module:
    """Return the network whose weights these are, out of what this package puts around it."""
    network = bare(encoder)
    return network.network if isinstance(network, MeanOfTurns) else network


def turns_of(encoder: nn.Module | None) -> int:
    """Return in how many turns an encoder sees each tile."""
    network = None if encoder is None else bare(encoder)
    return network.turns if isinstance(network, MeanOfTurns) else ONE


class VitEncoder(Encoder):
    """A small vision transformer for tiles of any size; a side that is no multiple of the patch is padded with zeros.

    Args:
        channels: channels of the tiles.
        dim: length of the feature; a multiple of the number of heads.
    """

    def __init__(self, channels: int = 3, dim: int = 128) -> None:
        super().__init__()
        self.network = VisionTransformer(channels, VIT_PATCH, (8, 8), dim, VIT_DEPTH, VIT_HEADS)
        self.unit, self.dim = UnitNorm(), dim
        hide_wrapper(self)

    def forward(self, tiles: Tensor) -> Tensor:
        """Map (m, c, h, w) to (m, dim), rows of length 1."""
        height, width = tiles.shape[-2:]
        tiles = functional.pad(tiles, (0, -width % VIT_PATCH, 0, -height % VIT_PATCH))
        features: Tensor = self.unit(self.network(tiles))
        return features


class Frozen(Encoder):
    """A network that training does not change: no gradient, and always in eval mode; its weights keep their names.

    Args:
        network: the encoder.
    """

    def __init__(self, network: Encoder) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.dim, self.classifiers, self.renamed = network.dim, network.classifiers, network.renamed
        hide_wrapper(self)

    def train(self, mode: bool = True) -> Frozen:
        """Stay in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        """Map (m, c, h, w) to (m, dim)."""
        features: Tensor = self.network(tiles)
        return features

    def directions(self) -> Tensor | None:
        """Return the network's own."""
        return self.network.directions()
