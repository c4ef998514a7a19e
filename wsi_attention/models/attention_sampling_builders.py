"""ATS models ready to train: for stained tissue, and the paper's for Megapixel MNIST."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from wsi_attention.geometry import OVERVIEW_PIXELS
from wsi_attention.models.attention_sampling import AttentionSampling
from wsi_attention.nn.attention_nets import MnistAttentionNet, TissueAttentionNet
from wsi_attention.nn.encoder_choice import build_encoder
from wsi_attention.nn.encoders import MnistEncoder
from wsi_attention.nn.heads import ScaledLinear
from wsi_attention.nn.preprocess import HE_MEAN, HE_STD, Normalise


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
