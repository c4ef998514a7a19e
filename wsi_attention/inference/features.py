"""Features of tiles from a model's own encoder: what other libraries' tables of tiles are filled with."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_attention.checkpoint import Classifier
from wsi_attention.defaults import BATCH
from wsi_attention.devices import Precision, autocast, device_of, placed, precision_on
from wsi_attention.errors import InputError, TileReadError
from wsi_attention.nn.bags import encode
from wsi_attention.protocols import contract_of
from wsi_attention.slide.slide import Slide
from wsi_attention.structures import TileSet
from wsi_attention.tiles.source import SlideSource

PART = 256
"""Tiles whose pixels are in memory at once."""


def has_encoder(classifier: Classifier) -> bool:
    """Return whether the model encodes tiles one by one; OAA and RAMS-Trans do not."""
    return contract_of(classifier.model).encoder is not None


def tile_features(
    slide: Slide,
    classifier: Classifier,
    tiles: TileSet,
    *,
    device: str = "auto",
    batch: int = BATCH,
    precision: Precision = "auto",
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read tiles and encode them as the model does when it predicts.

    Args:
        slide: open.
        classifier: a model with a tile encoder, see `has_encoder`.
        tiles: of one image, for instance `prediction.glimpses[-1].tiles`.
        device: as in `predict`.
        batch: tiles read by one task.
        precision: as in `predict`.

    Returns:
        (n, d), zeros where a tile could not be read; and (n,), which could.

    Raises:
        InputError: the model has no tile encoder.
        TileReadError: not one of the tiles could be read.
    """
    if not has_encoder(classifier):
        raise InputError(f"model {classifier.name} encodes no single tiles; give one that does, such as ats or zoom-in")
    where = device_of(device)
    model = contract_of(placed(classifier.model, where))
    assert model.encoder is not None
    source = SlideSource(slide, batch=batch)
    valid = np.zeros(len(tiles), np.bool_)
    found: NDArray[np.float32] | None = None
    with torch.inference_mode(), autocast(where, precision_on(where, precision)):
        for start in range(0, len(tiles), PART):
            part = source.read(tiles.select(slice(start, start + PART)))
            real = part.valid[0].numpy()
            if not real.any():
                continue
            values = encode(part, model.preprocess, model.encoder)[0].float().cpu().numpy()
            if found is None:
                found = np.zeros((len(tiles), values.shape[1]), np.float32)
            found[start : start + len(real)], valid[start : start + len(real)] = values, real
    if found is None:
        first = source.failures[0] if source.failures else "there are no tiles"
        raise TileReadError(f"{slide.path}: none of {len(tiles)} tiles could be read: {first}")
    return found, valid
