"""Traits of a slide from what a model has looked at: its overview, a few tiles again, and the feature it decided on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_attention.certainty.traits import Traits, detail_traits, overview_traits, spaced
from wsi_attention.errors import SlideError
from wsi_attention.geometry import Grid
from wsi_attention.protocols import TileSource, contract_of
from wsi_attention.structures import Glimpse, Output

CELL = 8
"""Overview pixels of a side of the squares that are asked for tissue."""


def traits_of(model: object, source: TileSource, output: Output) -> Traits:
    """Return what a slide looks like; groups that cannot be known of it are left out.

    At most `certainty.traits.TILES` of the tiles of the last glimpse are read again, because those that a store of
    features knows were not read at all, and a number must not depend on that.

    Args:
        model: that looked at it.
        source: the slide with its pixels; one of features alone tells only what the model makes of it.
        output: of the look.
    """
    found: dict[str, NDArray[np.float64]] = {}
    overview = _overview(model, source)
    if overview is not None:
        pixels, tissue = overview
        found |= overview_traits(pixels, tissue)
        detail = _detail(source, output.glimpses[0])
        found |= {} if detail is None else {"detail": detail}
    if output.pooled is not None:
        found["features"] = output.pooled[0].detach().double().cpu().numpy()
    return found


def _overview(model: object, source: TileSource) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
    """Return the overview (h, w, 3) and its tissue (h, w); None where the source has no pixels."""
    mpp = contract_of(model).overview_mpp
    whole = getattr(source, "whole_overview_downsample", source.overview_downsample)
    downsample = whole(mpp)
    view = source.overview(downsample)
    if view.dtype != torch.uint8 or view.shape[1] != 3:
        return None
    rows, cols = view.shape[-2:]
    cells = Grid(-(-rows // CELL), -(-cols // CELL), (CELL * downsample, CELL * downsample))
    tissue = source.tissue(cells)[0].numpy().repeat(CELL, 0).repeat(CELL, 1)[:rows, :cols]
    return view[0].permute(1, 2, 0).numpy(), tissue


def _detail(source: TileSource, glimpses: tuple[Glimpse, ...]) -> NDArray[np.float64] | None:
    last = next((one for one in reversed(glimpses) if one.valid.any()), None)
    if last is None:
        return None
    places = last.tiles.locations[0][last.valid]
    tiles = replace(last.tiles, locations=places[spaced(len(places))][None])
    try:
        batch = source.read(tiles)
    except SlideError:
        return None
    valid = batch.valid[0].numpy()
    if batch.pixels.dtype != torch.uint8 or not valid.any():
        return None
    return detail_traits(batch.pixels[0].permute(0, 2, 3, 1).numpy()[valid])
