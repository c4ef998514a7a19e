"""TRT models ready to train on stained tissue."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from wsi_attention.errors import InputError
from wsi_attention.models.finer_tokens import FinerTokens
from wsi_attention.models.options import one_of
from wsi_attention.models.trt import ReAttentionTransformer
from wsi_attention.nn.encoder_choice import build_encoder
from wsi_attention.nn.patch_stem import ConvStem
from wsi_attention.nn.preprocess import HE_MEAN, HE_STD, Normalise
from wsi_attention.nn.vit import VisionTransformer

STEMS = ("linear", "conv")


def trt(
    classes: int,
    *,
    size: int = 224,
    patch: int = 16,
    dim: int = 192,
    depth: int = 6,
    heads: int = 3,
    stem: str = "conv",
    mass: float = 0.6,
    finer: bool = True,
    budget: int = 32,
    tile_size: int = 256,
    tile_mpp: float = 0.5,
    overview_mpp: float = 16.0,
    scored_by: str = "both",
    selection: str = "at-least-one",
    objective: str = "summed",
    switch: float = 0.5,
    overview_weight: float = 1.0,
    mean: Sequence[float] = HE_MEAN,
    std: Sequence[float] = HE_STD,
    encoder: str = "small",
    encoder_widths: Sequence[int] = (24, 48, 96, 128),
    features: int = 128,
    pool: str = "mean+max",
    encoder_frozen: bool = False,
) -> ReAttentionTransformer:
    """TRT for stained tissue, small enough for a CPU: a slide seen at 224², 14 × 14 patches, 32 tiles read.

    Close to the paper is `dim=768, depth=12, heads=12, stem="linear", finer=False, overview_weight=0`, with weights
    that were trained elsewhere; this package has none. Arguments not listed here are `ReAttentionTransformer`'s.

    Args:
        classes: number of classes.
        size: pixels along the side of the square in which the whole slide is seen; a multiple of the patch.
        patch: pixels along a patch's side. Best where a patch is about as wide on the slide as a tile: then a tile
            shows all of its patch.
        dim: channels of a token; a multiple of heads.
        depth: L, blocks, at least 2.
        heads: attention heads of a block.
        stem: "linear", the paper's patch embedding; "conv", small convolutions, for training on few slides.
        mass: θ; where attention is still flat, budget and not θ decides how many patches are kept.
        finer: whether the kept patches are read at a finer level.
        budget: most patches to keep, and to read; without `finer` there is no limit.
        tile_size: side of a tile in pixels.
        tile_mpp: µm per pixel of the tiles.
        overview_mpp: µm per pixel of the overview on which tissue is found.
        overview_weight: factor on the loss on what each patch shows by itself; 0 is the paper's loss.
        mean: of each channel, of 1.
        std: of each channel, of 1.
        encoder: a name that `nn.encoder_choice.build_encoder` knows.
        encoder_widths: channels of the small encoder's stages.
        features: length of the small encoder's feature.
        pool: "mean", "max" or "mean+max", of the small encoder.
        encoder_frozen: whether training leaves the encoder's weights as they are.

    Raises:
        InputError: an argument is out of range or names nothing.
    """
    _check(size=size, patch=patch, dim=dim, depth=depth, heads=heads, budget=budget)
    if not min(tile_size, tile_mpp, overview_mpp) > 0:
        raise InputError(
            f"tile_size, tile_mpp, overview_mpp must be above 0, got {tile_size}, {tile_mpp}, {overview_mpp}"
        )
    one_of("stem", stem, STEMS)
    embedding = ConvStem(len(mean), dim, patch) if stem == "conv" else None
    grid = size // patch, size // patch
    transformer = VisionTransformer(len(mean), patch, grid, dim, depth, heads, embed_patches=embedding)
    reader = None
    if finer:
        network = build_encoder(
            encoder, len(mean), widths=encoder_widths, features=features, pool=pool, frozen=encoder_frozen
        )
        reader = FinerTokens(network, dim, tile_size=tile_size, tile_mpp=tile_mpp)
    return ReAttentionTransformer(
        transformer,
        classes,
        Normalise(mean, std),
        size=size,
        tile_mpp=tile_mpp,
        overview_mpp=overview_mpp,
        mass=mass,
        budget=budget if finer else None,
        finer=reader,
        scored_by=scored_by,
        selection=selection,
        objective=objective,
        switch=switch,
        evidence=_evidence(dim, classes) if overview_weight > 0 else None,
        overview_weight=overview_weight,
    )


def _evidence(dim: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(dim, dim, 1), nn.GELU(), nn.Conv2d(dim, classes, 1))


def _check(*, size: int, patch: int, dim: int, depth: int, heads: int, budget: int) -> None:
    if min(patch - 1, heads, budget) < 1 or depth < 2 or size < patch or size % patch or dim < heads or dim % heads:
        raise InputError(
            "size must be a multiple of patch, dim of heads, patch and depth at least 2, budget at least 1, got "
            f"size {size}, patch {patch}, dim {dim}, depth {depth}, heads {heads}, budget {budget}"
        )
