"""OAA and OAA+: class maps of the overview, whose maximum over training shows more of an object than any one of them.

Jiang et al., "Integral Object Mining via Online Attention Accumulation", ICCV 2019; released codes PengtaoJiang/OAA and
PengtaoJiang/OAA-PyTorch. Nothing is sampled and no tile is read: all evidence is in the overview, so it is taken finer
than other methods take theirs. Accumulation is a side effect of training and lives in `training.accumulation`; its
equations are in `attention.accumulation`, those of the class maps in `attention.cam`.

Where we differ from the paper: positions outside the tissue count nowhere, neither in the pooled score nor in a map
nor in the sets N+ and N− of OAA+; a tissue mask takes the place of the saliency model; poolings other than the mean
are offered, for a lesion of a few cells drowns in a mean over thousands; OAA+ keeps a classifier beside its maps, for
a slide needs a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from wsi_attention.attention.accumulation import integral_loss
from wsi_attention.attention.cam import attention_maps, class_scores, soft_maximum_scores, top_scores
from wsi_attention.errors import InputError, NoTissueError
from wsi_attention.geometry import Grid
from wsi_attention.methods.oaa.trunks import TissueTrunk, Vgg16Trunk, class_aware_head
from wsi_attention.methods.outputs import maps, padded
from wsi_attention.nn.preprocess import HE_MEAN, HE_STD, Normalise
from wsi_attention.options import one_of
from wsi_attention.protocols import TileSource
from wsi_attention.structures import AttentionMap, Output

POOLS = ("mean", "lse", "top")
OBJECTIVES = ("soft-margin", "cross-entropy")
SETS = ("image", "class")


class LearntFrom(NamedTuple):
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
        pool: "mean" (the paper), "lse" (soft maximum) or "top" (mean of the highest cells); the last two deviate.
        sharpness: r of "lse", above 0; larger is closer to the maximum.
        top: share of the tissue that "top" takes, in (0, 1].
        objective: "soft-margin" (the paper: each class against the rest) or "cross-entropy" (one class a slide).
    """

    def __init__(self, pool: str = "mean", sharpness: float = 4.0, top: float = 0.05, objective: str = "soft-margin"):
        super().__init__()
        one_of("pool", pool, POOLS)
        one_of("objective", objective, OBJECTIVES)
        if sharpness <= 0 or not 0 < top <= 1:
            raise InputError(f"sharpness must be above 0 and top in (0, 1], got {sharpness} and {top}")
        self.pool, self.sharpness, self.top, self.objective = pool, sharpness, top, objective

    def forward(self, class_maps: Tensor, tissue: Tensor) -> Tensor:
        """(b, k, rows, cols) and (b, rows, cols) bool -> logits (b, k)."""
        if self.pool == "lse":
            return soft_maximum_scores(class_maps, tissue, self.sharpness)
        if self.pool == "top":
            return top_scores(class_maps, tissue, self.top)
        return class_scores(class_maps, tissue)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Multi-label soft margin loss with one label an image (OAA §4), or cross-entropy; a scalar."""
        if self.objective == "cross-entropy":
            return functional.cross_entropy(logits, target)
        return functional.multilabel_soft_margin_loss(logits, _one_hot(target, logits.shape[1]).to(logits))


class AccumulatedAttention(nn.Module):
    """OAA: trunk, class-aware convolution, pooled scores; the class maps are the class activation maps.

    Args:
        trunk: (b, c, h, w) -> (b, d, h / stride, w / stride); has an attribute `stride`.
        class_aware: (b, d, rows, cols) -> class maps F (b, k, rows, cols).
        scores: F and tissue -> logits.
        preprocess: (b, c, h, w) pixels of any dtype -> floats on the model's device.
        overview_mpp: µm per pixel of the overview; the source may take a coarser one for a very large slide.

    Attributes:
        map_stride: overview pixels a cell of the maps; training mirrors slides at the edge of a cell.
        tile_mpp: the overview's, for no tile is read.
    """

    def __init__(
        self,
        trunk: nn.Module,
        class_aware: nn.Module,
        scores: ClassScores,
        preprocess: nn.Module,
        *,
        overview_mpp: float,
    ) -> None:
        super().__init__()
        if overview_mpp <= 0:
            raise InputError(f"overview_mpp must be above 0, got {overview_mpp}")
        self.trunk, self.class_aware, self.scores, self.preprocess = trunk, class_aware, scores, preprocess
        self.overview_mpp = self.tile_mpp = overview_mpp
        self.map_stride = int(trunk.stride)  # type: ignore[arg-type]

    def forward(self, source: TileSource, generator: Generator | None = None) -> Output:
        """Looks at the overview and classifies; nothing is drawn, the generator is not used.

        Returns:
            logits (b, k); no glimpses; the maps "class-0" … (A^c) and "attention", the winning class's scaled to sum 1
            (even over the tissue where nothing speaks for it); spread NaN; terms `class_maps` F (b, k, rows, cols) and
            `tissue` (b, rows, cols).

        Raises:
            NoTissueError: an image has no cell of tissue.
        """
        seen = look(source, self.trunk, self.preprocess, self.overview_mpp)
        class_maps: Tensor = self.class_aware(seen.features).float()
        logits: Tensor = self.scores(class_maps, seen.tissue)
        shown = attention_maps(class_maps.detach().masked_fill(~seen.tissue.unsqueeze(1), -torch.inf))
        return _output(logits, shown, seen, {"class_maps": class_maps, "tissue": seen.tissue})

    def loss(self, output: Output, target: Tensor) -> Tensor:
        """The loss on the pooled scores, a scalar; target (b,) class indices."""
        return self.scores.loss(output.logits.float(), target)


class IntegralAttention(nn.Module):
    """OAA+: the network without pooling learns accumulated maps, and a classifier beside it learns the label.

    q = σ(F̂) of `integral` are the maps. The label's scores come from a class-aware convolution of their own on the same
    trunk, as in OAA: pooling F̂ itself would set L−, which holds most of a slide down, against a score that must rise.

    Args:
        trunk: as in `AccumulatedAttention`.
        class_aware: (b, d, rows, cols) -> the classifier's maps (b, k, rows, cols).
        integral: (b, d, rows, cols) -> F̂ (b, k, rows, cols).
        scores: as in `AccumulatedAttention`.
        preprocess: as in `AccumulatedAttention`.
        overview_mpp: as in `AccumulatedAttention`; that of the model whose maps are learnt, best.
        sets: over what N+ and N− run: "image" (all classes together, the paper) or "class" (each on its own, so that
            absent classes do not drown the rest).
        negative: a class that stands for "nothing there"; its maps are taken as 0, so that L− alone trains its slides.
    """

    def __init__(
        self,
        trunk: nn.Module,
        class_aware: nn.Module,
        integral: nn.Module,
        scores: ClassScores,
        preprocess: nn.Module,
        *,
        overview_mpp: float,
        sets: str = "image",
        negative: int | None = None,
    ) -> None:
        super().__init__()
        one_of("sets", sets, SETS)
        if overview_mpp <= 0:
            raise InputError(f"overview_mpp must be above 0, got {overview_mpp}")
        self.trunk, self.class_aware, self.integral = trunk, class_aware, integral
        self.scores, self.preprocess, self.sets, self.negative = scores, preprocess, sets, negative
        self.overview_mpp = self.tile_mpp = overview_mpp
        self.map_stride = int(trunk.stride)  # type: ignore[arg-type]

    def forward(self, source: TileSource, generator: Generator | None = None) -> Output:
        """As `AccumulatedAttention.forward`; the maps "class-0" … are σ(F̂), and the term `class_maps` is F̂."""
        seen = look(source, self.trunk, self.preprocess, self.overview_mpp)
        logits: Tensor = self.scores(self.class_aware(seen.features).float(), seen.tissue)
        integral: Tensor = self.integral(seen.features).float()
        return _output(logits, integral.detach().sigmoid(), seen, {"class_maps": integral, "tissue": seen.tissue})

    def loss(self, output: Output, target: Tensor) -> Tensor:
        """Without accumulated maps: the classifier's loss, and L− over the classes an image has not."""
        integral = output.terms["class_maps"]
        absent = _one_hot(target, integral.shape[1]) == 0
        return self._loss(output, target, torch.zeros_like(integral), absent[..., None, None])

    def guided_loss(self, output: Output, target: Tensor, accumulated: Tensor) -> Tensor:
        """The classifier's loss + L+ + L− against accumulated maps (OAA §2.4), a scalar.

        Args:
            output: of `forward`.
            target: (b,) class indices.
            accumulated: (b, k, rows, cols) in [0, 1], P in the frame and on the grid of the output's maps.
        """
        wanted = accumulated.to(output.terms["class_maps"])
        if self.negative is not None:
            wanted = wanted.index_fill(1, torch.tensor([self.negative], device=wanted.device), 0.0)
        return self._loss(output, target, wanted, torch.ones_like(wanted, dtype=torch.bool))

    def _loss(self, output: Output, target: Tensor, wanted: Tensor, counted: Tensor) -> Tensor:
        integral, tissue = output.terms["class_maps"], output.terms["tissue"].unsqueeze(1)
        parts = (integral, wanted, counted & tissue)
        if self.sets == "class":
            hybrid = integral_loss(*(part.flatten(0, 1).unsqueeze(1) for part in parts))
        else:
            hybrid = integral_loss(*parts)
        return self.scores.loss(output.logits.float(), target) + hybrid


def look(source: TileSource, trunk: nn.Module, preprocess: nn.Module, overview_mpp: float) -> LearntFrom:
    """The trunk's features on the whole overview, and where there is tissue.

    Raises:
        NoTissueError: an image has no cell of tissue.
    """
    stride = int(trunk.stride)  # type: ignore[arg-type]
    downsample = source.overview_downsample(overview_mpp)
    grid = Grid.covering(source.extent, (stride * downsample, stride * downsample))
    view = padded(source.overview(downsample), (grid.rows * stride, grid.cols * stride))
    features: Tensor = trunk(preprocess(view))
    tissue = source.tissue(grid).to(features.device)
    if not bool(tissue.flatten(1).any(dim=1).all()):
        raise NoTissueError(f"no tissue in any of the {grid.rows} × {grid.cols} cells: there is nothing to look at")
    return LearntFrom(features, tissue, grid)


def winning(shown: Tensor, logits: Tensor, tissue: Tensor) -> Tensor:
    """(b, K): the map of the class with the highest logit, scaled to sum 1 over tissue; even where it is 0 there."""
    best = logits.argmax(dim=-1)[:, None, None].expand(-1, 1, shown[0, 0].numel())
    values = shown.flatten(2).gather(1, best).squeeze(1) * tissue.flatten(1)
    values = torch.where(values.sum(dim=-1, keepdim=True) > 0, values, tissue.flatten(1).to(values))
    return values / values.sum(dim=-1, keepdim=True)


def _output(logits: Tensor, shown: Tensor, seen: LearntFrom, terms: dict[str, Tensor]) -> Output:
    inside = torch.zeros_like(shown[:, 0]).masked_fill(~seen.tissue, -torch.inf).flatten(1)
    each = [maps(shown[:, c].flatten(1), inside, seen.grid, f"class-{c}") for c in range(shown.shape[1])]
    each.append(maps(winning(shown, logits.detach(), seen.tissue), inside, seen.grid))
    found: tuple[tuple[AttentionMap, ...], ...] = tuple(
        tuple(one for (one,) in image) for image in zip(*each, strict=True)
    )
    return Output(
        logits, ((),) * len(logits), found, torch.full((len(logits),), torch.nan, device=logits.device), dict(terms)
    )


def _one_hot(target: Tensor, classes: int) -> Tensor:
    return functional.one_hot(target, classes)


BACKBONES = ("small", "vgg16")
PAPER_DEVIATION = 0.01
"""Of the fresh layers on VGG-16 (OAA §5)."""


def oaa(
    classes: int,
    *,
    overview_mpp: float = 8.0,
    mean: Sequence[float] = HE_MEAN,
    std: Sequence[float] = HE_STD,
    backbone: str = "small",
    trunk_widths: Sequence[int] = (24, 48, 64),
    context: int = 7,
    head_widths: Sequence[int] = (64,),
    pool: str = "mean",
    sharpness: float = 4.0,
    top: float = 0.05,
    objective: str = "soft-margin",
) -> AccumulatedAttention:
    """OAA for stained tissue: with the defaults a cell of the class maps is 64 µm.

    The paper's network is backbone "vgg16" with head_widths (512, 512, 512); the rest of the defaults is the paper's.

    Args:
        classes: number of classes.
        overview_mpp: µm per pixel of the overview; all evidence is in it, so it is finer than that of sampling methods.
        mean: of each channel, of 1.
        std: of each channel, of 1.
        backbone: "small" (trains on a CPU) or "vgg16".
        trunk_widths: channels of the small backbone's stages, each halving the overview.
        context: side of the small backbone's depthwise kernel, in cells.
        head_widths: channels of the 3×3 convolutions before the class-aware 1×1 convolution.
        pool: "mean", "lse" or "top", see `ClassScores`.
        sharpness: of "lse".
        top: share of the tissue that "top" takes.
        objective: "soft-margin" or "cross-entropy".

    Raises:
        InputError: an argument is out of range or names nothing.
    """
    trunk = _trunk(backbone, len(mean), trunk_widths, context)
    return AccumulatedAttention(
        trunk,
        _head(backbone, trunk, classes, head_widths),
        ClassScores(pool, sharpness, top, objective),
        Normalise(mean, std),
        overview_mpp=overview_mpp,
    )


def oaa_plus(
    classes: int,
    *,
    overview_mpp: float = 8.0,
    mean: Sequence[float] = HE_MEAN,
    std: Sequence[float] = HE_STD,
    backbone: str = "small",
    trunk_widths: Sequence[int] = (24, 48, 64),
    context: int = 7,
    head_widths: Sequence[int] = (64,),
    pool: str = "mean",
    sharpness: float = 4.0,
    top: float = 0.05,
    objective: str = "soft-margin",
    sets: str = "image",
    negative: int | None = None,
) -> IntegralAttention:
    """OAA+ for stained tissue: learns the maps that a training of `oaa` accumulated (the recipe's `maps`).

    Arguments not listed here are those of `oaa`.

    Args:
        classes: number of classes.
        sets: "image" or "class", see `IntegralAttention`.
        negative: index of a class that stands for "nothing there"; its slides are trained by L− alone.

    Raises:
        InputError: an argument is out of range or names nothing.
    """
    if negative is not None and not 0 <= negative < classes:
        raise InputError(f"negative must be the index of one of {classes} classes, got {negative}")
    trunk = _trunk(backbone, len(mean), trunk_widths, context)
    return IntegralAttention(
        trunk,
        _head(backbone, trunk, classes, head_widths),
        _head(backbone, trunk, classes, head_widths),
        ClassScores(pool, sharpness, top, objective),
        Normalise(mean, std),
        overview_mpp=overview_mpp,
        sets=sets,
        negative=negative,
    )


def _trunk(backbone: str, channels: int, widths: Sequence[int], context: int) -> TissueTrunk | Vgg16Trunk:
    one_of("backbone", backbone, BACKBONES)
    return Vgg16Trunk(channels) if backbone == "vgg16" else TissueTrunk(channels, widths, context)


def _head(backbone: str, trunk: TissueTrunk | Vgg16Trunk, classes: int, widths: Sequence[int]) -> nn.Sequential:
    return class_aware_head(trunk.dim, classes, widths, PAPER_DEVIATION if backbone == "vgg16" else None)
