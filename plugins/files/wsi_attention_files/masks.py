"""Coordinates of others as our tissue mask: attention then looks only where they have tiles."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wsi_attention import TissueMask
from wsi_attention.bags import Bag, check_on_slide
from wsi_attention.errors import InputError, ResultsError
from wsi_attention.geometry import Box

MAX_PIXELS = 4_000_000
"""Pixels of a mask; finer ones are no use to attention, which looks at an overview."""


def tissue_of(bag: Bag, extent: tuple[int, int] | None = None) -> TissueMask:
    """The tiles of a bag as a tissue mask, for `wsi_attention.predict(…, tissue=…)`.

    Args:
        bag: the tiles.
        extent: (w, h) of the slide where the bag does not say it.

    Raises:
        InputError: the extent is unknown, the tiles are of another slide, or there are none.
    """
    check_on_slide(bag, extent, bag.name)
    width, height = extent or bag.known_extent
    downsample = max(1.0, math.sqrt(width * height / MAX_PIXELS))
    mask = np.zeros((math.ceil(height / downsample), math.ceil(width / downsample)), np.bool_)
    # a pixel counts where its centre lies in a tile
    first = np.ceil(np.maximum(bag.locations, 0) / downsample - 0.5).astype(np.int64)
    last = np.ceil((bag.locations + bag.side) / downsample - 0.5).astype(np.int64)
    for (left, top), (right, bottom) in zip(first, last, strict=True):
        mask[top:bottom, left:right] = True
    if not mask.any():
        raise InputError(f"{bag.name}: no tiles, so no mask; leave the mask out to look everywhere")
    return TissueMask(mask, downsample, f"{bag.dialect or 'given'} coordinates")


def contours_of(bag: Bag, extent: tuple[int, int] | None = None) -> dict[str, Any]:
    """The area the tiles cover, clipped to the slide, as a GeoJSON FeatureCollection in level-0 pixels.

    Tiles side by side are one rectangle; rows of them stay apart, for outlines of tens of thousands of corners take
    minutes to fill.

    Raises:
        InputError: as `tissue_of`.
    """
    check_on_slide(bag, extent, bag.name)
    width, height = extent or bag.known_extent
    boxes = [box.clipped(width, height) for box in _runs(bag)]
    features = [_rectangle(box) for box in boxes if box.w and box.h]
    if not features:
        raise InputError(f"{bag.name}: no tiles, so no mask; leave the mask out to look everywhere")
    return {"type": "FeatureCollection", "features": features, "metadata": {"offset": [0, 0]}}


def _runs(bag: Bag) -> Iterator[Box]:
    """The tiles row by row, those that touch or overlap within a row as one box."""
    if not len(bag):
        return
    x, y = bag.locations[np.lexsort((bag.locations[:, 0], bag.locations[:, 1]))].T
    starts = np.flatnonzero(np.r_[True, (np.diff(y) != 0) | (np.diff(x) > bag.side)])
    ends = np.r_[starts[1:], len(x)] - 1
    for left, top, right in zip(x[starts].tolist(), y[starts].tolist(), x[ends].tolist(), strict=True):
        yield Box(left, top, right - left + bag.side, bag.side)


def _rectangle(box: Box) -> dict[str, Any]:
    x, y, right, bottom = box.x, box.y, box.x + box.w, box.y + box.h
    ring = [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]
    return {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}


def write_mask(bag: Bag, path: str | Path, extent: tuple[int, int] | None = None) -> Path:
    """Writes `contours_of` as a file for the column `mask` of a slides CSV.

    Raises:
        InputError: as `tissue_of`.
        ResultsError: the file cannot be written.
    """
    text = json.dumps(contours_of(bag, extent))
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"{path}: cannot be written ({error.strerror})") from error
    return path
