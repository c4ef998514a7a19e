"""Grow: attention draws tiles, what they show decides what they count for and where to read on, and attention learns.

The method of this package, put together from known parts: attention sampling (Katharopoulos & Fleuret, ICML 2019),
gated attention over what tiles show (Ilse et al., ICML 2018), and adaptive cluster sampling (Thompson, JASA 1990),
which reads the neighbours of what was found. Its mathematics and what each part brings: docs/methods/grow.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from wsi_attention.attention.balanced import Spread, draw_balanced
from wsi_attention.attention.expectation import inclusion, unread_mass
from wsi_attention.attention.sampling import available, draw_without_replacement, smoothed_softmax
from wsi_attention.attention.spread import negative_entropy
from wsi_attention.errors import InputError
from wsi_attention.geometry import Grid
from wsi_attention.methods.certifying import check_certifiable, uncertifiable
from wsi_attention.methods.falling import FallingDraws
from wsi_attention.methods.grow.bag import TileBag
from wsi_attention.methods.grow.certifying import Wish, certify
from wsi_attention.methods.grow.counting import Counts, attention_loss, counts, shares
from wsi_attention.methods.grow.credit import brought
from wsi_attention.methods.grow.foresight import at, blank, foreseen, gated, missed
from wsi_attention.methods.grow.judge import TileGate, alone, held, in_context, said
from wsi_attention.methods.grow.neighbours import context, next_cells
from wsi_attention.methods.grow.options import LEFT_OUT, SHOWN, GrowingOptions, GrowMnistOptions, GrowOptions
from wsi_attention.methods.method import Method
from wsi_attention.methods.outputs import glimpses, maps
from wsi_attention.methods.overview import check_overview, judge_cells
from wsi_attention.methods.reading import encoded
from wsi_attention.methods.rounds import (
    PART,
    check_one_image,
    limits,
    mean_of,
    most_tiles,
    seeded,
    spread_of,
)
from wsi_attention.nn.attention_nets import TissueAttentionNet
from wsi_attention.nn.blocks import Encoder, OverviewNet
from wsi_attention.nn.encoders import StridedMnistEncoder
from wsi_attention.nn.heads import GENTLE, ScaledLinear, attended, tile_evidence
from wsi_attention.nn.ink_attention import InkAttentionNet
from wsi_attention.nn.known_features import tile_encoder
from wsi_attention.nn.preprocess import Normalise, in_float32
from wsi_attention.protocols import Aim, TileSource
from wsi_attention.structures import Output, TileSet
from wsi_attention.targets.one_label import KIND, OneLabel

LEAST_SAID = 1e-3
"""Share of the most that a tile may say for some class that it may say for every class."""


class Seen(NamedTuple):
    """What the overview shows: attention (b, K), its logits (b, K), the grid, class scores (b, classes) or None, and
    the features (b, a, K) from which it foresees tiles, or None."""

    attention: Tensor
    logits: Tensor
    grid: Grid
    overview_logits: Tensor | None
    features: Tensor | None


class Judged(NamedTuple):
    """What tiles say: the feature of each (b, n, d'), what each is judged by (b, n, d), log ω (b, n), which are valid
    (b, n), what they stand for."""

    own: Tensor
    seen: Tensor
    log_gate: Tensor
    valid: Tensor
    counts: Counts


class GrowingAttention(nn.Module):
    """Attention draws tiles, a gate on what they show weighs them, the neighbours of the most telling ones are read.

    Args:
        attention: looks at the overview.
        encoder: turns a tile into a feature.
        gate: what tiles are judged by (..., d) -> log ω (...), at most 0; None counts every tile with its attention.
        classifier: (..., d) -> (..., classes), d the length of what tiles are judged by.
        preprocess: (m, c, h, w) pixels of any dtype -> floats on the model's device.
        options: all numbers.
        evidence: attention features (b, a, gh, gw) -> class scores of each cell (b, classes, gh, gw).
    """

    map_stride: int = 1

    def __init__(
        self,
        attention: OverviewNet,
        encoder: Encoder,
        gate: nn.Module | None,
        classifier: nn.Module,
        preprocess: nn.Module,
        options: GrowingOptions,
        evidence: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.attention, self.encoder, self.gate = attention, encoder, gate
        self.classifier, self.preprocess, self.evidence = classifier, preprocess, evidence
        self.foresight = blank(attention.dim, encoder.dim) if options.foresee_weight else None
        self.trust = nn.Parameter(torch.ones(())) if self.foresight is not None and gate is not None else None
        self.options, self.draws = options, options.draws
        self.tile_mpp, self.overview_mpp = options.tile_mpp, options.overview_mpp
        self.overview_pixels = options.overview_pixels
        self.target: Aim = OneLabel()
        self._seen_by = in_context if options.around and options.side > 1 else alone
        check_overview(options.overview_pixels, attention)

    def forward(self, source: TileSource, generator: Generator | None = None) -> Output:
        """Look at the overview, read the drawn tiles, then in rounds what lies around the most telling ones; classify.

        Args:
            source: b images side by side; all of them get as many tiles as the one with the fewest cells allows.
            generator: of the draw. Without one, training uses torch's global generator and eval mode a fixed seed.

        Returns:
            logits (b, classes), one glimpse and one attention map an image, the spread, and as terms `attention`
            (b, K), `cells`, `coefficients`, `weights`, `chance`, `log_gate`, `valid` (b, n), `features` (b, n, d'),
            `mean` (b, d), `foreseen` and `tiles` (b, n, d''), None without `foresight`, and `overview_logits`
            (b, classes), None without `evidence`.

        Raises:
            NoTissueError: an image has no cell of tissue.
            TileReadError: not one tile of some image could be read.
        """
        seen, bag = self._begin(source)
        n = min(self.draws, int(available(seen.attention).min()))
        draw = self._draw(seen, seen.attention, n, generator if self.training else seeded(generator))
        bag.read(draw.cells)
        self._grow(seen, bag, draw, self.options.growth * self.options.rounds)
        return self._output(seen, bag, self._judge(seen, bag, draw), random=len(bag) == n)

    @property
    def quantity(self) -> str:
        """What is estimated, for the model card."""
        grown = self.options.rounds * self.options.growth
        shown = " and by a gate on what each of them and its neighbours show" if self.gate is not None else ""
        return (
            f"The mean feature of all tiles of tissue, weighted by attention{shown}. Training and prediction estimate"
            f" it from {self.draws} tiles drawn by attention and up to {grown} around"
            " the most telling ones, `--tolerance` from as many as it takes, `--exact` computes it."
        )

    @property
    def other_quantity(self) -> str:
        """See `protocols.Estimating`."""
        return ""

    @torch.no_grad()
    def exact(self, source: TileSource) -> Output:
        """Compute Σ a_i ω_i x_i / Σ a_i ω_i itself: every tile of tissue is read, in parts. For eval mode.

        Raises:
            InputError: several images.
            NoTissueError: the image has no cell of tissue.
            TileReadError: not one tile could be read.
        """
        check_one_image(source)
        seen, bag = self._begin(source)
        bag.read(seen.attention[0].nonzero().T)
        return self._output(seen, bag, self._judge(seen, bag, None), random=False)

    @torch.no_grad()
    def until(
        self,
        source: TileSource,
        tolerance: float,
        budget: int,
        generator: Generator | None = None,
        unread: float | None = None,
    ) -> Output:
        """Draw and grow, round after round, until error and unread mass are small enough. For eval mode.

        Each round draws from what is unread, as many tiles as were read before, so that half of the tiles at least
        stand for what nobody has read; what was read before is known and stands for itself.

        Args:
            source: one image.
            tolerance: standard error of the winning class's probability to stop at.
            budget: tiles; neither a draw nor growing goes beyond it.
            generator: of the draw; a fixed seed where None.
            unread: attention mass of what was not read to stop at; `tolerance` where None.

        Raises:
            InputError: several images, or a limit out of range; others as in `forward`.
        """
        check_one_image(source)
        stop, noise = limits(tolerance, unread, budget, self.draws), seeded(generator)
        seen, bag = self._begin(source)
        most = most_tiles(seen.attention, self.draws, budget)
        rounds, n, unread_attention = 0, min(self.draws, most), seen.attention
        while True:
            draw = self._draw(seen, unread_attention, n, noise)
            bag.read(draw.cells)
            self._grow(seen, bag, draw, min(self.options.growth * self.options.rounds, most - len(bag)))
            output = self._output(seen, bag, self._judge(seen, bag, draw), random=False)
            rounds, unread_attention = rounds + 1, bag.left(seen.attention)
            left = min(most - len(bag), int(available(unread_attention)))
            if not left or (output.unread_mass is not None and stop.met(output.spread, output.unread_mass, rounds)):
                return output
            n = min(len(bag), left)

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
        """Read tiles, each with its block, until the label that `exact` would give is settled. For eval mode.

        What is settled, and why: docs/methods/grow.md §5. Arguments as in `protocols.Certifying`.

        Raises:
            InputError: several images, a wish that makes no sense, or `uncertifiable`; others as in `forward`.
        """
        side = self.options.side if self._seen_by is in_context else 1
        check_certifiable(self, level, budget, least=side**2)
        check_one_image(source)
        seen, bag = self._begin(source)
        judge = partial(self._judge, seen, bag, None)
        read = certify(
            seen,
            bag,
            judge,
            self.classifier,
            Wish(level, budget, side, self._least_gate, self.options.most),
            generator,
            calibration,
        )
        output = self._output(seen, bag, judge()._replace(counts=read.counts), random=False)
        return replace(output, certificate=read.certificate)

    @property
    def _least_gate(self) -> float:
        if self.gate is None:
            return 1.0
        return self.gate.least if isinstance(self.gate, TileGate) and not self.options.most else 0.0

    @torch.no_grad()
    def said(self, output: Output) -> Tensor:
        """See `protocols.Holding`."""
        told = output.terms
        scores = in_float32(self.classifier, told["features"]).float()
        tiles = said(told["log_gate"], scores).masked_fill(~told["valid"].to(scores.device).unsqueeze(-1), 0.0)
        return tiles.amax(dim=1)

    def hold(self, most: Sequence[float]) -> Mapping[str, object]:
        """See `protocols.Holding`; nothing where the options say already how much, or that tiles are not held."""
        largest = self.options.hold * max(most)
        if self.gate is None or self.options.most or not largest:
            return {}
        allowed = tuple(max(self.options.hold * one, LEAST_SAID * largest) for one in most)
        self.options = replace(self.options, most=allowed)
        return {"most": list(allowed)}

    def _begin(self, source: TileSource) -> tuple[Seen, TileBag]:
        """Return what the overview shows, and a bag without tiles."""
        show = self.evidence if self.foresight is None else self._shown
        logits, scores, grid = judge_cells(source, self.attention, self.preprocess, self.overview_mpp, show)
        features = None
        if scores is not None and self.foresight is not None:
            scores, features = self._parted(scores)
            logits = logits + self._expected(features, logits.isfinite(), grid.shape)
        attention = smoothed_softmax(logits, self.options.floor)
        overview_logits = None if scores is None else attended(scores, attention)
        seen = Seen(attention, logits, grid, overview_logits, features)
        encode = partial(encoded, source, preprocess=self.preprocess, encoder=self.encoder)
        return seen, TileBag(partial(self._tiles, source, grid), encode, max(PART, self.draws))

    def _shown(self, features: Tensor) -> Tensor:
        """Return what `evidence` makes of attention features, and these themselves, (b, classes + a, gh, gw)."""
        return features if self.evidence is None else torch.cat([self.evidence(features), features], dim=1)

    def _parted(self, shown: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the two parts of what `_shown` gave: (b, classes, gh, gw), None without `evidence`, and (b, a, K)."""
        scores, features = shown.split([shown.shape[1] - self.attention.dim, self.attention.dim], dim=1)
        return scores if self.evidence is not None else None, features.flatten(2)

    def _expected(self, features: Tensor, inside: Tensor, shape: tuple[int, int]) -> Tensor:
        """Return what the gate makes of tiles as they are foreseen, as logits (b, K); of no use outside the tissue."""
        if self.gate is None or self.trust is None or self.foresight is None:
            return torch.zeros_like(features[:, 0])
        places = inside.any(dim=0).nonzero().flatten()
        cells, valid = places.expand(len(features), -1), inside[:, places]
        seen, around = features.detach()[:, :, places].transpose(1, 2), None
        if self._seen_by is in_context:
            around = context(seen, cells, valid, shape, self.options.side)
        gate = partial(in_float32, self.gate)  # not held: holding tiles changes no attention
        log_gate = gated(gate, self.foresight, seen, around)
        return self.trust * torch.zeros_like(features[:, 0]).index_copy(1, places, log_gate)

    def _draw(self, seen: Seen, attention: Tensor, n: int, generator: Generator | None) -> Spread:
        """Draw n cells of each image by attention (b, K)."""
        if self.options.balanced:
            return draw_balanced(attention, n, seen.grid.shape, generator)
        draw = draw_without_replacement(attention, n, generator)
        return Spread(draw.cells, inclusion(attention.gather(1, draw.cells), draw.threshold))

    def _grow(self, seen: Seen, bag: TileBag, draw: Spread, budget: int) -> None:
        """Read up to so many tiles in rounds, around the most telling ones and, with `explore`, far from all."""
        for _ in range(self.options.rounds if self.options.side > 1 else 0):
            if not (most := min(self.options.growth, budget)):
                return
            cells = self._next(seen, bag, draw, most)
            bag.read(cells)
            budget -= cells.shape[1]
            if not cells.shape[1] or (self.options.settled and not self._told(seen, bag, draw, cells.shape[1])):
                return

    @torch.no_grad()
    def _next(self, seen: Seen, bag: TileBag, draw: Spread, most: int) -> Tensor:
        """Return the unread cells to read next, (b, most) or fewer."""
        judged = self._judge(seen, bag, draw)
        telling = judged.log_gate.masked_fill(~judged.valid.to(judged.log_gate.device), -torch.inf)
        telling = telling.to(seen.attention.device)
        explore = 0.0 if self.training else self.options.explore
        return next_cells(telling, bag.cells, seen.attention, seen.grid.shape, self.options.side, most, explore)

    @torch.no_grad()
    def _told(self, seen: Seen, bag: TileBag, draw: Spread, last: int) -> bool:
        """Return whether the last tiles have as much of the weight as growing needs to go on, in some image."""
        judged = self._judge(seen, bag, draw)
        weights = self._weights(seen, bag, judged)
        return bool((weights[:, -last:].sum(dim=-1) >= self.options.settled).any())

    def _judge(self, seen: Seen, bag: TileBag, draw: Spread | None) -> Judged:
        """Judge all tiles that were read; where nothing was drawn, each stands for itself."""
        features, valid = bag.found()
        cells, side = bag.cells, self.options.side
        by = self._seen_by(features, cells.to(features.device), valid, seen.grid.shape, side)
        log_gate = self._log_gate(by)
        at_cells, real = seen.attention.gather(-1, cells), valid.to(cells.device)
        known, chance = torch.ones_like(real), torch.ones_like(at_cells, dtype=torch.float64)
        if draw is not None:
            drawn = torch.zeros_like(seen.attention, dtype=torch.bool).scatter(1, draw.cells, True)
            chances = torch.ones_like(seen.attention, dtype=torch.float64).scatter(1, draw.cells, draw.chance.double())
            known, chance = ~drawn.gather(1, cells), chances.gather(1, cells)
        return Judged(features, by, log_gate, valid, counts(at_cells, chance, known, real))

    def _log_gate(self, by: Tensor) -> Tensor:
        """Return log ω (b, n) of tiles that are judged by (b, n, d), held where the options say so."""
        if self.gate is None:
            return by.new_zeros(by.shape[:2])
        log_gate: Tensor = in_float32(self.gate, by).float()
        if not self.options.most:
            return log_gate
        return held(log_gate, in_float32(self.classifier, by).float(), log_gate.new_tensor(self.options.most))

    def _weights(self, seen: Seen, bag: TileBag, judged: Judged) -> Tensor:
        at_cells = seen.attention.gather(-1, bag.cells)
        if self.options.gradient == LEFT_OUT:
            at_cells = at_cells.detach()
        return shares(judged.counts.coefficients, at_cells, judged.log_gate.to(at_cells.device))

    def _output(self, seen: Seen, bag: TileBag, judged: Judged, random: bool) -> Output:
        """Return the output; `random` is True where all tiles were drawn at random and nothing else decided."""
        weights = self._weights(seen, bag, judged).to(judged.seen.device)
        mean = mean_of(judged.seen, weights)
        cells, valid = bag.cells, judged.valid.to(bag.cells.device)
        chance = judged.counts.chance
        spread = spread_of(self.classifier, judged.seen, weights.detach(), chance.to(weights.device), self.target)
        at_cells = seen.attention.gather(-1, cells)
        return Output(
            logits=in_float32(self.classifier, mean),
            glimpses=glimpses(bag.tiles, weights, at_cells, valid, drawn=~spread.isnan() & random),
            maps=maps(seen.attention, seen.logits, seen.grid),
            spread=spread,
            unread_mass=unread_mass(seen.attention, cells, valid),
            tile_evidence=tile_evidence(self.classifier, judged.seen) if self.target.kind == KIND else None,
            pooled=mean,
            terms={
                "attention": seen.attention,
                "cells": cells,
                "coefficients": judged.counts.coefficients,
                "weights": weights,
                "chance": chance,
                "log_gate": judged.log_gate,
                "valid": valid,
                "features": judged.seen,
                "mean": mean,
                "foreseen": self._foreseen(seen, cells),
                "tiles": None if seen.features is None else judged.own,
                "overview_logits": seen.overview_logits,
            },
        )

    def _foreseen(self, seen: Seen, cells: Tensor) -> Tensor | None:
        """Return what the overview foresees of the tiles of cells (b, n), (b, n, d'); None without `foresight`."""
        if seen.features is None or self.foresight is None:
            return None
        return in_float32(partial(foreseen, self.foresight), at(seen.features, cells))

    def loss(self, output: Output, target: Tensor) -> Tensor:
        """Return the loss of docs/methods/grow.md §4, a scalar; target (b,)."""
        told, options = output.terms, self.options
        total = self.target.loss(output.logits.float(), target)
        if told["overview_logits"] is not None:
            total = total + options.overview_weight * self.target.loss(told["overview_logits"], target)
        at_cells = told["attention"].gather(-1, told["cells"])
        if options.learn_weight and self.gate is not None:
            learnt = attention_loss(at_cells, told["coefficients"], told["log_gate"].to(at_cells.device))
            total = total + options.learn_weight * learnt
        if told["foreseen"] is not None:
            total = total + options.foresee_weight * missed(told["foreseen"], told["tiles"], told["valid"])
        if options.gradient == LEFT_OUT and at_cells.requires_grad:
            learnt = (self._brought(told, target).to(at_cells.device) * at_cells.log()).sum(dim=-1).mean()
            total = total + learnt - learnt.detach()
        return total + options.entropy_weight * negative_entropy(told["attention"])

    def _brought(self, told: dict[str, Tensor], target: Tensor) -> Tensor:
        """Return what each tile brings to the expected loss, (b, n)."""

        def losses(means: Tensor) -> Tensor:
            logits = in_float32(self.classifier, means).float()
            many = target.unsqueeze(1).expand(-1, means.shape[1], *target.shape[1:])
            one = torch.func.vmap(lambda row, truth: self.target.loss(row.unsqueeze(0), truth.unsqueeze(0)))
            return one(logits.flatten(0, 1), many.flatten(0, 1)).view(means.shape[:2])

        features = told["features"]
        return brought(losses, features, told["weights"], told["chance"].to(features.device))

    def _tiles(self, source: TileSource, grid: Grid, cells: Tensor) -> TileSet:
        size, downsample = (self.options.tile_size, self.options.tile_size), source.downsample(self.tile_mpp)
        return source.aligned(TileSet(grid.locations(cells.cpu().numpy(), size, downsample), size, downsample))


class FallingGrowingAttention(FallingDraws, GrowingAttention):
    """Growing attention whose draws fall while it learns."""


def _grow(classes: int, options: GrowOptions) -> GrowingAttention:
    encoder = tile_encoder(options.encoder, options.channels)
    shape = options.attention_widths, options.context, options.squares
    attention = TissueAttentionNet(options.channels, *shape, options.colours())
    gate, dim = _gate(classes, encoder.dim, options)
    classifier, evidence = ScaledLinear(dim, classes), nn.Conv2d(attention.dim, classes, 1)
    return GrowingAttention(attention, encoder, gate, classifier, options.preprocess(), options, evidence)


def _grow_mnist(classes: int, options: GrowMnistOptions) -> GrowingAttention:
    channels, encoder = options.channels, StridedMnistEncoder(options.channels)
    gate, dim = _gate(classes, encoder.dim, options)
    plain = Normalise((0.0,) * channels, (1.0,) * channels)
    classifier = ScaledLinear(dim, classes, GENTLE)
    model = FallingGrowingAttention(InkAttentionNet(channels), encoder, gate, classifier, plain, options)
    return model.let_fall(options.earlier_draws)


def _gate(classes: int, dim: int, options: GrowingOptions) -> tuple[nn.Module | None, int]:
    """Return the gate, None where attention alone decides, and the length of what tiles are judged by."""
    if options.most and len(options.most) != classes:
        raise InputError(f"most has {len(options.most)} numbers for {classes} classes; give one a class, or none")
    length = dim * (2 if options.around and options.side > 1 else 1)
    return (TileGate(length, options.hidden) if options.pooling == SHOWN else None), length


SOURCE = (
    "of this package (docs/methods/grow.md), after Katharopoulos & Fleuret, ICML 2019, https://arxiv.org/abs/1905.03711,"
    " and Ilse, Tomczak & Welling, ICML 2018, https://arxiv.org/abs/1802.04712"
)
grow = Method(
    GrowOptions,
    _grow,
    "Attention draws tiles, what they show weighs them, and reading goes on around the most telling ones.",
    SOURCE,
    True,
)
grow_mnist = Method(
    GrowMnistOptions,
    _grow_mnist,
    "Growing attention for Megapixel MNIST, where nothing grows: draws spread over the ink, weighed by what they show.",
    SOURCE,
    True,
)
