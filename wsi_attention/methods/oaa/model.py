"""OAA and OAA+: class maps of the overview, whose maximum over training shows more of an object than any one of them.

Jiang et al., "Integral Object Mining via Online Attention Accumulation", ICCV 2019; released codes PengtaoJiang/OAA and
PengtaoJiang/OAA-PyTorch. Nothing is sampled and no tile is read: all evidence is in the overview, which is therefore
finer than that of other methods. The mathematics is in docs/methods/oaa.md, and where we differ from the paper in
docs/methods/oaa.md §5. The maps are accumulated in `training.accumulation`, with `attention.accumulation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from wsi_attention.attention.accumulation import integral_loss
from wsi_attention.attention.cam import attention_maps, class_scores, soft_maximum_scores, top_scores
from wsi_attention.errors import InputError
from wsi_attention.geometry import OVERVIEW_PIXELS, Grid
from wsi_attention.methods.method import Method
from wsi_attention.methods.oaa.trunks import TissueTrunk, Trunk, Vgg16Trunk, class_aware_head
from wsi_attention.methods.outputs import named_maps, padded, require_tissue
from wsi_attention.nn.blocks import Encoder
from wsi_attention.nn.preprocess import PixelOptions
from wsi_attention.options import option
from wsi_attention.protocols import TileSource
from wsi_attention.structures import Output

POOLS = ("mean", "lse", "top")
OBJECTIVES = ("soft-margin", "cross-entropy")
SETS = ("image", "class")
BACKBONES = ("small", "vgg16")
PAPER_DEVIATION = 0.01
"""Standard deviation of fresh layers on VGG-16 (docs/methods/oaa.md §5)."""


@dataclass(frozen=True, kw_only=True)
class OaaOptions(PixelOptions):
    """OAA for stained tissue: with the defaults a cell of the class maps is 64 µm.

    The paper's network is backbone "vgg16" with head_widths (512, 512, 512).
    """

    overview_mpp: float = option(
        8.0,
        "µm per pixel of the overview, coarser for very large slides; all evidence is in it, so it is finer than that "
        "of methods that read tiles",
        low=0.02,
        high=1000,
    )
    backbone: str = option(
        "small", 'the trunk: "small" trains on a CPU, "vgg16" is the paper\'s', "paper: vgg16", choices=BACKBONES
    )
    trunk_widths: tuple[int, ...] = option(
        (24, 48, 64), 'channels of the stages of backbone "small", each halving the overview', low=1, high=65_536
    )
    context: int = option(7, 'side of the depthwise kernel of backbone "small", in cells', low=1, high=8192)
    head_widths: tuple[int, ...] = option(
        (64,),
        "channels of the 3 × 3 convolutions before the class-aware 1 × 1 convolution",
        "paper: 512, 512, 512",
        low=1,
        high=65_536,
    )
    pool: str = option(
        "mean",
        'how class maps become scores: "mean", "lse" (a soft maximum) or "top" (the mean of the highest cells). A '
        "lesion of a few cells hardly moves a mean over thousands",
        "docs/methods/oaa.md §2.1; paper: mean",
        choices=POOLS,
    )
    sharpness: float = option(4.0, 'r of pool "lse"; the larger, the closer to the maximum', low=1e-6, high=1e6)
    top: float = option(0.05, 'share of the tissue that pool "top" takes', low=1e-9, high=1)
    objective: str = option(
        "soft-margin",
        'the loss on the scores. "soft-margin": each class against the rest; "cross-entropy": one class a slide',
        "docs/methods/oaa.md §4; paper: soft-margin",
        choices=OBJECTIVES,
    )


@dataclass(frozen=True, kw_only=True)
class OaaPlusOptions(OaaOptions):
    """OAA+ for stained tissue: it learns the maps that a training of `oaa` accumulated (`maps` of the recipe)."""

    sets: str = option(
        "image",
        'over what N+ and N− run. "image": all classes together; "class": each on its own, so that absent classes do '
        "not drown the rest",
        "docs/methods/oaa.md §2.4; paper: image",
        choices=SETS,
    )
    negative: int | None = option(
        None, 'index of a class that stands for "nothing there"; its slides are trained by L− alone', low=0
    )


class Seen(NamedTuple):
    """What the trunk makes of an overview.

    Attributes:
        features: (b, d, rows, cols).
        tissue: (b, rows, cols) bool.
        grid: where the cells lie.
    """

    features: Tensor
    tissue: Tensor
    grid: Grid


class ClassScores(nn.Module):
    """From class maps to logits, and the loss on them.

    Args:
        options: pool, sharpness, top and objective.
    """

    def __init__(self, options: OaaOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, class_maps: Tensor, tissue: Tensor) -> Tensor:
        """Map class maps (b, k, rows, cols) and tissue (b, rows, cols) bool to logits (b, k)."""
        if self.options.pool == "lse":
            return soft_maximum_scores(class_maps, tissue, self.options.sharpness)
        if self.options.pool == "top":
            return top_scores(class_maps, tissue, self.options.top)
        return class_scores(class_maps, tissue)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss on logits (b, k), a scalar (docs/methods/oaa.md §4); target (b,) class indices."""
        if self.options.objective == "cross-entropy":
            return functional.cross_entropy(logits, target)
        return functional.multilabel_soft_margin_loss(logits, _one_hot(target, logits.shape[1]).to(logits))


class AccumulatedAttention(nn.Module):
    """OAA: trunk, class-aware convolution, pooled scores; the class maps are the class activation maps.

    Args:
        trunk: (b, c, h, w) -> (b, d, h / stride, w / stride).
        class_aware: (b, d, rows, cols) -> class maps F (b, k, rows, cols).
        preprocess: (b, c, h, w) pixels of any dtype -> floats on the model's device.
        options: all numbers.

    Attributes:
        map_stride: side of a cell of the maps in overview pixels; training mirrors slides at the edge of a cell.
        tile_mpp: that of the overview, because no tile is read.
    """

    encoder: Encoder | None = None
    overview_pixels: int = OVERVIEW_PIXELS

    def __init__(self, trunk: Trunk, class_aware: nn.Module, preprocess: nn.Module, options: OaaOptions) -> None:
        super().__init__()
        self.trunk, self.class_aware, self.preprocess = trunk, class_aware, preprocess
        self.options, self.scores = options, ClassScores(options)
        self.overview_mpp = self.tile_mpp = options.overview_mpp
        self.map_stride = trunk.stride

    def forward(self, source: TileSource, generator: Generator | None = None) -> Output:
        """Look at the overview and classify; nothing is drawn, the generator is not used.

        Returns:
            logits (b, k); no glimpses; the maps "class-0" … (A^c) and "attention", that of the winning class scaled to
            sum 1 (uniform over the tissue where it is 0 everywhere); spread NaN; as terms `class_maps` F
            (b, k, rows, cols) and `tissue` (b, rows, cols).

        Raises:
            NoTissueError: an image has no cell of tissue.
        """
        seen = self.look(source)
        class_maps: Tensor = self.class_aware(seen.features).float()
        logits: Tensor = self.scores(class_maps, seen.tissue)
        shown = attention_maps(class_maps.detach().masked_fill(~seen.tissue.unsqueeze(1), -torch.inf))
        return _output(logits, shown, class_maps, seen)

    def look(self, source: TileSource) -> Seen:
        """Return the trunk's features on the whole overview, and where there is tissue.

        Raises:
            NoTissueError: an image has no cell of tissue.
        """
        stride, downsample = self.trunk.stride, source.overview_downsample(self.overview_mpp)
        grid = Grid.covering(source.extent, (stride * downsample, stride * downsample))
        view = padded(source.overview(downsample), (grid.rows * stride, grid.cols * stride))
        features: Tensor = self.trunk(self.preprocess(view))
        tissue = source.tissue(grid).to(features.device)
        require_tissue(tissue)
        return Seen(features, tissue, grid)

    def loss(self, output: Output, target: Tensor) -> Tensor:
        """Return the loss on the pooled scores, a scalar; target (b,) class indices."""
        return self.scores.loss(output.logits.float(), target)


class IntegralAttention(AccumulatedAttention):
    """OAA+: a network without pooling learns accumulated maps, and the classifier of OAA beside it learns the label.

    q = σ(F̂) of `integral` are the maps. The scores come from a class-aware convolution of their own on the same trunk:
    if F̂ itself were pooled, L− would push down, over most of a slide, a score that must rise.

    Args:
        trunk: as in `AccumulatedAttention`.
        class_aware: (b, d, rows, cols) -> the classifier's maps (b, k, rows, cols).
        integral: (b, d, rows, cols) -> F̂ (b, k, rows, cols).
        preprocess: as in `AccumulatedAttention`.
        options: all numbers; overview_mpp best that of the model whose maps are learnt.
    """

    options: OaaPlusOptions

    def __init__(
        self,
        trunk: Trunk,
        class_aware: nn.Module,
        integral: nn.Module,
        preprocess: nn.Module,
        options: OaaPlusOptions,
    ) -> None:
        super().__init__(trunk, class_aware, preprocess, options)
        self.integral = integral

    def forward(self, source: TileSource, generator: Generator | None = None) -> Output:
        """Do as `AccumulatedAttention.forward`; the maps "class-0" … are σ(F̂), and the term `class_maps` is F̂."""
        seen = self.look(source)
        logits: Tensor = self.scores(self.class_aware(seen.features).float(), seen.tissue)
        integral: Tensor = self.integral(seen.features).float()
        return _output(logits, integral.detach().sigmoid(), integral, seen)

    def loss(self, output: Output, target: Tensor) -> Tensor:
        """Return the classifier's loss + L− over the classes that an image has not: the loss without any map."""
        integral = output.terms["class_maps"]
        absent = _one_hot(target, integral.shape[1]) == 0
        return self._loss(output, target, torch.zeros_like(integral), absent[..., None, None])

    def guided_loss(self, output: Output, target: Tensor, accumulated: Tensor) -> Tensor:
        """Return the classifier's loss + L+ + L− against accumulated maps, a scalar (docs/methods/oaa.md §2.4).

        Args:
            output: of `forward`.
            target: (b,) class indices.
            accumulated: (b, k, rows, cols) in [0, 1], P in the frame and on the grid of the output's maps.
        """
        wanted, negative = accumulated.to(output.terms["class_maps"]), self.options.negative
        if negative is not None:
            wanted = wanted.index_fill(1, torch.tensor([negative], device=wanted.device), 0.0)
        return self._loss(output, target, wanted, torch.ones_like(wanted, dtype=torch.bool))

    def _loss(self, output: Output, target: Tensor, wanted: Tensor, counted: Tensor) -> Tensor:
        integral, tissue = output.terms["class_maps"], output.terms["tissue"].unsqueeze(1)
        parts = (integral, wanted, counted & tissue)
        if self.options.sets == "class":
            hybrid = integral_loss(*(part.flatten(0, 1).unsqueeze(1) for part in parts))
        else:
            hybrid = integral_loss(*parts)
        return super().loss(output, target) + hybrid


def winning(shown: Tensor, logits: Tensor, tissue: Tensor) -> Tensor:
    """Return (b, K), the map of the class with the highest logit, scaled to sum 1 over tissue; uniform if it is 0."""
    best = logits.argmax(dim=-1)[:, None, None].expand(-1, 1, shown[0, 0].numel())
    values = shown.flatten(2).gather(1, best).squeeze(1) * tissue.flatten(1)
    values = torch.where(values.sum(dim=-1, keepdim=True) > 0, values, tissue.flatten(1).to(values))
    return values / values.sum(dim=-1, keepdim=True)


def _output(logits: Tensor, shown: Tensor, class_maps: Tensor, seen: Seen) -> Output:
    named = {f"class-{c}": values.flatten(1) for c, values in enumerate(shown.unbind(dim=1))}
    named["attention"] = winning(shown, logits.detach(), seen.tissue)
    return Output(
        logits=logits,
        glimpses=((),) * len(logits),
        maps=named_maps(named, seen.tissue, seen.grid),
        spread=torch.full((len(logits),), torch.nan, device=logits.device),
        terms={"class_maps": class_maps, "tissue": seen.tissue},
    )


def _one_hot(target: Tensor, classes: int) -> Tensor:
    return functional.one_hot(target, classes)


def _oaa(classes: int, options: OaaOptions) -> AccumulatedAttention:
    trunk = _trunk(options)
    return AccumulatedAttention(trunk, _head(trunk, classes, options), options.preprocess(), options)


def _oaa_plus(classes: int, options: OaaPlusOptions) -> IntegralAttention:
    if options.negative is not None and options.negative >= classes:
        raise InputError(f"negative must be the index of one of {classes} classes, got {options.negative}")
    trunk = _trunk(options)
    class_aware, integral = _head(trunk, classes, options), _head(trunk, classes, options)
    return IntegralAttention(trunk, class_aware, integral, options.preprocess(), options)


def _trunk(options: OaaOptions) -> Trunk:
    if options.backbone == "vgg16":
        return Vgg16Trunk(options.channels)
    return TissueTrunk(options.channels, options.trunk_widths, options.context)


def _head(trunk: Trunk, classes: int, options: OaaOptions) -> nn.Sequential:
    deviation = PAPER_DEVIATION if options.backbone == "vgg16" else None
    return class_aware_head(trunk.dim, classes, options.head_widths, deviation)


PAPER = (
    'Jiang et al., "Integral Object Mining via Online Attention Accumulation", ICCV 2019, '
    "https://github.com/PengtaoJiang/OAA-PyTorch"
)
oaa = Method(OaaOptions, _oaa, "OAA: class maps of the overview, accumulated over training; no tile is read.", PAPER)
oaa_plus = Method(
    OaaPlusOptions, _oaa_plus, "OAA+: learns the class maps that a training of OAA accumulated; no tile is read.", PAPER
)
