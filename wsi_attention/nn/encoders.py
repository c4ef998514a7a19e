"""Networks that turn a tile into one feature: (m, c, h, w) -> (m, dim), of length 1."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from wsi_attention.nn.blocks import GlobalMax, GlobalMean, GlobalMeanMax, UnitNorm

POOLS = {"mean": GlobalMean, "max": GlobalMax, "mean+max": GlobalMeanMax}


class MnistEncoder(nn.Sequential):
    """The paper's encoder for Megapixel MNIST: conv 7×7, three conv 3×3, 32 channels, valid, ReLU, global max.

    Args:
        channels: of the tiles.
    """

    dim = 32

    def __init__(self, channels: int = 1) -> None:
        layers: list[nn.Module] = [nn.Conv2d(channels, 32, 7), nn.ReLU()]
        for _ in range(3):
            layers += [nn.Conv2d(32, 32, 3), nn.ReLU()]
        super().__init__(*layers, GlobalMax(), UnitNorm())


class SmallEncoder(nn.Module):
    """A residual network cheap enough for a laptop: about 0.3 GFLOP for a 256 × 256 tile.

    A strided stem, then a stage per width, each half the size of the one before, with one residual block. Group
    normalisation works on each tile alone: a tile's feature does not depend on its neighbours in the batch.

    Args:
        channels: of the tiles.
        widths: channels of each stage; multiples of 8.
        dim: length of the feature.
        pool: "mean", "max" or "mean+max" over the last stage.

    Attributes:
        map_layer: what gives the last map but one, for `nn.feature_map`.
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
        self.dim = dim
        self.map_layer = f"trunk.{2 + 4 * max(0, len(widths) - 2)}"
        stages: list[nn.Module] = [nn.Conv2d(channels, widths[0], 7, stride=4, padding=3, bias=False), _norm(widths[0])]
        for before, after in pairwise(widths):
            stages += [nn.ReLU(), nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), _norm(after)]
            stages += [_Residual(after)]
        self.trunk = nn.Sequential(*stages, nn.ReLU(), POOLS[pool]())
        self.project = nn.Linear(widths[-1] * (2 if pool == "mean+max" else 1), dim)
        self.unit = UnitNorm()

    def forward(self, tiles: Tensor) -> Tensor:
        """(m, c, h, w) -> (m, dim), rows of length 1."""
        features: Tensor = self.unit(self.project(self.trunk(tiles)))
        return features


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
