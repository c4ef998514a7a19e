"""ATS: one dense look at the overview, a few tiles at full resolution, one class.

Katharopoulos & Fleuret, "Processing Megapixel Images with Deep Attention-Sampling Models", ICML 2019,
https://arxiv.org/abs/1905.03711. Where we differ from the paper, and why: docs/methods/ats.md §5. Exact on average is
`estimator = "sequential"` with `gradient = "unbiased"`; the defaults give that up for less noise, with a bias of the
order of one over the draws in value and gradient (`attention.expectation`).

One thing is added, and only with `evidence`: while training, the attention-weighted mean of what the overview itself
shows is classified too, because the paper's loss finds small lesions very slowly (docs/methods/ats.md §4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from wsi_attention.attention.expectation import (
    ESTIMATORS,
    GRADIENTS,
    DrawnCells,
    draw_sample,
    draw_top,
    estimate,
    unread_mass,
    without_failed,
)
from wsi_attention.attention.sampling import available, draw_without_replacement, smoothed_softmax
from wsi_attention.attention.spread import negative_entropy
from wsi_attention.errors import InputError
from wsi_attention.geometry import Grid
from wsi_attention.methods.certifying import Cells, check_certifiable, prepared, read_until_settled, uncertifiable
from wsi_attention.methods.falling import FallingDraws
from wsi_attention.methods.method import Method
from wsi_attention.methods.outputs import glimpses, maps
from wsi_attention.methods.overview import OverviewOptions, check_overview, judge_cells
from wsi_attention.methods.reading import encoded
from wsi_attention.methods.rounds import (
    PART,
    Reading,
    check_one_image,
    check_quantity,
    limits,
    mean_of,
    most_tiles,
    read_until,
    seeded,
    spread_of,
)
from wsi_attention.nn.attention_nets import MnistAttentionNet, TissueAttentionNet
from wsi_attention.nn.blocks import Encoder, OverviewNet
from wsi_attention.nn.encoders import MnistEncoder, StridedMnistEncoder, TileEncoder
from wsi_attention.nn.heads import GENTLE, ScaledLinear, attended, tile_evidence
from wsi_attention.nn.ink_attention import InkAttentionNet
from wsi_attention.nn.known_features import tile_encoder
from wsi_attention.nn.overview_colours import OverviewPixelOptions
from wsi_attention.nn.preprocess import Normalise, in_float32
from wsi_attention.options import option, other_default
from wsi_attention.protocols import Aim, TileSource
from wsi_attention.structures import Output, TileSet
from wsi_attention.targets.one_label import KIND, OneLabel

INFERENCE = ("sample", "top")
_TOP = "the mean feature of the {} most attended tiles, weighted by attention"


@dataclass(frozen=True, kw_only=True)
class SamplingOptions(OverviewOptions):
    """The numbers of attention sampling, whatever the networks."""

    tile_size: int = option(256, "side of a tile in pixels", low=1, high=8192)
    tile_mpp: float = option(0.5, "µm per pixel of the tiles", low=0.02, high=50)
    overview_mpp: float = option(
        16.0,
        "µm per pixel of the overview, coarser for very large slides; best is tile_size · tile_mpp / 2^(number of "
        "attention_widths): one cell of attention is as large as one tile then",
        low=0.02,
        high=1000,
    )
    draws: int = option(
        32,
        "N, tiles read per slide; fewer where it has fewer cells of tissue",
        "Katharopoulos & Fleuret, section 4.1: 10 to 50",
        low=1,
        high=100_000,
    )
    estimator: str = option(
        "normalised-threshold",
        'how tiles are drawn and weighed; all are unbiased but "normalised-threshold", which has less noise',
        "docs/methods/ats.md §2",
        choices=ESTIMATORS,
    )
    gradient: str = option(
        "centred",
        'how the gradient reaches attention. "unbiased" is so with any unbiased estimator; "centred" is biased, has '
        'less noise and needs two draws; the last two reproduce released codes and need estimator = "sequential"',
        "docs/methods/ats.md §3",
        choices=GRADIENTS,
    )
    inference: str = option(
        "sample",
        'what training and prediction estimate. "sample": the sum over all cells, from random draws. "top": the sum '
        "over the cells with the highest attention, weights renormalised; nothing is random then",
        "Katharopoulos & Fleuret, section 3.2",
        choices=INFERENCE,
    )
    entropy_weight: float = option(
        1e-4, "ρ of the loss; above 0 it pushes attention towards uniform", "Katharopoulos & Fleuret, section 3.4"
    )
    floor: float = option(1e-4, "s, share of the attention that is spread evenly over the tissue", low=0, high=0.999)

    def check(self) -> None:
        """Raise InputError where options do not go together."""
        if self.gradient.startswith("as-") and self.estimator != "sequential":
            raise InputError(f"gradient {self.gradient!r} belongs to estimator 'sequential', not {self.estimator!r}")
        if self.gradient == "centred" and self.draws == 1:
            raise InputError("gradient 'centred' is always 0 with draws 1; take 2 or more, or gradient 'unbiased'")


@dataclass(frozen=True, kw_only=True)
class AtsOptions(SamplingOptions, OverviewPixelOptions):
    """ATS for stained tissue: with the defaults one cell of attention is 128 µm, the side of one tile.

    The default estimator and gradient are a little biased, for less noise; exact on average is estimator "sequential"
    with gradient "unbiased".
    """

    encoder: TileEncoder = option(TileEncoder(), "the network that turns a tile into a feature")
    attention_widths: tuple[int, ...] = option(
        (24, 48, 64), "channels of the attention network's stages, each halving the overview", low=1, high=65_536
    )
    context: int = option(7, "side of the attention network's depthwise kernel, in cells", low=1, high=8192)


@dataclass(frozen=True, kw_only=True)
class AtsMnistOptions(SamplingOptions):
    """ATS as in the paper on Megapixel MNIST: canvases of 1500² seen at 180², tiles of 50²; scales in pixels."""

    tile_size: int = other_default(SamplingOptions, "tile_size", 50, "Katharopoulos & Fleuret, section 4.2")
    tile_mpp: float = other_default(SamplingOptions, "tile_mpp", 1.0, "Katharopoulos & Fleuret, section 4.2")
    overview_mpp: float = other_default(
        SamplingOptions, "overview_mpp", 1500 / 180, "Katharopoulos & Fleuret, section 4.2"
    )
    draws: int = other_default(SamplingOptions, "draws", 10, "Katharopoulos & Fleuret, section 4.2")
    estimator: str = other_default(SamplingOptions, "estimator", "sequential", "Katharopoulos & Fleuret, section 3.2")
    gradient: str = other_default(
        SamplingOptions,
        "gradient",
        "unbiased",
        "Katharopoulos & Fleuret, section 3.3; the authors trained with as-released",
    )
    floor: float = other_default(SamplingOptions, "floor", 1e-5)
    channels: int = option(1, "channels of the images", low=1, high=65_536)
    networks: str = option(
        "paper",
        'the networks: "paper", or "fast": a strided encoder, attention on cells of 3 pixels of the overview that hold '
        "ink, and a scaled classifier",
        choices=("paper", "fast"),
    )
    earlier_draws: tuple[int, ...] = option(
        (),
        "tiles read per slide in the earlier parts of training, which is cut into equal parts; the last one has draws",
        low=1,
        high=100_000,
    )


class _Seen(NamedTuple):
    """What the overview shows: attention (b, K), its logits (b, K), the grid, class scores (b, classes) or None."""

    attention: Tensor
    logits: Tensor
    grid: Grid
    overview_logits: Tensor | None


class AttentionSampling(nn.Module):
    """Attention over the overview, `draws` tiles sampled from it, their weighted mean feature, a classifier.

    Args:
        attention: looks at the overview.
        encoder: turns a tile into a feature.
        classifier: (..., d) -> (..., classes).
        preprocess: (m, c, h, w) pixels of any dtype -> floats on the model's device.
        options: all numbers.
        evidence: attention features (b, d', gh, gw) -> class scores of each cell (b, classes, gh, gw), for the loss
            on the overview; None leaves that loss out, as the paper does.
    """

    map_stride: int = 1

    def __init__(
        self,
        attention: OverviewNet,
        encoder: Encoder,
        classifier: nn.Module,
        preprocess: nn.Module,
        options: SamplingOptions,
        evidence: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.attention, self.encoder, self.classifier, self.preprocess = attention, encoder, classifier, preprocess
        self.options, self.evidence = options, evidence
        self.tile_mpp, self.overview_mpp, self.draws = options.tile_mpp, options.overview_mpp, options.draws
        self.overview_pixels = options.overview_pixels
        self.target: Aim = OneLabel()
        check_overview(options.overview_pixels, attention)

    def forward(self, source: TileSource, generator: Generator | None = None) -> Output:
        """Look at the overview, read the drawn tiles in one request, classify.

        Args:
            source: b images side by side; all of them get as many draws as the one with the fewest cells allows.
            generator: of the draw. Without one, training uses torch's global generator and eval mode a fixed seed.

        Returns:
            logits (b, classes), one glimpse and one attention map an image, the spread, and as terms: `attention`
            (b, K), `cells`, `coefficients`, `valid` (b, n), `features` (b, n, d), `mean` (b, d), and
            `overview_logits` (b, classes), None without `evidence`.

        Raises:
            NoTissueError: an image has no cell of tissue.
            TileReadError: not one tile of some image could be read.
        """
        seen = self._look(source)
        drawn = self.draw(seen.attention, generator)
        tiles = self._tiles(source, seen.grid, drawn.cells)
        features, valid = self._reading(source, tiles, part=len(tiles)).first(len(tiles))
        drawn = drawn._replace(coefficients=without_failed(drawn.coefficients, valid), chance=drawn.chance * valid)
        at_cells = seen.attention.gather(-1, drawn.cells)
        mean = estimate(features, at_cells, drawn.coefficients, self.options.gradient if self._at_random else "centred")
        return self._output(seen, tiles, drawn, features, valid, mean)

    @property
    def quantity(self) -> str:
        """What is estimated, for the model card."""
        if self._at_random:
            return (
                "The mean feature of all tiles of tissue, weighted by attention. Training and prediction estimate it"
                f" from {self.draws} tiles drawn at random with these weights, `--tolerance` from as many as it takes,"
                " `--exact` computes it."
            )
        return f"{_TOP.format(self.draws).capitalize()}, in training and prediction alike. Nothing is drawn at random."

    @property
    def other_quantity(self) -> str:
        """See `protocols.Estimating`."""
        return "" if self._at_random else f'inference "top" is {_TOP.format(self.draws)}, not of all'

    @torch.no_grad()
    def exact(self, source: TileSource) -> Output:
        """Compute Φ = Σ_i a_i f_i itself: the tiles of all cells with attention are read. For eval mode.

        A tile that cannot be read leaves the sum.

        Raises:
            InputError: several images, or the prediction is of another quantity (`other_quantity`).
            NoTissueError: the image has no cell of tissue.
            TileReadError: not one tile could be read.
        """
        check_quantity(self)
        check_one_image(source)
        seen = self._look(source)
        cells = seen.attention[0].nonzero().T
        tiles = self._tiles(source, seen.grid, cells)
        features, valid = self._reading(source, tiles).first(len(tiles))
        weights = without_failed(seen.attention.gather(-1, cells), valid)
        bound = DrawnCells(cells, weights, 0 * weights)
        return self._output(seen, tiles, bound, features, valid, mean_of(features, weights))

    @torch.no_grad()
    def until(
        self,
        source: TileSource,
        tolerance: float,
        budget: int,
        generator: Generator | None = None,
        unread: float | None = None,
    ) -> Output:
        """Read `draws` more tiles a round, none twice, until error and unread mass are small enough. For eval mode.

        How, and why not by averaging independent draws: `rounds.read_until`. The estimator is always
        "normalised-threshold": all of them estimate the same sum.

        Args:
            source: one image.
            tolerance: standard error of the winning class's probability to stop at.
            budget: tiles; a round that would exceed it is not begun.
            generator: of the draw; a fixed seed where None.
            unread: attention mass of what was not read to stop at; `tolerance` where None.

        Raises:
            InputError: several images, a limit out of range, or `other_quantity`; others as in `forward`.
        """
        check_quantity(self)
        check_one_image(source)
        stop = limits(tolerance, unread, budget, self.draws)
        seen = self._look(source)
        most = most_tiles(seen.attention, self.draws, budget)
        draw = draw_without_replacement(seen.attention, most, seeded(generator))
        tiles = self._tiles(source, seen.grid, draw.cells)
        reading = self._reading(source, tiles)
        drawn, features, valid = read_until(
            reading, seen.attention, draw, self.classifier, self.draws, stop, self.target
        )
        read = tiles.select(slice(features.shape[1]))
        return self._output(seen, read, drawn, features, valid, mean_of(features, drawn.coefficients))

    @property
    def uncertifiable(self) -> str:
        """See `protocols.Certifying`."""
        return self.other_quantity or uncertifiable(self.encoder, self.classifier, self.target)

    @torch.no_grad()
    def certified(
        self,
        source: TileSource,
        level: float,
        budget: int,
        generator: Generator | None = None,
        calibration: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> Output:
        """Read tiles until the label that `exact` would give is settled. For eval mode.

        What is settled, and why: docs/certificate.md. Arguments as in `protocols.Certifying`.

        Raises:
            InputError: several images, a wish that makes no sense, or `uncertifiable`; others as in `forward`.
        """
        check_certifiable(self, level, budget)
        check_one_image(source)
        seen, model = self._look(source), prepared(self.encoder, self.classifier, calibration)
        encode = partial(encoded, source, preprocess=self.preprocess, encoder=self.encoder)
        cells = Cells(seen.attention[0], partial(self._tiles, source, seen.grid), encode, model.head)
        read = read_until_settled(cells, model, level, budget, generator)
        where, like = cells.cells[torch.from_numpy(read.tiles).to(cells.cells.device)][None], seen.attention
        drawn = DrawnCells(where, read.weights.to(like), read.chance.to(like))
        features, valid = cells.features(), read.valid.to(like.device)
        mean = mean_of(features, read.weights.to(features.device))
        output = self._output(seen, self._tiles(source, seen.grid, where), drawn, features, valid, mean, random=False)
        return replace(output, certificate=read.certificate)

    def _look(self, source: TileSource) -> _Seen:
        logits, scores, grid = self.score(source)
        attention = smoothed_softmax(logits, self.options.floor)
        return _Seen(attention, logits, grid, None if scores is None else attended(scores, attention))

    def _output(
        self,
        seen: _Seen,
        tiles: TileSet,
        drawn: DrawnCells,
        features: Tensor,
        valid: Tensor,
        mean: Tensor,
        random: bool = True,
    ) -> Output:
        """Return the output; `random` is False where tiles that were drawn stand beside others that were not."""
        spread = spread_of(self.classifier, features, drawn.coefficients, drawn.chance, self.target)
        at_cells = drawn.cells
        return Output(
            logits=in_float32(self.classifier, mean.to(features.dtype)),
            glimpses=glimpses(
                tiles, drawn.coefficients, seen.attention.gather(-1, at_cells), valid, drawn=~spread.isnan() & random
            ),
            maps=maps(seen.attention, seen.logits, seen.grid),
            spread=spread,
            unread_mass=unread_mass(seen.attention, drawn.cells, valid),
            tile_evidence=tile_evidence(self.classifier, features) if self.target.kind == KIND else None,
            pooled=mean,
            terms={
                "attention": seen.attention,
                "cells": drawn.cells,
                "coefficients": drawn.coefficients,
                "valid": valid,
                "features": features,
                "mean": mean,
                "overview_logits": seen.overview_logits,
            },
        )

    def score(self, source: TileSource) -> tuple[Tensor, Tensor | None, Grid]:
        """Return what the overview shows of every cell, and the grid of cells.

        Returns:
            Logits (b, K), −inf outside the tissue; what `evidence` says, (b, classes, rows, cols), or None; the grid.

        Raises:
            NoTissueError: an image has no cell of tissue.
        """
        return judge_cells(source, self.attention, self.preprocess, self.overview_mpp, self.evidence)

    def draw(self, attention: Tensor, generator: Generator | None = None) -> DrawnCells:
        """Return the cells of one pass over attention (b, K): drawn at random, or with "top" those with most of it."""
        n = min(self.draws, int(available(attention).min()))
        if not self._at_random:
            return draw_top(attention, n)
        return draw_sample(attention, n, self.options.estimator, generator if self.training else seeded(generator))

    @property
    def _at_random(self) -> bool:
        return self.options.inference == "sample"

    def loss(self, output: Output, target: Tensor) -> Tensor:
        """Return cross-entropy + ρ·(1/b) Σ a log(a + 1e-6) + the cross-entropy on the overview, a scalar; target (b,).

        Another target than one label has its own loss in place of both cross-entropies. See docs/methods/ats.md §4.
        """
        total = self.target.loss(output.logits.float(), target)
        overview: Tensor | None = output.terms["overview_logits"]
        if overview is not None:
            total = total + self.options.overview_weight * self.target.loss(overview, target)
        return total + self.options.entropy_weight * negative_entropy(output.terms["attention"])

    def _tiles(self, source: TileSource, grid: Grid, cells: Tensor) -> TileSet:
        size, downsample = (self.options.tile_size, self.options.tile_size), source.downsample(self.tile_mpp)
        return source.aligned(TileSet(grid.locations(cells.cpu().numpy(), size, downsample), size, downsample))

    def _reading(self, source: TileSource, tiles: TileSet, part: int = PART) -> Reading:
        return Reading(source, tiles, self.preprocess, self.encoder, part)


class FallingAttentionSampling(FallingDraws, AttentionSampling):
    """Attention sampling whose draws fall while it learns."""


def _ats(classes: int, options: AtsOptions) -> AttentionSampling:
    encoder = tile_encoder(options.encoder, options.channels)
    shape = options.attention_widths, options.context
    attention = TissueAttentionNet(options.channels, *shape, colours=options.colours())
    classifier, evidence = ScaledLinear(encoder.dim, classes), nn.Conv2d(attention.dim, classes, 1)
    return AttentionSampling(attention, encoder, classifier, options.preprocess(), options, evidence)


def _ats_mnist(classes: int, options: AtsMnistOptions) -> AttentionSampling:
    channels, plain = options.channels, Normalise((0.0,) * options.channels, (1.0,) * options.channels)
    if options.networks == "paper":
        parts = MnistAttentionNet(channels), MnistEncoder(channels), nn.Linear(MnistEncoder.dim, classes)
        return FallingAttentionSampling(*parts, plain, options).let_fall(options.earlier_draws)
    encoder = StridedMnistEncoder(channels)
    classifier = ScaledLinear(encoder.dim, classes, GENTLE)
    model = FallingAttentionSampling(InkAttentionNet(channels), encoder, classifier, plain, options)
    return model.let_fall(options.earlier_draws)


PAPER = (
    'Katharopoulos & Fleuret, "Processing Megapixel Images with Deep Attention-Sampling Models", ICML 2019, '
    "https://arxiv.org/abs/1905.03711"
)
ats = Method(
    AtsOptions, _ats, "ATS for stained tissue: one look at the overview, a few tiles drawn from it.", PAPER, True
)
ats_mnist = Method(
    AtsMnistOptions, _ats_mnist, "ATS with the paper's networks and numbers for Megapixel MNIST.", PAPER, True
)
