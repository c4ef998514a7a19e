"""The one way from places to features: ask what is known of tiles, read and encode the rest, hand it on to be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from wsi_attention.nn.bags import MOST, computes_aside, encode
from wsi_attention.protocols import Remembering, TileSource
from wsi_attention.structures import TileBatch, TileSet


def encoded(
    source: TileSource, tiles: TileSet, preprocess: nn.Module, encoder: nn.Module, real: Tensor | None = None
) -> tuple[Tensor | None, Tensor]:
    """Return the features of tiles, and which of them are valid; read and encode only what the source does not know.

    A source is asked for known features where the encoder does not learn in this pass (`repeatable`) and the source is
    `Remembering`. Tiles that it does not know are then encoded in a smaller batch than without it, which may change the
    last bits of their features (`nn.bags.in_chunks`). On a GPU tiles are read in parts, the next while it computes.

    Args:
        source: b images.
        tiles: (b, n) tiles; what is not known of them is read in one request.
        preprocess: (m, c, h, w) pixels of any dtype -> floats on the model's device.
        encoder: (m, c, h, w) -> (m, d).
        real: (b, n) bool, False for padding, which stands for another tile and is not encoded; all are real if None.

    Returns:
        Features (b, n, d), zeros where not valid, and valid (b, n) bool, False for padding and for tiles that could not
        be read. The features are None where no tile is valid.
    """
    if isinstance(source, Remembering) and repeatable(encoder):
        return _remembered(source, source, tiles, preprocess, encoder, real)
    return _read(source, tiles, preprocess, encoder, real)


def repeatable(encoder: nn.Module) -> bool:
    """Return whether a pass leaves the encoder as it is: in eval mode, and without gradient for its weights."""
    learns = torch.is_grad_enabled() and any(weight.requires_grad for weight in encoder.parameters())
    return not encoder.training and not learns


def _read(
    source: TileSource, tiles: TileSet, preprocess: nn.Module, encoder: nn.Module, real: Tensor | None
) -> tuple[Tensor | None, Tensor]:
    if real is None and len(tiles) > MOST and repeatable(encoder) and computes_aside(preprocess, encoder):
        parts = [tiles.select(slice(first, first + MOST)) for first in range(0, len(tiles), MOST)]
        return joined([_read_at_once(source, part, preprocess, encoder, None) for part in parts])
    return _read_at_once(source, tiles, preprocess, encoder, real)


def _read_at_once(
    source: TileSource, tiles: TileSet, preprocess: nn.Module, encoder: nn.Module, real: Tensor | None
) -> tuple[Tensor | None, Tensor]:
    batch = source.read(tiles)
    valid = batch.valid if real is None else batch.valid.to(real.device) & real
    if not bool(valid.any()):
        return None, valid
    return encode(TileBatch(batch.pixels, valid), preprocess, encoder), valid


def joined(parts: Sequence[tuple[Tensor | None, Tensor]]) -> tuple[Tensor | None, Tensor]:
    """Return what `encoded` found of parts as what it finds of all of them, in their order."""
    valid = torch.cat([real for _, real in parts], dim=1)
    known = next((features for features, _ in parts if features is not None), None)
    if known is None:
        return None, valid
    width = known.shape[-1]
    found = [known.new_zeros(*real.shape, width) if features is None else features for features, real in parts]
    return torch.cat(found, dim=1), valid


def _remembered(
    source: TileSource,
    memory: Remembering,
    tiles: TileSet,
    preprocess: nn.Module,
    encoder: nn.Module,
    real: Tensor | None,
) -> tuple[Tensor | None, Tensor]:
    """Do as `encoded` with a source that may know some of the tiles; `memory` is the same source."""
    found = memory.remembered(tiles)
    if found is None or not bool(found[1].any()):
        features, valid = _read(source, tiles, preprocess, encoder, real)
        if features is not None:
            memory.remember(tiles, features.detach(), valid)
        return features, valid
    features, known = found
    wanted = torch.ones_like(known) if real is None else real.to(known.device)
    valid = known & wanted
    if bool((wanted & ~known).any()):
        order, asked = _unknown(wanted & ~known)
        rest = _rows(tiles, order)
        new, read = _read(source, rest, preprocess, encoder, asked)
        if new is not None:
            memory.remember(rest, new.detach(), read)
            features, valid = _filled(features.to(new), valid, new, order, read)
    valid = valid if real is None else valid.to(real.device)
    return (_placed(features, preprocess, valid), valid) if bool(valid.any()) else (None, valid)


def _unknown(missing: Tensor) -> tuple[Tensor, Tensor]:
    """Return the places (b, k) of what is missing (b, n), and which of them are so; the others only fill a row."""
    counts = missing.sum(dim=-1)
    most = int(counts.max())
    order = (~missing).to(torch.uint8).argsort(dim=-1, stable=True)[:, :most]
    asked = torch.arange(most, device=missing.device) < counts.unsqueeze(-1)
    return torch.where(asked, order, order[:, :1]), asked


def _rows(tiles: TileSet, order: Tensor) -> TileSet:
    locations = np.take_along_axis(tiles.locations, order.cpu().numpy()[..., None], axis=1)
    return replace(tiles, locations=locations)


def _filled(features: Tensor, valid: Tensor, new: Tensor, order: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
    """Return features and validity with those of tiles that were read (b, k) at their places (b, k) in the rows."""
    images = torch.arange(len(order), device=order.device).unsqueeze(-1).expand_as(order)
    at = images[read.to(order.device)], order[read.to(order.device)]
    here = tuple(index.to(features.device) for index in at)
    features = features.index_put(here, new[read.to(new.device)])
    return features, valid.index_put(at, torch.ones_like(at[0], dtype=torch.bool))


def _placed(features: Tensor, preprocess: nn.Module, valid: Tensor) -> Tensor:
    """Return features on the device that the model's pixels go to, zeros where they are not valid."""
    held = next((one.device for one in (*preprocess.parameters(), *preprocess.buffers())), features.device)
    return features.to(held).masked_fill(~valid.to(held).unsqueeze(-1), 0.0)
