"""Zoom-In: attention over a coarse view, then over closer views of a few regions; tiles are read only where both look.

Kong & Henao, "Efficient Classification of Very Large Images with Tiny Objects", CVPR 2022,
https://arxiv.org/abs/2106.02694, released as timqqt/pytorch-zoom-in-network. Where we differ from the paper and from
the released code, and why: docs/methods/zoom_in.md §6. Three options have a value "as-released" that brings the
behaviour of the released code back.

A draw goes from here (`ZoomIn.forward`) through `descent` (what happens at each step), `estimator` (which cells a step
takes) and `attention.sampling` (the random draw) to `views` (which pixels are requested).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from wsi_attention.errors import InputError
from wsi_attention.methods.certifying import check_certifiable, prepared, read_until_settled, uncertifiable
from wsi_attention.methods.method import Method
from wsi_attention.methods.overview import check_overview
from wsi_attention.methods.rounds import check_one_image, check_quantity, limits, mean_of, seeded, spread_of
from wsi_attention.methods.zoom_in.certifying import Regions
from wsi_attention.methods.zoom_in.contrastive import (
    contrastive_attention,
    contrastive_loss,
    least_attended,
    weighted_loss,
)
from wsi_attention.methods.zoom_in.descent import Descent, Networks, random_rounds
from wsi_attention.methods.zoom_in.estimator import (
    ESTIMATES,
    Choice,
    as_released,
    at_random,
    everything,
    most_attended,
    nested_expectation,
    passed_over,
)
from wsi_attention.methods.zoom_in.options import ZoomInOptions, ZoomOptions
from wsi_attention.methods.zoom_in.views import (
    Zoomed,
    evidence_of,
    summed_entropy,
    zoom_glimpses,
    zoom_maps,
    zoom_unread,
)
from wsi_attention.nn.attention_nets import PooledAttention, TissueAttentionNet
from wsi_attention.nn.blocks import Encoder, ModulesOf, OverviewNet
from wsi_attention.nn.heads import ScaledLinear, attended, tile_evidence
from wsi_attention.nn.known_features import tile_encoder
from wsi_attention.nn.preprocess import in_float32
from wsi_attention.protocols import Aim, TileSource
from wsi_attention.structures import Output
from wsi_attention.targets.one_label import KIND, OneLabel


class Contrast(NamedTuple):
    """What the contrastive pass saw.

    Attributes:
        images: (p,) int64, the images of the batch that it looked at.
        logits: (p, classes), of tissue in each that attention passes over.
    """

    images: Tensor
    logits: Tensor


class ZoomIn(nn.Module):
    """Two zoom steps or more: each chooses cells in the views of the cells that the step before chose.

    Args:
        attentions: a network for each step. A cell of one step is the region that the next step looks at.
        encoder: turns a sub-tile into a feature.
        classifier: (..., d) -> (..., classes).
        preprocess: (m, c, h, w) pixels of any dtype -> floats on the model's device.
        options: all numbers; without `background` there is no contrastive pass.
        evidence: attention features of the first step -> class scores of each cell, for the loss on the overview; None
            leaves that loss out, as the paper does.

    Raises:
        InputError: there are not as many networks as scales.
    """

    epoch: Tensor
    positive_share: Tensor
    last_is_best: bool = False
    map_stride: int = 1

    def __init__(
        self,
        attentions: Sequence[OverviewNet],
        encoder: Encoder,
        classifier: nn.Module,
        preprocess: nn.Module,
        options: ZoomOptions,
        evidence: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if len(attentions) != len(options.mpps):
            raise InputError(f"{len(options.mpps)} zoom steps need a network each, got {len(attentions)}")
        check_overview(options.overview_pixels, attentions[0])
        self.attentions = ModulesOf(attentions)
        self.encoder, self.classifier, self.preprocess = encoder, classifier, preprocess
        self.options, self.evidence = options, evidence
        self.tile_mpp, self.overview_mpp, self.draws = options.tile_mpp, options.overview_mpp, options.draws
        self.overview_pixels = options.overview_pixels
        self.target: Aim = OneLabel()
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self.register_buffer("positive_share", torch.tensor(0.5))

    def start_epoch(self, epoch: int, epochs: int, shares: Sequence[float]) -> None:
        """Note the epoch, for the warm-up, and π, the share of training images that are not background."""
        self.epoch.fill_(epoch)
        if self.options.background is not None:
            self.positive_share.fill_(1.0 - shares[self.options.background])

    def forward(self, source: TileSource, generator: Generator | None = None) -> Output:
        """Look at the overview and at views of the drawn regions, read the drawn sub-tiles, classify.

        In training, after the warm-up, the contrastive pass follows, over all images: labels are not known here. Where
        they are, `learning_pass` reads less.

        Args:
            source: b images; each visits as many different regions as it happens to draw.
            generator: of the draws. Without one, training uses torch's global generator and eval mode a fixed seed.

        Returns:
            logits (b, classes), a glimpse and a map a step for each image, the spread, and as terms: `attention`
            (b, K), `zoomed`, `mean` (b, d), `negative_entropy`, `overview_logits` (b, classes) or None, and `contrast`,
            None where there was no contrastive pass.

        Raises:
            NoTissueError: an image has no cell of tissue.
            TileReadError: not one view or sub-tile of some image could be read.
        """
        return self._pass(source, generator, None)

    def learning_pass(self, source: TileSource, target: Tensor, generator: Generator | None = None) -> Output:
        """Do as `forward`, but with the contrastive pass on positive images only, the ones whose loss has it.

        Args:
            source: b images.
            target: (b,) class indices.
            generator: of the draws.
        """
        return self._pass(source, generator, target)

    def _pass(self, source: TileSource, generator: Generator | None, target: Tensor | None) -> Output:
        descent = self._descent(source)
        generator = generator if self.training else seeded(generator)
        zoomed = descent.down(self._choice(generator), self.draws)
        output = self._output(descent, [zoomed], self._mean(zoomed))
        if self._contrasting:
            labels = [None] * source.batch if target is None else target.tolist()
            images = [i for i, label in enumerate(labels) if label != self.options.background]
            chosen = torch.tensor(images, dtype=torch.int64, device=descent.attention.device)
            output.terms["contrast"] = self._contrast(descent, generator, chosen)
        return output

    @property
    def quantity(self) -> str:
        """What is estimated, for the model card."""
        if not self.other_quantity:
            return (
                "The mean feature of all sub-tiles of tissue, weighted by the attention of their tile times their own."
                f" Training and prediction estimate it from {self.draws} random draws, `--tolerance` from as many as it"
                " takes, `--exact` computes it."
            )
        return f"{self.other_quantity[:1].upper()}{self.other_quantity[1:]}; `--exact` and `--tolerance` are refused."

    @property
    def other_quantity(self) -> str:
        """See `protocols.Estimating`."""
        if self.options.inference == "top":
            return f'inference "top" is the mean feature of {self.draws} most attended sub-tiles, not of all'
        if self.options.inference == "as-released":
            return 'inference "as-released" predicts from rescaled attention, which no sum over the slide stands for'
        if self.options.noise == "as-released":
            return 'noise "as-released" draws sub-tiles nearly evenly, so that draws do not estimate the sum over them'
        return ""

    def _choice(self, generator: Generator | None) -> Choice:
        """Return how each step of a pass chooses its cells."""
        if self.options.inference == "top":
            return most_attended
        if self.training or self.options.inference == "sample":
            return at_random(generator, self.options.noise)
        return as_released(generator)

    def _mean(self, zoomed: Zoomed) -> Tensor:
        """Return Φ̂ (t, d); with the unbiased gradient where a tile failed, which the released one does not allow."""
        whole = bool(zoomed.looks[-1].valid.all())
        name = self.options.gradient if whole or self.options.gradient != "as-released" else "unbiased"
        return ESTIMATES[name](zoomed.features, zoomed.stages)

    def loss(self, output: Output, target: Tensor) -> Tensor:
        """Return the loss of docs/methods/zoom_in.md §5, a scalar, with the loss on the overview; target (b,).

        Another target than one label has its own loss in place of cross-entropy, and no contrastive loss.
        """
        weight, entropy = self.options.entropy_weight, output.terms["negative_entropy"]
        total: Tensor = self._classification(output, target) + weight * entropy
        overview: Tensor | None = output.terms["overview_logits"]
        if overview is not None:
            total = total + self.options.overview_weight * self.target.loss(overview, target)
        return total

    def _classification(self, output: Output, target: Tensor) -> Tensor:
        """Return π·L_pos + (1 − π)·(…) with each image as its part of the epoch's means: a batch may hold one image."""
        if self.target.kind != KIND:
            return self.target.loss(output.logits.float(), target)
        each = functional.cross_entropy(output.logits.float(), target, reduction="none")
        contrast: Contrast | None = output.terms["contrast"]
        background = self.options.background
        if contrast is None or background is None:
            return each.mean()
        positive, share = target != background, float(self.positive_share.clamp(1e-6, 1 - 1e-6))
        logits = contrast.logits[positive[contrast.images]]
        passed = self.options.contrastive_weight * len(logits) * contrastive_loss(logits.float(), background)
        parts = (each[positive].sum() / share, each[~positive].sum() / (1 - share), passed / share)
        return weighted_loss(parts[0], parts[1], parts[2], share) / len(target)

    @property
    def _contrasting(self) -> bool:
        """True in training after the warm-up, where the contrastive loss counts."""
        wanted = self.options.background is not None and self.options.contrastive_weight > 0
        return self.training and wanted and self.target.kind == KIND and int(self.epoch) > self.options.warm_up

    def _contrast(self, descent: Descent, generator: Generator | None, images: Tensor) -> Contrast:
        """Look at tissue that attention passes over, in those of the images (p,) that have some."""
        among = least_attended(descent.attention, descent.reader.levels[0].tissue, self.options.contrastive_share)
        reverse = contrastive_attention(descent.attention, among)
        images = images[(reverse[images] > 0).any(dim=-1)]
        if not len(images):
            return Contrast(images, reverse.new_zeros(0, 2))
        choose = at_random(generator, self.options.noise)
        zoomed = descent.down(choose, self.draws, reverse[images], images, passed_over)
        return Contrast(images, in_float32(self.classifier, self._mean(zoomed)))

    @torch.no_grad()
    def exact(self, source: TileSource) -> Output:
        """Compute Φ itself (Zoom-In eq. 5): every sub-tile of tissue is read. For eval mode.

        A sub-tile that cannot be read leaves the sum.

        Raises:
            InputError: the prediction is of another quantity (`other_quantity`).
        """
        check_quantity(self)
        descent = self._descent(source)
        zoomed = descent.down(everything, 1)
        mean = nested_expectation(zoomed.features, zoomed.stages)
        return self._output(descent, [zoomed], mean, torch.full_like(mean[:, 0], torch.nan))

    @torch.no_grad()
    def until(
        self,
        source: TileSource,
        tolerance: float,
        budget: int,
        generator: Generator | None = None,
        unread: float | None = None,
    ) -> Output:
        """Average independent rounds until error and unread mass are small enough (`random_rounds`). For eval mode.

        Args:
            source: one image.
            tolerance: standard error of the winning class's probability to stop at.
            budget: views and sub-tiles together; a round that would exceed it is not begun.
            generator: of the draws; a fixed seed where None.
            unread: attention mass of what was not read to stop at; `tolerance` where None.

        Raises:
            InputError: several images, a limit out of range, or the prediction is of another quantity.
        """
        check_quantity(self)
        check_one_image(source)
        stop = limits(tolerance, unread, budget, self.draws * len(self.attentions))
        descent = self._descent(source)
        passes, mean, spread = random_rounds(
            descent, self.classifier, self.draws, stop, budget, seeded(generator), self.target
        )
        return self._output(descent, passes, mean, spread)

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
        """View regions and read sub-tiles until the label that `exact` would give is settled. For eval mode.

        What is settled, and why: docs/certificate.md. Arguments as in `protocols.Certifying`.

        Raises:
            InputError: several images, a wish that makes no sense, or `uncertifiable`; others as in `forward`.
        """
        check_certifiable(self, level, budget, len(self.attentions))
        check_one_image(source)
        descent, model = self._descent(source), prepared(self.encoder, self.classifier, calibration)
        regions = Regions(descent, model.head)
        read = read_until_settled(regions, model, level, budget, generator)
        tiles = regions.tiles_among(read.tiles)
        numbers, weights, chance = read.tiles[tiles], read.weights[:, tiles], read.chance[:, tiles]
        features, zoomed = regions.features(numbers), [regions.zoomed(numbers)]
        weights, chance = weights.to(features.device), chance.to(features.device)
        mean = mean_of(features, weights)
        return Output(
            logits=in_float32(self.classifier, mean),
            glimpses=(regions.glimpses(numbers, weights[0].tolist()),),
            maps=zoom_maps(descent.reader, descent.attention, zoomed),
            spread=spread_of(self.classifier, features, weights, chance),
            unread_mass=zoom_unread(descent.reader, descent.attention, zoomed),
            terms={"attention": descent.attention, "features": features, "mean": mean},
            tile_evidence=tile_evidence(self.classifier, features),
            certificate=read.certificate,
            pooled=mean,
        )

    def _descent(self, source: TileSource) -> Descent:
        sizes = (self.options.mpps, self.options.tile_size, self.tile_mpp, self.options.floor)
        networks = Networks(tuple(self.attentions), self.encoder, self.preprocess, *sizes)
        return Descent(source, networks, self.positive_share.device, self.evidence)

    def _output(self, descent: Descent, passes: Sequence[Zoomed], mean: Tensor, spread: Tensor | None = None) -> Output:
        reader, attention = descent.reader, descent.attention
        spread = self._spread(descent, passes[0]) if spread is None else spread
        known = self.options.inference == "sample" and self.options.noise == "log"
        return Output(
            logits=in_float32(self.classifier, mean),
            glimpses=zoom_glimpses(reader, passes, ~spread.isnan() & known),
            maps=zoom_maps(reader, attention, passes),
            spread=spread,
            unread_mass=zoom_unread(reader, attention, passes),
            pooled=mean,
            terms={
                "attention": attention,
                "zoomed": passes[0],
                "mean": mean,
                "negative_entropy": summed_entropy(attention, passes[0]),
                "overview_logits": None if descent.scores is None else attended(descent.scores, attention),
                "contrast": None,
            },
            tile_evidence=evidence_of(self.classifier, reader.batch, passes) if self.target.kind == KIND else None,
        )

    def _spread(self, descent: Descent, zoomed: Zoomed) -> Tensor:
        """Return the standard error (b,) of a single pass; NaN where nothing was drawn at random."""
        steps, weights = zoomed.draws(descent.reader.batch)
        random = zoomed.chance(descent.attention).unsqueeze(-1)
        chance = (weights > 0) & (self.options.inference != "top") & random
        return spread_of(self.classifier, steps, weights, chance.to(weights.dtype), self.target)


def _zoom_in(classes: int, options: ZoomInOptions) -> ZoomIn:
    encoder = tile_encoder(options.encoder, options.channels)
    attentions = [_attention(options, side) for side in options.sides]
    classifier, evidence = ScaledLinear(encoder.dim, classes), nn.Conv2d(attentions[0].dim, classes, 1)
    told = replace(options, background=_background(classes, options.background))
    return ZoomIn(attentions, encoder, classifier, options.preprocess(), told, evidence)


def _attention(options: ZoomInOptions, side: int) -> PooledAttention:
    shape = options.attention_widths, options.context
    return PooledAttention(TissueAttentionNet(options.channels, *shape, colours=options.colours()), side)


def _background(classes: int, given: int | None) -> int | None:
    """Return the class of tissue without a finding, None where nobody can know it."""
    if given is not None and given >= classes:
        raise InputError(f"background must be the index of one of {classes} classes, 0 to {classes - 1}, not {given}")
    return 0 if given is None and classes == 2 else given


PAPER = (
    'Kong & Henao, "Efficient Classification of Very Large Images with Tiny Objects", CVPR 2022, '
    "https://arxiv.org/abs/2106.02694"
)
zoom_in = Method(
    ZoomInOptions, _zoom_in, "A coarse overview, closer views of a few regions, tiles inside them.", PAPER, True
)
