"""Tissues and tiles of a `WSIData` as the mask that attention is confined to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from wsidata import WSIData

from wsi_attention import TissueMask
from wsi_attention.errors import InputError

TISSUES, TILES = "tissues", "tiles"
"""The keys that LazySlide gives them."""
MAX_PIXELS = 1_000_000
"""Pixels of a mask; attention looks at an overview of hardly more."""


def key_of(wsi: WSIData, asked: str | bool | None, usual: str) -> str | None:
    """The key of shapes to use: as asked, the usual one where it is there and nothing is asked, or none.

    Args:
        wsi: with its shapes.
        asked: a key; None for the usual one; False for none.
        usual: the key that LazySlide gives.

    Raises:
        InputError: there are no shapes of that name.
    """
    if asked is None or asked is True:
        return usual if usual in wsi.shapes else None
    if asked is False:
        return None
    if asked not in wsi.shapes:
        there = ", ".join(sorted(wsi.shapes)) or "none"
        raise InputError(f"{wsi.name}: no shapes {asked!r}; there are: {there}")
    return asked


def candidates(wsi: WSIData, tissue_key: str | None, tile_key: str | None) -> TissueMask | None:
    """Where attention may look: inside the tissues, inside the tiles, inside both; None where neither is given.

    A mask pixel counts where its centre lies in a shape; holes of tissues do not count.

    Args:
        wsi: with its shapes, in level-0 pixels as wsidata keeps them.
        tissue_key: of contours.
        tile_key: of tiles.

    Raises:
        InputError: nothing is left.
    """
    keys = [key for key in (tissue_key, tile_key) if key is not None]
    if not keys:
        return None
    height, width = (int(side) for side in wsi.properties.shape)
    downsample = max(1.0, math.sqrt(width * height / MAX_PIXELS))
    mask = np.ones((math.ceil(height / downsample), math.ceil(width / downsample)), np.bool_)
    for key in keys:
        mask &= _covered(wsi.shapes[key].geometry.to_numpy(), mask.shape, downsample)
    if not mask.any():
        what = " and ".join(repr(key) for key in keys)
        raise InputError(f"{wsi.name}: shapes {what} leave no place on the slide to look at; give other keys, or False")
    return TissueMask(mask, downsample, f"wsidata shapes {', '.join(keys)}")


def _covered(shapes: NDArray[Any], size: tuple[int, ...], downsample: float) -> NDArray[np.bool_]:
    """(h, w) bool: pixels whose centres lie in one of the shapes."""
    mask = np.zeros(size, np.bool_)
    for shape in shapes:
        if shape is None or shape.is_empty:
            continue
        left, top, right, bottom = shape.bounds
        rows = _centres(top, bottom, size[0], downsample)
        columns = _centres(left, right, size[1], downsample)
        sound = shape if shape.is_valid else shapely.make_valid(shape)
        shapely.prepare(sound)
        x, y = np.meshgrid((columns + 0.5) * downsample, (rows + 0.5) * downsample)
        mask[np.ix_(rows, columns)] |= shapely.intersects_xy(sound, x, y)
    return mask


def _centres(low: float, high: float, count: int, downsample: float) -> NDArray[np.int64]:
    """Pixels along one axis whose centres lie between two level-0 coordinates."""
    first = max(0, math.ceil(low / downsample - 0.5))
    return np.arange(first, min(count, math.floor(high / downsample - 0.5) + 1))
