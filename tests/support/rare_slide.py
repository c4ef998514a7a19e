"""A slide whose label hangs on few tiles that attention does not see: what an error of the sample cannot know."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from wsi_attention.export.table import interval
from wsi_attention.methods.ats import AttentionSampling, SamplingOptions
from wsi_attention.nn.blocks import Encoder, OverviewNet
from wsi_attention.structures import Output
from wsi_attention.tiles.tensors import TensorSource

SIDE = 20
"""Tiles along a side of the image; a tile is a pixel."""
NOISE = 0.01
"""Standard deviation of the tiles that say nothing; a decisive one says 1."""
PLENTY = 10**6
"""A budget that is never met."""


class Flat(OverviewNet):
    """Attention that tells no cell from another; a cell is a pixel."""

    stride, dim = 1, 1

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (b, h, w), all 0, and the view itself."""
        return torch.zeros_like(view[:, 0]), view


class Pixel(Encoder):
    """The feature of a tile of one pixel: the pixel."""

    dim = 1

    def forward(self, tiles: Tensor) -> Tensor:
        """(m, 1, 1, 1) -> (m, 1)."""
        return tiles.flatten(1)


class Decided(NamedTuple):
    """Shares of runs.

    Attributes:
        covered: the 95 % interval holds the exact probability.
        covered_unseen: the same, among runs that read no decisive tile.
        wrong: stopped by the limits, not by the budget, with another label than the exact one.
        tiles: read on average.
    """

    covered: float
    covered_unseen: float
    wrong: float
    tiles: float


def slide(decisive: float = 0.02, side: int = SIDE) -> Tensor:
    """An image (1, 1, side, side) of noise, of which this share of the tiles says "lesion" aloud."""
    generator = Generator().manual_seed(0)
    pixels = NOISE * torch.randn(1, 1, side, side, generator=generator)
    where = torch.randperm(side * side, generator=generator)[: round(decisive * side * side)]
    pixels.view(-1)[where] = 1.0
    return pixels


def model(pixels: Tensor, draws: int, odds: float = 2.0) -> AttentionSampling:
    """A model for which the exact label is "lesion" with these log-odds, and their negative without the decisive tiles.

    Args:
        pixels: of `slide`.
        draws: tiles of one look.
        odds: above 0.
    """
    whole, rest = float(pixels.mean()), float(pixels[pixels < 1.0].sum() / pixels.numel())
    scale = 2 * odds / (whole - rest)
    classifier = nn.Linear(1, 2)
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor([[0.0], [scale]]))
        classifier.bias.copy_(torch.tensor([0.0, odds - scale * whole]))
    options = SamplingOptions(tile_size=1, tile_mpp=1.0, overview_mpp=1.0, overview_weight=0.0, draws=draws)
    return AttentionSampling(Flat(), Pixel(), classifier, nn.Identity(), options).eval()


def measure(draws: int, tolerance: float | None, unread: float | None = None, runs: int = 200) -> Decided:
    """Return what becomes of one such slide with as many different seeds.

    Args:
        draws: tiles of one look, or of a round.
        tolerance: reads on until the error is at most this; a single look where None.
        unread: as in `Estimating.until`; 1 asks for a small error alone.
        runs: how many.
    """
    pixels = slide()
    network, source = model(pixels, draws), TensorSource(pixels)
    exact = network.exact(source).logits.softmax(-1)[0]
    held, unseen, wrong, tiles = [], [], 0, 0
    for seed in range(runs):
        output = _looked(network, source, tolerance, unread, Generator().manual_seed(seed))
        p, best = (float(one) for one in output.logits.softmax(-1)[0].max(dim=-1))
        spread = float(output.spread)
        low, high = interval(p, None if math.isnan(spread) else spread)
        held.append(low - 1e-6 <= float(exact[int(best)]) <= high + 1e-6)
        unseen += [] if bool((output.terms["features"] == 1.0).any()) else held[-1:]
        wrong += int(best) != int(exact.argmax())
        tiles += output.terms["cells"].shape[1]
    return Decided(_share(held), _share(unseen), wrong / runs, tiles / runs)


def _looked(
    network: AttentionSampling, source: TensorSource, tolerance: float | None, unread: float | None, chance: Generator
) -> Output:
    with torch.no_grad():
        output: Output = (
            network(source, chance) if tolerance is None else network.until(source, tolerance, PLENTY, chance, unread)
        )
    return output


def _share(runs: list[bool]) -> float:
    return sum(runs) / len(runs) if runs else math.nan
