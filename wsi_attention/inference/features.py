"""Features of tiles from a model's own encoder: what other libraries' tables of tiles are filled with."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_attention.checkpoint import ClassifierLike, as_classifier
from wsi_attention.defaults import BATCH
from wsi_attention.devices import Precision, autocast, device_of, placed
from wsi_attention.errors import InputError, TileReadError
from wsi_attention.inference.engine import engine_for, used_on
from wsi_attention.inference.exactness import precision_of
from wsi_attention.nn.bags import encode
from wsi_attention.nn.engines import computing_with
from wsi_attention.protocols import AttentionModel, contract_of
from wsi_attention.slide.given import SlideLike, as_slide
from wsi_attention.structures import Glimpse, TileSet
from wsi_attention.tiles.source import SlideSource

PART = 256
"""Tiles whose pixels are in memory at once."""


def has_encoder(classifier: ClassifierLike) -> bool:
    """Return whether the model encodes tiles one by one; OAA and RAMS-Trans do not."""
    return contract_of(as_classifier(classifier).model).encoder is not None


def tile_features(
    slide: SlideLike,
    classifier: ClassifierLike,
    tiles: TileSet | Glimpse,
    *,
    device: str = "auto",
    batch: int = BATCH,
    precision: Precision = "auto",
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read tiles and encode them as the model does when it predicts.

    Args:
        slide: an open slide, or what `open_slide` opens, such as a path.
        classifier: a model with a tile encoder, see `inference.has_encoder`; or its folder or shipped name.
        tiles: of one image, or the glimpse that read them, such as `prediction.glimpses[-1]`.
        device: as in `predict`.
        batch: tiles read by one task.
        precision: as in `predict`.

    Returns:
        (n, d), zeros where a tile could not be read; and (n,), which could.

    Raises:
        InputError: the model has no tile encoder, or slide, classifier or tiles is nothing of the kind.
        TileReadError: not one of the tiles could be read.
        SlideError, ModelError: the slide cannot be opened, or the model cannot be loaded.
    """
    chosen = tiles.tiles if isinstance(tiles, Glimpse) else tiles
    if not isinstance(chosen, TileSet):
        raise InputError(f"tiles must be a TileSet or a Glimpse, such as prediction.glimpses[-1]; got {_kind(tiles)}")
    where, loaded = device_of(device), as_classifier(classifier)
    if not has_encoder(loaded):
        raise InputError(f"model {loaded.name} encodes no single tiles; give one that does, such as ats or zoom-in")
    model, precision = contract_of(placed(loaded.model, where)), precision_of(loaded, precision)
    used, _ = used_on(loaded, where, precision)
    engine = computing_with(engine_for(loaded, used))
    with as_slide(slide) as opened, torch.inference_mode(), autocast(where, used), engine:
        return _encoded(SlideSource(opened, batch=batch), model, chosen)


def _kind(value: object) -> str:
    return type(value).__name__


def _encoded(
    source: SlideSource, model: AttentionModel, tiles: TileSet
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return what `tile_features` returns, part by part."""
    assert model.encoder is not None
    valid = np.zeros(len(tiles), np.bool_)
    found: NDArray[np.float32] | None = None
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
        raise TileReadError(f"{source.slide.path}: none of {len(tiles)} tiles could be read: {first}")
    return found, valid
