"""OAA and OAA+ models ready to train, for stained tissue; the paper's backbone by argument."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from wsi_attention.errors import InputError
from wsi_attention.models.oaa import AccumulatedAttention, ClassScores, IntegralAttention
from wsi_attention.models.options import one_of
from wsi_attention.nn.preprocess import HE_MEAN, HE_STD, Normalise
from wsi_attention.nn.trunks import TissueTrunk, Vgg16Trunk, class_aware_head

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
