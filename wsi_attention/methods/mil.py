"""Gated attention-based MIL: every tile of the tissue, pooled by learnt weights; the exhaustive baseline.

Ilse, Tomczak & Welling, "Attention-based Deep Multiple Instance Learning", ICML 2018, https://arxiv.org/abs/1802.04712.
Where we differ from the paper, and why: docs/methods/mil.md §4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from wsi_attention.geometry import OVERVIEW_PIXELS, Grid
from wsi_attention.methods.certifying import all_read, check_certifiable, prepared, uncertifiable
from wsi_attention.methods.method import Method
from wsi_attention.methods.outputs import require_tissue
from wsi_attention.methods.reading import repeatable
from wsi_attention.methods.rounds import PART, Reading, check_one_image, mean_of
from wsi_attention.nn.blocks import Encoder
from wsi_attention.nn.encoders import TileEncoder
from wsi_attention.nn.gated_attention import GatedAttention
from wsi_attention.nn.heads import ScaledLinear, tile_evidence
from wsi_attention.nn.known_features import tile_encoder
from wsi_attention.nn.preprocess import PixelOptions, in_float32
from wsi_attention.options import Options, option
from wsi_attention.protocols import Aim, Listed, TileSource
from wsi_attention.structures import AttentionMap, Glimpse, Output, TileSet
from wsi_attention.targets.one_label import KIND, OneLabel


@dataclass(frozen=True, kw_only=True)
class PoolingOptions(Options):
    """The numbers of attention pooling, whatever the encoder."""

    tile_size: int = option(256, "side of a tile in pixels", low=1, high=8192)
    tile_mpp: float = option(0.5, "µm per pixel of the tiles", low=0.02, high=50)
    overview_mpp: float = option(16.0, "µm per pixel at which tissue is looked for", low=0.02, high=1000)
    hidden: int = option(
        128, "L, length of the two hidden vectors of the attention", "the authors' released code", low=1, high=65_536
    )
    training_tiles: int = option(
        256,
        "the most tiles of a slide that one pass of training reads where the encoder learns, drawn at random anew each "
        "time; their activations are in memory together. With a frozen encoder all tiles are read",
        low=1,
        high=10**9,
    )


@dataclass(frozen=True, kw_only=True)
class MilOptions(PoolingOptions, PixelOptions):
    """Gated attention pooling for stained tissue."""

    encoder: TileEncoder = option(TileEncoder(), "the network that turns a tile into a feature")


class _Places(NamedTuple):
    """The tiles of a pass: (b, n) boxes, which of them are there (b, n), the grid of the map and each tile's cell."""

    tiles: TileSet
    there: Tensor
    grid: Grid
    cells: Tensor
    total: Tensor
    """(b,) tiles of the whole tissue, of which these may be a draw."""


class AttentionPooling(nn.Module):
    """Every tile of the tissue is encoded; their mean, weighted by gated attention, is classified.

    Args:
        attention: features (..., d) -> logits (...).
        encoder: turns a tile into a feature.
        classifier: (..., d) -> (..., classes).
        preprocess: (m, c, h, w) pixels of any dtype -> floats on the model's device.
        options: all numbers.
    """

    map_stride: int = 1
    overview_pixels: int = OVERVIEW_PIXELS

    def __init__(
        self,
        attention: nn.Module,
        encoder: Encoder,
        classifier: nn.Module,
        preprocess: nn.Module,
        options: PoolingOptions,
    ) -> None:
        super().__init__()
        self.attention, self.encoder, self.classifier, self.preprocess = attention, encoder, classifier, preprocess
        self.options, self.tile_mpp, self.overview_mpp = options, options.tile_mpp, options.overview_mpp
        self.target: Aim = OneLabel()

    def forward(self, source: TileSource, generator: Generator | None = None) -> Output:
        """Read all tiles in parts, weigh them, classify their mean. Nothing is random in eval mode.

        Args:
            source: b images; the tiles are those of a grid over the tissue, or what the source lists (`Listed`).
            generator: of the tiles that a pass of training reads where the encoder learns; torch's global one if None.

        Returns:
            logits (b, classes), a glimpse of all tiles and an attention map an image, and as terms `attention` (b, n),
            `features` (b, n, d), `valid` (b, n) and `mean` (b, d). A tile without a feature, failed or not drawn, has
            no attention of its own and counts as an average one in map and unread mass.

        Raises:
            NoTissueError: an image has no cell of tissue.
            TileReadError: not one tile of some image could be read.
        """
        places = self._places(source)
        if self.training and not repeatable(self.encoder):
            places = _drawn(places, self.options.training_tiles, generator)
        features, valid = Reading(source, places.tiles, self.preprocess, self.encoder, PART).first(len(places.tiles))
        valid = valid & places.there.to(valid.device)
        logits = in_float32(self.attention, features).float().masked_fill(~valid, -torch.inf)
        attention = logits.softmax(dim=-1)
        mean = (attention.unsqueeze(1) @ features.to(attention.dtype)).squeeze(1)
        if not self.training:
            mean = mean_of(features, attention)
        return self._output(places, features, valid, attention, mean)

    @property
    def uncertifiable(self) -> str:
        """See `protocols.Certifying`."""
        return uncertifiable(self.encoder, self.classifier, self.target)

    @torch.no_grad()
    def certified(
        self,
        source: TileSource,
        level: float,
        budget: int,
        generator: Generator | None = None,
        calibration: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> Output:
        """Read all tiles, and say whether those that could not be read could change the label.

        Attention is known only of tiles that were read, so that none can be left out. Arguments as in
        `protocols.Certifying`; the level makes no difference, and a budget cannot be kept.

        Raises:
            InputError: several images, a wish that makes no sense, or `uncertifiable`; others as in `forward`.
        """
        check_certifiable(self, level, budget)
        check_one_image(source)
        output, model = self.forward(source), prepared(self.encoder, self.classifier, calibration)
        features, valid = output.terms["features"], output.terms["valid"]
        known = float(in_float32(self.attention, features)[valid].double().logsumexp(dim=0))
        failed = int((~valid).sum())
        share = _share(math.log(failed) + self._largest_logit, known) if failed else 0.0
        return replace(output, certificate=all_read(output.terms["mean"], model, share, int(valid.sum()), failed))

    @property
    def _largest_logit(self) -> float:
        """What no attention logit exceeds: Σ |w|, as tanh is at most 1 and so is the gate; infinity if not gated."""
        if not isinstance(self.attention, GatedAttention):
            return math.inf
        return float(self.attention.score.weight.detach().abs().sum())

    @property
    def quantity(self) -> str:
        """What is computed, for the model card."""
        return (
            "The mean feature of all tiles of tissue, weighted by attention over their features. Every tile is read and"
            " encoded; nothing is drawn at random in prediction."
        )

    def loss(self, output: Output, target: Tensor) -> Tensor:
        """Return the cross-entropy, or the loss of another target, a scalar; target (b,)."""
        return self.target.loss(output.logits.float(), target)

    def _places(self, source: TileSource) -> _Places:
        size, downsample = (self.options.tile_size, self.options.tile_size), source.downsample(self.tile_mpp)
        step = self.options.tile_size * downsample
        grid = Grid.covering(source.extent, (step, step))
        if isinstance(source, Listed) and (listed := source.listed(size, downsample)) is not None:
            there = torch.ones(listed.locations.shape[:2], dtype=torch.bool)
            return _Places(listed, there, grid, torch.from_numpy(_cells_of(listed, grid)), there.sum(dim=-1))
        tissue = source.tissue(grid)
        require_tissue(tissue)
        cells, there = _padded(tissue.flatten(1).cpu())
        tiles = TileSet(grid.locations(cells.numpy(), size, downsample), size, downsample)
        return _Places(tiles, there, grid, cells, there.sum(dim=-1))

    def _output(self, places: _Places, features: Tensor, valid: Tensor, attention: Tensor, mean: Tensor) -> Output:
        known = valid.sum(dim=-1).double().cpu() / places.total
        weights = attention.detach().double().cpu()
        each = torch.where(valid.cpu(), weights * known[:, None], 1 / places.total[:, None].double())
        images = range(len(weights))
        return Output(
            logits=in_float32(self.classifier, mean.to(features.dtype)),
            glimpses=tuple((_glimpse(places, i, weights[i], each[i], valid[i].cpu()),) for i in images),
            maps=tuple((_map(places, i, each[i]),) for i in images),
            spread=mean.new_full((len(weights),), torch.nan, dtype=torch.float32),
            unread_mass=(1 - known).clamp(min=0).to(mean.device),
            tile_evidence=tile_evidence(self.classifier, features) if self.target.kind == KIND else None,
            pooled=mean,
            terms={"attention": attention, "features": features, "valid": valid, "mean": mean},
        )


def _share(one: float, other: float) -> float:
    """Return e^one / (e^one + e^other) of numbers that may be too large to take their powers; one may be infinite."""
    return float(np.exp(-np.logaddexp(0.0, other - one)))


def _padded(tissue: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cells with tissue of b images, (b, n) with the first one repeated, and which of them are real."""
    found = [row.nonzero().squeeze(-1) for row in tissue]
    longest = max(map(len, found))
    cells = torch.stack([torch.cat([one, one[:1].expand(longest - len(one))]) for one in found])
    there = torch.stack([torch.arange(longest) < len(one) for one in found])
    return cells, there


def _drawn(places: _Places, most: int, generator: Generator | None) -> _Places:
    """Return a random draw of at most so many tiles, the same number of each image."""
    n = places.there.shape[1]
    if n <= most:
        return places
    chance = torch.rand(places.there.shape, generator=generator).masked_fill(~places.there, -1.0)
    index = chance.topk(most, dim=-1).indices.sort(dim=-1).values
    locations = np.take_along_axis(places.tiles.locations, index.numpy()[..., None], axis=1)
    tiles = TileSet(locations, places.tiles.size, places.tiles.downsample)
    return places._replace(tiles=tiles, there=places.there.gather(1, index), cells=places.cells.gather(1, index))


def _cells_of(tiles: TileSet, grid: Grid) -> NDArray[np.int64]:
    """Return the flat index (b, n) of the cell that each tile's centre lies in, the nearest one where it is outside."""
    centres = tiles.locations + np.array(tiles.footprint) / 2
    col = np.clip(np.floor(centres[..., 0] / grid.step[0]).astype(np.int64), 0, grid.cols - 1)
    row = np.clip(np.floor(centres[..., 1] / grid.step[1]).astype(np.int64), 0, grid.rows - 1)
    return np.asarray(row * grid.cols + col, np.int64)


def _glimpse(places: _Places, image: int, weights: Tensor, attention: Tensor, valid: Tensor) -> Glimpse:
    there = places.there[image].numpy()
    tiles = TileSet(places.tiles.locations[image, there], places.tiles.size, places.tiles.downsample)
    least = np.finfo(np.float64).tiny  # a softmax may round to 0; the tile was read all the same
    return Glimpse(tiles, weights.numpy()[there], attention.numpy()[there].clip(least), valid.numpy()[there])


def _map(places: _Places, image: int, attention: Tensor) -> AttentionMap:
    """Return the attention of the tiles in each cell; tiles that were not drawn in training are missing in it."""
    there, cells = places.there[image], places.cells[image]
    size = places.grid.rows * places.grid.cols
    values = torch.zeros(size, dtype=torch.float64).index_add_(0, cells[there], attention[there])
    asked = torch.zeros(size, dtype=torch.bool).index_fill_(0, cells[there], True)
    found = values.masked_fill(~asked, torch.nan).numpy().astype(np.float32)
    return AttentionMap(found.reshape(places.grid.shape), places.grid)


def _mil(classes: int, options: MilOptions) -> AttentionPooling:
    encoder = tile_encoder(options.encoder, options.channels)
    attention = GatedAttention(encoder.dim, options.hidden)
    return AttentionPooling(attention, encoder, ScaledLinear(encoder.dim, classes), options.preprocess(), options)


PAPER = (
    'Ilse, Tomczak & Welling, "Attention-based Deep Multiple Instance Learning", ICML 2018, '
    "https://arxiv.org/abs/1802.04712"
)
mil = Method(
    MilOptions, _mil, "Gated attention MIL: reads every tile of the tissue, or takes bags of features.", PAPER, True
)
