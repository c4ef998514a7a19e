"""ATS: one dense look at the overview, a few tiles at full resolution, one class.

Katharopoulos & Fleuret, "Processing Megapixel Images with Deep Attention-Sampling Models", ICML 2019,
https://arxiv.org/abs/1905.03711. Where we differ from the paper: attention is confined to tissue; the draw at test
time is repeatable; a tile that cannot be read leaves the bag; a cell's tile may lie off its centre by less than half a
tile (`TileSource.aligned`), in every draw and in the exact sum alike; the gradient is the released one only if asked
for. Exact on average is `estimator="sequential", gradient="unbiased"`; the defaults trade that for less noise,
with a bias of the order of one over the draws in value and gradient (see `attention.expectation`).

One thing is added, and only with `evidence`: while training, the attention-weighted mean of what the overview itself
shows is classified too. With small lesions and labels for whole slides only, sampled tiles hardly ever show one at
first, and the paper's loss stands still for hundreds of epochs; the overview's cells are all seen in every step, so
attention finds its way at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

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
from wsi_attention.errors import InputError, NoTissueError
from wsi_attention.geometry import OVERVIEW_PIXELS, Grid
from wsi_attention.methods.options import one_of
from wsi_attention.methods.outputs import glimpses, maps
from wsi_attention.methods.overview import check_overview, look_over
from wsi_attention.methods.rounds import (
    PART,
    Reading,
    check_one_image,
    check_quantity,
    limits,
    mean_of,
    most_tiles,
    read_until,
    spread_of,
)
from wsi_attention.nn.attention_nets import MnistAttentionNet, TissueAttentionNet
from wsi_attention.nn.encoders import MnistEncoder, build_encoder
from wsi_attention.nn.heads import ScaledLinear, attended, tile_evidence
from wsi_attention.nn.preprocess import HE_MEAN, HE_STD, Normalise, in_float32
from wsi_attention.protocols import TileSource
from wsi_attention.structures import Output, TileSet

INFERENCE = ("sample", "top")
_TOP = "the mean feature of the {} most attended tiles, weighted by attention"
EVAL_SEED = 0
"""Seeds the draw in eval mode where the caller passes no generator."""


class _Seen(NamedTuple):
    """What the overview shows: attention (b, K) and its logits, the grid, class scores (b, classes) or None."""

    attention: Tensor
    logits: Tensor
    grid: Grid
    overview_logits: Tensor | None


class AttentionSampling(nn.Module):
    """Attention over the overview, `draws` tiles sampled from it, their weighted mean feature, a classifier.

    Args:
        attention: (b, c, h, w) -> logits (b, gh, gw) and features (b, d', gh, gw); gh = h / stride, gw = w / stride;
            has an attribute `stride`.
        encoder: (m, c, h, w) -> (m, d), rows of length 1.
        classifier: (..., d) -> (..., classes).
        preprocess: (m, c, h, w) pixels of any dtype -> floats on the model's device.
        tile_size: side of a tile in pixels.
        tile_mpp: µm per pixel of the tiles.
        overview_mpp: µm per pixel of the overview; the source may take a coarser one for a very large slide.
        draws: N, tiles per image; fewer where an image has fewer cells of tissue.
        estimator: one of `ESTIMATORS`; all are unbiased but "normalised-threshold".
        gradient: one of `GRADIENTS`. "unbiased" is what it says with any unbiased estimator. "centred" is biased, has
            less noise, divides the estimate by Σ c, and needs two draws or more. The last two reproduce released
            codes, are biased, and need estimator "sequential".
        inference: what is estimated, in training and prediction alike. "sample", as in the paper: the sum over all
            cells, from random draws, seeded in eval mode. "top": the sum over the cells with the highest attention,
            weights renormalised; another quantity, nothing random, its gradient exact with the cells held fixed.
        entropy_weight: ρ of the loss; above 0 it pushes attention towards uniform.
        floor: s, share of the attention that is spread evenly over the tissue.
        evidence: attention features (b, d', gh, gw) -> class scores of each cell (b, classes, gh, gw), for the loss
            on the overview; None leaves that loss out, as the paper does.
        overview_weight: factor on the loss on the overview.
        overview_pixels: the most pixels of the overview in eval mode; above `geometry.OVERVIEW_PIXELS` it is seen in
            strips. Training holds it whole, so it never sees more than those.
    """

    def __init__(
        self,
        attention: nn.Module,
        encoder: nn.Module,
        classifier: nn.Module,
        preprocess: nn.Module,
        *,
        tile_size: int,
        tile_mpp: float,
        overview_mpp: float,
        draws: int,
        estimator: str = "normalised-threshold",
        gradient: str = "centred",
        inference: str = "sample",
        entropy_weight: float = 1e-4,
        floor: float = 1e-4,
        evidence: nn.Module | None = None,
        overview_weight: float = 1.0,
        overview_pixels: int = OVERVIEW_PIXELS,
    ) -> None:
        super().__init__()
        one_of("estimator", estimator, ESTIMATORS)
        one_of("gradient", gradient, GRADIENTS)
        one_of("inference", inference, INFERENCE)
        if gradient.startswith("as-") and estimator != "sequential":
            raise InputError(f"gradient {gradient!r} belongs to estimator 'sequential', not {estimator!r}")
        if gradient == "centred" and draws == 1:
            raise InputError("gradient 'centred' is always 0 with draws 1; take 2 or more, or gradient 'unbiased'")
        if draws < 1 or tile_size < 1 or tile_mpp <= 0 or overview_mpp <= 0 or not 0 <= floor < 1:
            raise InputError(
                f"draws and tile_size must be at least 1, mpp above 0 and floor in [0, 1); got draws {draws}, "
                f"tile_size {tile_size}, tile_mpp {tile_mpp}, overview_mpp {overview_mpp}, floor {floor}"
            )
        self.attention, self.encoder, self.classifier, self.preprocess = attention, encoder, classifier, preprocess
        self.tile_size, self.tile_mpp, self.overview_mpp = tile_size, tile_mpp, overview_mpp
        self.draws, self.estimator, self.gradient, self.inference = draws, estimator, gradient, inference
        self.entropy_weight, self.floor = entropy_weight, floor
        check_overview(overview_pixels, attention)
        self.evidence, self.overview_weight, self.overview_pixels = evidence, overview_weight, overview_pixels

    def forward(self, source: TileSource, generator: Generator | None = None) -> Output:
        """Looks at the overview, reads the drawn tiles in one request, classifies.

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
        mean = estimate(features, at_cells, drawn.coefficients, self.gradient if self._at_random else "centred")
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
        """Σ_i a_i f_i itself, which every estimator estimates: all cells with attention are read. For eval mode.

        A tile that cannot be read leaves the sum. Errors as in `forward`, and InputError for several images or a model
        with `other_quantity`.
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
        """`draws` tiles more of one image a round, none twice, until error and unread mass are small. For eval mode.

        How, and why not by averaging independent draws: `rounds.read_until`. The rule is "normalised-threshold",
        whatever the model's own: all estimate the same sum.

        Args:
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
        draw = draw_without_replacement(seen.attention, most, generator or Generator().manual_seed(EVAL_SEED))
        tiles = self._tiles(source, seen.grid, draw.cells)
        reading = self._reading(source, tiles)
        drawn, features, valid = read_until(reading, seen.attention, draw, self.classifier, self.draws, stop)
        read = tiles.select(slice(features.shape[1]))
        return self._output(seen, read, drawn, features, valid, mean_of(features, drawn.coefficients))

    def _look(self, source: TileSource) -> _Seen:
        logits, scores, grid = self.score(source)
        if bool((logits == -torch.inf).all(dim=-1).any()):
            raise NoTissueError(f"no tissue in any of the {grid.rows} × {grid.cols} cells: there is nothing to look at")
        attention = smoothed_softmax(logits, self.floor)
        return _Seen(attention, logits, grid, None if scores is None else attended(scores, attention))

    def _output(
        self, seen: _Seen, tiles: TileSet, drawn: DrawnCells, features: Tensor, valid: Tensor, mean: Tensor
    ) -> Output:
        spread, at_cells = spread_of(self.classifier, features, drawn.coefficients, drawn.chance), drawn.cells
        return Output(
            logits=in_float32(self.classifier, mean.to(features.dtype)),
            glimpses=glimpses(
                tiles, drawn.coefficients, seen.attention.gather(-1, at_cells), valid, drawn=~spread.isnan()
            ),
            maps=maps(seen.attention, seen.logits, seen.grid),
            spread=spread,
            unread_mass=unread_mass(seen.attention, drawn.cells, valid),
            terms={
                "attention": seen.attention,
                "cells": drawn.cells,
                "coefficients": drawn.coefficients,
                "valid": valid,
                "features": features,
                "mean": mean,
                "overview_logits": seen.overview_logits,
                "tile_evidence": tile_evidence(self.classifier, features),
            },
        )

    def score(self, source: TileSource) -> tuple[Tensor, Tensor | None, Grid]:
        """Logits (b, K) of all cells, −inf outside the tissue; what `evidence` says of them (b, classes, rows, cols);
        the grid they lie on."""
        stride = int(self.attention.stride)  # type: ignore[arg-type]
        downsample = source.overview_downsample(self.overview_mpp)
        grid = Grid.covering(source.extent, (stride * downsample, stride * downsample))
        tissue = source.tissue(grid)
        logits, scores = look_over(source, self.attention, self.preprocess, (grid, downsample), tissue, self.evidence)
        return logits.float().masked_fill(~tissue.to(logits.device), -torch.inf).flatten(1), scores, grid

    def draw(self, attention: Tensor, generator: Generator | None = None) -> DrawnCells:
        """Cells for one pass over attention (b, K), by what is estimated: "sample" draws at random, "top" does not."""
        n = min(self.draws, int(available(attention).min()))
        if not self._at_random:
            return draw_top(attention, n)
        if generator is None and not self.training:
            generator = Generator().manual_seed(EVAL_SEED)
        return draw_sample(attention, n, self.estimator, generator)

    @property
    def _at_random(self) -> bool:
        return self.inference == "sample"

    def loss(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy + ρ·(1/b) Σ a log(a + 1e-6) (ATS §3.4) + that on the overview, a scalar; target (b,)."""
        total = functional.cross_entropy(output.logits.float(), target)
        overview: Tensor | None = output.terms["overview_logits"]
        if overview is not None:
            total = total + self.overview_weight * functional.cross_entropy(overview, target)
        return total + self.entropy_weight * negative_entropy(output.terms["attention"])

    def _tiles(self, source: TileSource, grid: Grid, cells: Tensor) -> TileSet:
        size, downsample = (self.tile_size, self.tile_size), source.downsample(self.tile_mpp)
        return source.aligned(TileSet(grid.locations(cells.cpu().numpy(), size, downsample), size, downsample))

    def _reading(self, source: TileSource, tiles: TileSet, part: int = PART) -> Reading:
        return Reading(source, tiles, self.preprocess, self.encoder, part)


def ats(
    classes: int,
    *,
    tile_size: int = 256,
    tile_mpp: float = 0.5,
    overview_mpp: float = 16.0,
    draws: int = 32,
    mean: Sequence[float] = HE_MEAN,
    std: Sequence[float] = HE_STD,
    encoder: str = "small",
    encoder_widths: Sequence[int] = (24, 48, 96, 128),
    features: int = 128,
    pool: str = "mean+max",
    encoder_frozen: bool = False,
    attention_widths: Sequence[int] = (24, 48, 64),
    context: int = 7,
    estimator: str = "normalised-threshold",
    gradient: str = "centred",
    inference: str = "sample",
    entropy_weight: float = 1e-4,
    floor: float = 1e-4,
    overview_weight: float = 1.0,
    overview_pixels: int = OVERVIEW_PIXELS,
) -> AttentionSampling:
    """ATS for stained tissue: with the defaults one cell of attention is 128 µm, the side of one tile.

    Arguments not listed here are `AttentionSampling`'s. The default estimator and gradient are biased a little, for
    less noise; exact on average is estimator "sequential" with gradient "unbiased".

    Args:
        classes: number of classes.
        tile_size: side of a tile in pixels.
        tile_mpp: µm per pixel of the tiles.
        overview_mpp: µm per pixel of the overview; best tile_size·tile_mpp over 2 to the number of attention_widths.
        draws: tiles read per slide.
        mean: of each channel, of 1.
        std: of each channel, of 1.
        encoder: a name that `nn.encoder_choice.build_encoder` knows.
        encoder_widths: channels of the small encoder's stages.
        features: length of the small encoder's feature.
        pool: "mean", "max" or "mean+max", of the small encoder.
        encoder_frozen: whether training leaves the encoder's weights as they are.
        attention_widths: channels of the attention network's stages, each halving the overview.
        context: side of the attention network's depthwise kernel, in cells.
        overview_weight: factor on the loss on the overview; 0 is the paper's loss.
        overview_pixels: the most pixels of the overview at prediction; larger slides are seen coarser than
            `overview_mpp`. Above 4,000,000 the overview is seen in strips. In training it has 4,000,000 at most.

    Raises:
        InputError: an argument is out of range or names nothing.
    """
    network = build_encoder(
        encoder, len(mean), widths=encoder_widths, features=features, pool=pool, frozen=encoder_frozen
    )
    attention = TissueAttentionNet(len(mean), attention_widths, context)
    return AttentionSampling(
        attention,
        network,
        ScaledLinear(network.dim, classes),
        Normalise(mean, std),
        tile_size=tile_size,
        tile_mpp=tile_mpp,
        overview_mpp=overview_mpp,
        draws=draws,
        estimator=estimator,
        gradient=gradient,
        inference=inference,
        entropy_weight=entropy_weight,
        floor=floor,
        evidence=nn.Conv2d(attention.dim, classes, 1),
        overview_weight=overview_weight,
        overview_pixels=overview_pixels,
    )


def ats_mnist(
    classes: int = 10,
    *,
    tile_size: int = 50,
    tile_mpp: float = 1.0,
    overview_mpp: float = 1500 / 180,
    draws: int = 10,
    channels: int = 1,
    estimator: str = "sequential",
    gradient: str = "unbiased",
    inference: str = "sample",
    entropy_weight: float = 1e-4,
    floor: float = 1e-5,
) -> AttentionSampling:
    """ATS with the paper's networks and numbers for Megapixel MNIST: 1500² canvases seen at 180², tiles of 50².

    Scales are in canvas pixels (a source with mpp 1). The classifier is one linear layer, as in the paper. Arguments
    not listed here are `AttentionSampling`'s.

    Args:
        classes: number of classes.
        tile_size: side of a tile in pixels.
        tile_mpp: scale of the tiles.
        overview_mpp: scale of the overview.
        draws: tiles read per image.
        channels: of the images.
        gradient: "as-released" for what the authors trained with.

    Raises:
        InputError: an argument is out of range or names nothing.
    """
    return AttentionSampling(
        MnistAttentionNet(channels),
        MnistEncoder(channels),
        nn.Linear(MnistEncoder.dim, classes),
        Normalise((0.0,) * channels, (1.0,) * channels),
        tile_size=tile_size,
        tile_mpp=tile_mpp,
        overview_mpp=overview_mpp,
        draws=draws,
        estimator=estimator,
        gradient=gradient,
        inference=inference,
        entropy_weight=entropy_weight,
        floor=floor,
    )
