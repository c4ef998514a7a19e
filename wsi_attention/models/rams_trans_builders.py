"""RAMS-Trans ready to train on stained tissue."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from wsi_attention.attention.regions import ALPHA
from wsi_attention.errors import InputError
from wsi_attention.models.options import one_of
from wsi_attention.models.rams_trans import RamsTrans
from wsi_attention.nn.patch_stem import ConvStem
from wsi_attention.nn.preprocess import HE_MEAN, HE_STD, Normalise
from wsi_attention.nn.vit import VisionTransformer

STEMS = ("linear", "conv")


def rams_trans(
    classes: int,
    *,
    size: int = 224,
    patch: int = 16,
    dim: int = 192,
    depth: int = 6,
    heads: int = 3,
    stem: str = "linear",
    scales: int = 2,
    tile_mpp: float = 0.5,
    overview_mpp: float = 16.0,
    mean: Sequence[float] = HE_MEAN,
    std: Sequence[float] = HE_STD,
    alpha: float = ALPHA,
    boxes: int = 1,
    least_area: int = 1,
    least_side: int = 1,
    most_side: int | None = None,
    tokens: str = "own",
    rows: str = "class",
    shape: str = "square",
    background: str = "masked",
    first_weight: float = 1.0,
    later_weight: float = 1.0,
    inference: str = "all",
) -> RamsTrans:
    """RAMS-Trans with a small transformer: the whole slide as 224 × 224 pixels, then its region as as many.

    Arguments not listed here are `RamsTrans`'s. The paper's is size 448, patch 16, dim 768, depth 12, heads 12, with
    weights from ImageNet-21k.

    Args:
        classes: number of classes.
        size: S, pixels along a side of every view; a multiple of patch.
        patch: pixels along a side of a patch.
        dim: length of a token; a multiple of heads.
        depth: blocks.
        heads: attention heads of a block.
        stem: "linear", the paper's patch embedding; "conv", small convolutions, for training on few slides.
        scales: looks at the image, the first one at the whole.
        mean: of each channel, of 1.
        std: of each channel, of 1.

    Raises:
        InputError: an argument is out of range or names nothing.
    """
    one_of("stem", stem, STEMS)
    if min(size, patch, dim, depth, heads, scales) < 1 or size % patch or dim % heads:
        raise InputError(
            f"size, patch, dim, depth, heads, scales must be at least 1, size a multiple of patch, dim of heads, got "
            f"{size}, {patch}, {dim}, {depth}, {heads}, {scales}"
        )
    if stem == "conv" and patch < 2:
        raise InputError(f"stem 'conv' needs patches of 2 pixels at least, got {patch}")
    grid = (size // patch, size // patch)
    embedding = ConvStem(len(mean), dim, patch) if stem == "conv" else None
    return RamsTrans(
        VisionTransformer(len(mean), patch, grid, dim, depth, heads, scales, embedding),
        nn.Linear(dim, classes),
        Normalise(mean, std),
        tile_mpp=tile_mpp,
        overview_mpp=overview_mpp,
        alpha=alpha,
        boxes=boxes,
        least_area=least_area,
        least_side=least_side,
        most_side=most_side,
        tokens=tokens,
        rows=rows,
        shape=shape,
        background=background,
        first_weight=first_weight,
        later_weight=later_weight,
        inference=inference,
    )
