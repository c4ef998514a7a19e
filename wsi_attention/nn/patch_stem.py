"""Patches to tokens by small convolutions instead of one linear map.

Xiao et al., "Early Convolutions Help Transformers See Better", NeurIPS 2021, https://arxiv.org/abs/2106.14881. A linear
map of 16 × 16 pixels needs far more images to learn stain and edges from than a few thousand slides offer.
"""

from __future__ import annotations

from torch import nn

from wsi_attention.nn.blocks import ChannelNorm

FIRST = 24
"""Channels after the first convolution; they double from one to the next."""


class ConvStem(nn.Sequential):
    """(b, c, h, w) -> (b, d, h / patch, w / patch): a strided convolution for each prime factor of the patch.

    Every convolution's field is centred on the cell it stands for, so a token's is centred on its patch; with the usual
    odd kernels it would lie almost half a patch up and left. A linear map of each token ends it. Takes the place of
    `VisionTransformer`'s `embed_patches`. Normalisation is over each pixel's channels, so one image alone in a batch
    trains as well as many. Sides are multiples of the patch.

    Args:
        channels: c, of the images.
        dim: d, of the tokens.
        patch: pixels along a patch's side, 2 at least.
    """

    def __init__(self, channels: int, dim: int, patch: int) -> None:
        layers: list[nn.Module] = []
        width = channels
        for number, stride in enumerate(_factors(patch)):
            wider, margin = min(dim, FIRST * 2**number), stride // 2
            layers += [nn.Conv2d(width, wider, stride + 2 * margin, stride, margin), ChannelNorm(wider), nn.GELU()]
            width = wider
        super().__init__(*layers, nn.Conv2d(width, dim, 1))


def _factors(number: int) -> list[int]:
    """Prime factors, the smallest first.

    Raises:
        ValueError: the number is below 2.
    """
    if number < 2:
        raise ValueError(f"a convolutional stem needs patches of 2 pixels at least, got {number}")
    found, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1
    return found
