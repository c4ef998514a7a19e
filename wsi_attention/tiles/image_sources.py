"""A plain image as a model sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_attention.errors import UnsupportedSlideError
from wsi_attention.tiles.tensors import TensorSource

MPP = 1.0
"""µm per pixel where nobody says another: a model's scales are then in pixels."""


def channels_of(options: Mapping[str, object]) -> int | None:
    """Return how many channels the images of a method have, by its options; None where they do not say."""
    said, mean = options.get("channels"), options.get("mean")
    if isinstance(said, int):
        return said
    return len(mean) if isinstance(mean, Sequence) else None


def source_of(pixels: NDArray[np.uint8], channels: int | None, mpp: float, name: str) -> TensorSource:
    """Return an image (h, w, c) as what a model sees.

    Args:
        pixels: of the image.
        channels: that the model takes; None where nobody knows.
        mpp: µm per pixel.
        name: what errors call it.

    Raises:
        UnsupportedSlideError: it has other channels than the model takes.
    """
    if channels is not None and pixels.shape[-1] != channels:
        raise UnsupportedSlideError(f"{name}: {pixels.shape[-1]} channels, the model takes {channels}; convert it")
    return TensorSource(torch.from_numpy(np.moveaxis(pixels, -1, 0)[None].copy()), mpp=mpp)
