"""Zoom-In: attention over a very coarse view, over finer views of a few tiles, and sub-tiles read only where both look.

Kong & Henao, "Efficient Classification of Very Large Images with Tiny Objects", CVPR 2022,
https://arxiv.org/abs/2106.02694, released as timqqt/pytorch-zoom-in-network. Where we differ from the paper: attention
is confined to tissue in every step; a region that cannot be read leaves the bag; cells lie on a regular grid (see
`zoom_in_reading.zoom_levels`); a tile drawn more often than it has sub-tiles gives all it has; the contrastive pass
weighs what it draws by what it was drawn from, and looks only where attention is lowest; prediction is repeatable;
the last step's tiles move to the stored tiles (`TileSource.aligned`), regions of earlier steps do not.
Where we differ from the released code, an option "as-released" brings it back.

One thing is added, and only with `evidence`: while training, the attention-weighted mean of what the overview itself
shows is classified too, as in `attention_sampling` and for the same reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from wsi_attention.errors import InputError
from wsi_attention.geometry import OVERVIEW_PIXELS
from wsi_attention.methods.overview import check_overview
from wsi_attention.methods.rounds import check_one_image, check_quantity, limits, spread_of
from wsi_attention.methods.zoom_in import contrastive as passing
from wsi_attention.methods.zoom_in import estimator as nested
from wsi_attention.methods.zoom_in.contrastive import WARM_UP
from wsi_attention.methods.zoom_in.descent import Descent, Networks, random_rounds
from wsi_attention.methods.zoom_in.estimator import (
    Choice,
    as_released,
    at_random,
    everything,
    most_attended,
    passed_over,
)
from wsi_attention.methods.zoom_in.views import (
    Zoomed,
    evidence_terms,
    summed_entropy,
    zoom_glimpses,
    zoom_maps,
    zoom_unread,
)
from wsi_attention.nn.attention_nets import PooledAttention, TissueAttentionNet
from wsi_attention.nn.encoders import build_encoder
from wsi_attention.nn.heads import ScaledLinear, attended
from wsi_attention.nn.preprocess import HE_MEAN, HE_STD, Normalise, in_float32
from wsi_attention.options import one_of, within
from wsi_attention.protocols import TileSource
from wsi_attention.structures import Output

ESTIMATES = {
    "unbiased": nested.nested_expectation,
    "centred": nested.nested_expectation_centred,
    "as-released": nested.nested_expectation_as_released,
}
NOISE = ("log", "as-released")
INFERENCE = ("top", "sample", "as-released")
EVAL_SEED = 0
"""Seeds the draw in eval mode where the caller passes no generator."""


class ZoomIn(nn.Module):
    """Two zoom steps or more: each chooses cells in the views of those that the step before chose.

    Args:
        attentions: a network a step, (m, c, h, w) -> logits (m, gh, gw) and features (m, d', gh, gw), gh = h / stride;
            has an attribute `stride`. A cell of one step is the region that the next one looks at.
        encoder: (m, c, h, w) -> (m, d), rows of length 1.
        classifier: (..., d) -> (..., classes).
        preprocess: (m, c, h, w) pixels of any dtype -> floats on the model's device.
        view_mpps: µm per pixel of what each step looks at, the overview's first.
        tile_size: side of a sub-tile in pixels, the only ones read at full resolution.
        tile_mpp: µm per pixel of the sub-tiles.
        draws: N; at most so many sub-tiles are read per image.
        gradient: "unbiased"; "centred", with less noise, a small bias, from 2 draws on; "as-released", biased.
        noise: what random draws of sub-tiles put Gumbel noise on: "log" β, or β itself "as-released".
        inference: what is estimated. "sample", as in the paper: Φ, in training and prediction, from random draws,
            seeded in eval mode. "top", in both: tiles by N·α rounded and their highest sub-tiles, another quantity,
            nothing random, its gradient passed straight through the rounding. "as-released" reproduces the code:
            trained as "sample", but tiles for prediction are drawn from rescaled α, and their highest sub-tiles taken.
        entropy_weight: λ; above 0 it pushes every attention towards uniform.
        floor: share of each attention that is spread evenly over the tissue, so that 1/α stays bounded.
        background: class of tissue without a finding, for the contrastive pass on images of the other classes; None
            leaves that pass out.
        contrastive_weight: factor on the contrastive loss; 0 leaves it out.
        contrastive_share: share of the tissue's tiles, those with the lowest attention, that it may look at.
        warm_up: epochs before the contrastive pass begins.
        evidence: attention features of the first step -> class scores of each cell, for the loss on the overview; None
            leaves that loss out, as the paper does.
        overview_weight: factor on the loss on the overview.
        overview_pixels: the most pixels of the overview in eval mode, as in `AttentionSampling`.
    """

    epoch: Tensor
    positive_share: Tensor

    def __init__(
        self,
        attentions: Sequence[nn.Module],
        encoder: nn.Module,
        classifier: nn.Module,
        preprocess: nn.Module,
        *,
        view_mpps: Sequence[float],
        tile_size: int,
        tile_mpp: float,
        draws: int,
        gradient: str = "unbiased",
        noise: str = "log",
        inference: str = "sample",
        entropy_weight: float = 1e-5,
        floor: float = 1e-4,
        background: int | None = 0,
        contrastive_weight: float = 1.0,
        contrastive_share: float = 0.5,
        warm_up: int = passing.WARM_UP,
        evidence: nn.Module | None = None,
        overview_weight: float = 1.0,
        overview_pixels: int = OVERVIEW_PIXELS,
    ) -> None:
        super().__init__()
        one_of("gradient", gradient, tuple(ESTIMATES))
        one_of("noise", noise, NOISE)
        one_of("inference", inference, INFERENCE)
        if len(attentions) != len(view_mpps) or not attentions:
            raise InputError(f"each zoom step needs a network and a scale, got {len(attentions)} and {len(view_mpps)}")
        within("draws", draws, 2 if gradient == "centred" else 1)
        within("every mpp", min(tile_mpp, *view_mpps), 1e-9)
        within("floor", floor, 0, 1 - 1e-9)
        within("contrastive_weight", contrastive_weight, 0)
        within("contrastive_share", contrastive_share, 1e-9, 1)
        self.attentions = nn.ModuleList(attentions)
        self.encoder, self.classifier, self.preprocess = encoder, classifier, preprocess
        self.view_mpps, self.overview_mpp = tuple(view_mpps), view_mpps[0]
        self.tile_size, self.tile_mpp, self.draws = tile_size, tile_mpp, draws
        self.gradient, self.noise, self.inference = gradient, noise, inference
        self.entropy_weight, self.floor = entropy_weight, floor
        self.background, self.contrastive_weight = background, contrastive_weight
        self.contrastive_share, self.warm_up, self.evidence = contrastive_share, warm_up, evidence
        check_overview(overview_pixels, attentions[0])
        self.overview_weight, self.overview_pixels = overview_weight, overview_pixels
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self.register_buffer("positive_share", torch.tensor(0.5))

    def start_epoch(self, epoch: int, epochs: int, shares: Sequence[float]) -> None:
        """Remembers where training is, for the warm-up, and π, the share of images that are not background."""
        self.epoch.fill_(epoch)
        if self.background is not None:
            self.positive_share.fill_(1.0 - shares[self.background])

    def forward(self, source: TileSource, generator: Generator | None = None) -> Output:
        """Looks at the overview and at views of the drawn tiles, reads the drawn sub-tiles, classifies.

        Args:
            source: b images; each visits as many different tiles as it happens to draw.
            generator: of the draws. Without one, training uses torch's global generator and eval mode a fixed seed.

        Returns:
            logits (b, classes), a glimpse and a map a step for each image, the spread, and as terms: `attention`
            (b, K), `zoomed`, `mean` (b, d), `negative_entropy`, `overview_logits` (b, classes) or None, and in train
            mode `contrast`: images (p,) -> logits of the contrastive pass, which reads its tiles only then.

        Raises:
            NoTissueError: an image has no cell of tissue.
            TileReadError: not one view or sub-tile of some image could be read.
        """
        descent = self._descent(source)
        if generator is None and not self.training:
            generator = Generator().manual_seed(EVAL_SEED)
        zoomed = descent.down(self._choice(generator), self.draws)
        output = self._output(descent, [zoomed], self._mean(zoomed))
        if self.training:
            output.terms["contrast"] = partial(self._contrast, descent, generator)
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
        if self.inference == "top":
            return f'inference "top" is the mean feature of {self.draws} most attended sub-tiles, not of all'
        if self.inference == "as-released":
            return 'inference "as-released" predicts from rescaled attention, which no sum over the slide stands for'
        if self.noise == "as-released":
            return 'noise "as-released" draws sub-tiles nearly evenly, so that draws do not estimate the sum over them'
        return ""

    def _choice(self, generator: Generator | None) -> Choice:
        if self.inference == "top":
            return most_attended
        if self.training or self.inference == "sample":
            return at_random(generator, self.noise)
        return as_released(generator)

    def _mean(self, zoomed: Zoomed) -> Tensor:
        """Φ̂ (t, d). The released gradient knows of no tile that cannot be read; where one is, ours stands in."""
        whole = bool(zoomed.looks[-1].valid.all())
        name = self.gradient if whole or self.gradient != "as-released" else "unbiased"
        return ESTIMATES[name](zoomed.features, zoomed.stages)

    def loss(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy, after the warm-up with the contrastive loss, + λ·Σ a log(a + 1e-6) + that on the overview;
        target (b,) class indices."""
        total: Tensor = self._classification(output, target) + self.entropy_weight * output.terms["negative_entropy"]
        overview: Tensor | None = output.terms["overview_logits"]
        if overview is not None:
            total = total + self.overview_weight * functional.cross_entropy(overview, target)
        return total

    def _classification(self, output: Output, target: Tensor) -> Tensor:
        """The three losses of §5, each image as its part of the epoch's means, so that a batch may hold one image."""
        each = functional.cross_entropy(output.logits.float(), target, reduction="none")
        contrast = output.terms.get("contrast")
        if self.background is None or not self.contrastive_weight or contrast is None or self.epoch <= self.warm_up:
            return each.mean()
        positive, share = target != self.background, float(self.positive_share.clamp(1e-6, 1 - 1e-6))
        logits = contrast(positive.nonzero().flatten())
        passed = self.contrastive_weight * len(logits) * passing.contrastive_loss(logits.float(), self.background)
        parts = (each[positive].sum() / share, each[~positive].sum() / (1 - share), passed / share)
        return passing.weighted_loss(parts[0], parts[1], parts[2], share) / len(target)

    def _contrast(self, descent: Descent, generator: Generator | None, images: Tensor) -> Tensor:
        """Logits (p, classes) of tissue that attention passes over, in those of the images (p,) that have some."""
        among = passing.least_attended(descent.attention, descent.reader.levels[0].tissue, self.contrastive_share)
        reverse = passing.contrastive_attention(descent.attention, among)
        images = images[(reverse[images] > 0).any(dim=-1)]
        if not len(images):
            return reverse.new_zeros(0, 2)
        zoomed = descent.down(at_random(generator, self.noise), self.draws, reverse[images], images, passed_over)
        logits: Tensor = in_float32(self.classifier, self._mean(zoomed))
        return logits

    @torch.no_grad()
    def exact(self, source: TileSource) -> Output:
        """Φ itself (eq. 5): every sub-tile of tissue is read; one that cannot be leaves the sum. For eval mode.

        InputError where the prediction is of another quantity (`other_quantity`).
        """
        check_quantity(self)
        descent = self._descent(source)
        zoomed = descent.down(everything, 1)
        mean = nested.nested_expectation(zoomed.features, zoomed.stages)
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
        """Independent rounds, averaged, until error and unread mass are small enough (`random_rounds`). For eval mode.

        Views count against the budget as sub-tiles do. InputError for several images, a limit out of range, or where
        the prediction is of another quantity.
        """
        check_quantity(self)
        check_one_image(source)
        stop = limits(tolerance, unread, budget, self.draws * len(self.attentions))
        descent = self._descent(source)
        generator = generator or Generator().manual_seed(EVAL_SEED)
        passes, mean, spread = random_rounds(descent, self.classifier, self.draws, stop, budget, generator)
        return self._output(descent, passes, mean, spread)

    def _descent(self, source: TileSource) -> Descent:
        scales = (self.view_mpps, self.tile_size, self.tile_mpp)
        networks = Networks(self.attentions, self.encoder, self.preprocess, *scales, self.floor)
        return Descent(source, networks, self.positive_share.device, self.evidence)

    def _output(self, descent: Descent, passes: Sequence[Zoomed], mean: Tensor, spread: Tensor | None = None) -> Output:
        reader, attention = descent.reader, descent.attention
        if spread is None:
            steps, weights = passes[0].draws(reader.batch)
            chance = (weights > 0) & (self.inference != "top") & passes[0].chance(attention).unsqueeze(-1)
            spread = spread_of(self.classifier, steps, weights, chance.to(weights.dtype))
        known = self.inference == "sample" and self.noise == "log"
        return Output(
            logits=in_float32(self.classifier, mean),
            glimpses=zoom_glimpses(reader, passes, ~spread.isnan() & known),
            maps=zoom_maps(reader, attention, passes),
            spread=spread,
            unread_mass=zoom_unread(reader, attention, passes),
            terms={
                "attention": attention,
                "zoomed": passes[0],
                "mean": mean,
                "negative_entropy": summed_entropy(attention, passes[0]),
                "overview_logits": None if descent.scores is None else attended(descent.scores, attention),
                **evidence_terms(self.classifier, reader.batch, passes),
            },
        )


TOLERANCE = 0.05
"""How far a cell may be from a whole number of the network's own cells."""


def zoom_in(
    classes: int,
    *,
    tile_size: int = 256,
    tile_mpp: float = 0.5,
    overview_mpp: float = 16.0,
    view_mpps: Sequence[float] = (4.0,),
    cells_um: Sequence[float] = (512.0, 128.0),
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
    gradient: str = "unbiased",
    noise: str = "log",
    inference: str = "sample",
    entropy_weight: float = 1e-5,
    floor: float = 1e-4,
    background: int | None = None,
    contrastive_weight: float = 1.0,
    contrastive_share: float = 0.5,
    warm_up: int = WARM_UP,
    overview_weight: float = 1.0,
    overview_pixels: int = OVERVIEW_PIXELS,
) -> ZoomIn:
    """Zoom-In for stained tissue: tiles of 512 µm, seen at 4 µm/px, in them sub-tiles of 128 µm at 0.5 µm/px.

    Arguments not listed here are `ZoomIn`'s.

    Args:
        classes: number of classes.
        tile_size: side of a sub-tile in pixels.
        tile_mpp: µm per pixel of the sub-tiles.
        overview_mpp: µm per pixel of the overview, which the first step looks at.
        view_mpps: µm per pixel of the views of the further steps, one each; more of them are more steps.
        cells_um: side of the cells of every step in µm, so one more than `view_mpps`: the tiles that are viewed, then
            the sub-tiles. Each a whole number of times 2 to the number of attention_widths pixels of its view.
        draws: sub-tiles read per slide, at most.
        mean: of each channel, of 1.
        std: of each channel, of 1.
        encoder: a name that `nn.encoder_choice.build_encoder` knows.
        encoder_widths: channels of the small encoder's stages.
        features: length of the small encoder's feature.
        pool: "mean", "max" or "mean+max", of the small encoder.
        encoder_frozen: whether training leaves the encoder's weights as they are.
        attention_widths: channels of the attention networks' stages, each halving the view.
        context: side of the attention networks' depthwise kernel, in the networks' own cells.
        background: index of the class that tissue without a finding belongs to; None takes the first of two classes,
            and leaves the contrastive pass out where there are more. `train` knows the class by name (`negative` of the
            recipe) and always gives the index.
        overview_weight: factor on the loss on the overview; 0 is the paper's loss.
        overview_pixels: the most pixels of the overview at prediction; larger slides are seen coarser than
            `overview_mpp`. Above 4,000,000 the overview is seen in strips. In training it has 4,000,000 at most.

    Raises:
        InputError: an argument is out of range or names nothing.
    """
    mpps = (overview_mpp, *view_mpps)
    if len(cells_um) != len(mpps):
        raise InputError(
            f"cells_um needs {len(mpps)} sides, for the overview and each of view_mpps, got {list(cells_um)}"
        )
    if background is not None and not 0 <= background < classes:
        raise InputError(f"background must be the index of one of {classes} classes, got {background}")
    network = build_encoder(
        encoder, len(mean), widths=encoder_widths, features=features, pool=pool, frozen=encoder_frozen
    )
    attentions = [
        _attention(len(mean), attention_widths, context, um, mpp) for um, mpp in zip(cells_um, mpps, strict=True)
    ]
    return ZoomIn(
        attentions,
        network,
        ScaledLinear(network.dim, classes),
        Normalise(mean, std),
        view_mpps=mpps,
        tile_size=tile_size,
        tile_mpp=tile_mpp,
        draws=draws,
        gradient=gradient,
        noise=noise,
        inference=inference,
        entropy_weight=entropy_weight,
        floor=floor,
        background=0 if background is None and classes == 2 else background,
        contrastive_weight=contrastive_weight,
        contrastive_share=contrastive_share,
        warm_up=warm_up,
        evidence=nn.Conv2d(attentions[0].dim, classes, 1),
        overview_weight=overview_weight,
        overview_pixels=overview_pixels,
    )


def _attention(channels: int, widths: Sequence[int], context: int, um: float, mpp: float) -> PooledAttention:
    if mpp <= 0 or um <= 0:
        raise InputError(f"sides and scales must be above 0 µm, got cells of {um} at {mpp} µm/px")
    own = 2 ** len(widths) * mpp
    side = max(1, round(um / own))
    if abs(um / (side * own) - 1) > TOLERANCE:
        raise InputError(
            f"a cell of {um:g} µm is no whole number of the network's own {own:g} µm ({2 ** len(widths)} pixels of "
            f"{mpp:g} µm); take {side * own:g}"
        )
    return PooledAttention(TissueAttentionNet(channels, widths, context), side)
