"""A batch of tiles through an encoder: only the valid ones, in chunks that bound memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsi_attention.structures import TileBatch

CHUNK = 64
"""Tiles encoded at once in eval mode."""


def encode(tiles: TileBatch, preprocess: nn.Module, encoder: nn.Module, chunk: int = CHUNK) -> Tensor:
    """Features (b, n, d) of all tiles; zeros where a tile is not valid.

    Args:
        tiles: pixels (b, n, c, h, w) and which of them are real; at least one is.
        preprocess: (m, c, h, w) of any dtype -> floats on the device.
        encoder: (m, c, h, w) -> (m, d).
        chunk: tiles at a time in eval mode; in train mode all go at once, for their activations are kept anyway.
    """
    valid = tiles.valid.flatten()
    pixels = tiles.pixels.flatten(0, 1)
    if not bool(valid.all()):
        pixels = pixels[valid.to(pixels.device)]
    parts = (pixels,) if encoder.training else torch.split(pixels, chunk)
    features = torch.cat([encoder(preprocess(part)) for part in parts])
    if features.shape[0] < valid.numel():
        everywhere = features.new_zeros(valid.numel(), features.shape[-1])
        features = everywhere.index_put((valid.to(features.device).nonzero().squeeze(-1),), features)
    return features.reshape(*tiles.valid.shape, -1)
