"""Zoom-In ready to train on stained tissue."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from wsi_attention.attention.contrastive import WARM_UP
from wsi_attention.errors import InputError
from wsi_attention.geometry import OVERVIEW_PIXELS
from wsi_attention.models.zoom_in import ZoomIn
from wsi_attention.nn.attention_nets import TissueAttentionNet
from wsi_attention.nn.encoder_choice import build_encoder
from wsi_attention.nn.heads import ScaledLinear
from wsi_attention.nn.pooled_attention import PooledAttention
from wsi_attention.nn.preprocess import HE_MEAN, HE_STD, Normalise

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
