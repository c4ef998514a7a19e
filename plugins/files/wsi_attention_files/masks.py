"""Coordinates of others as our tissue mask: attention then looks only where they have tiles."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from wsi_attention import TissueMask
from wsi_attention.errors import InputError, ResultsError
from wsi_attention_files.bag import Bag, check_on_slide

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

    Raises:
        InputError: as `tissue_of`.
    """
    from shapely import box, intersection, union_all
    from shapely.geometry import mapping

    check_on_slide(bag, extent, bag.name)
    x, y, w, h = bag.boxes.T
    area = intersection(union_all(box(x, y, x + w, y + h)), box(0, 0, *(extent or bag.known_extent)))
    parts = [one for one in getattr(area, "geoms", [area]) if one.geom_type == "Polygon" and not one.is_empty]
    if not parts:
        raise InputError(f"{bag.name}: no tiles, so no mask; leave the mask out to look everywhere")
    features = [
        {"type": "Feature", "properties": {}, "geometry": mapping(one)}  # type: ignore[no-untyped-call]
        for one in parts
    ]
    return {"type": "FeatureCollection", "features": features}


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
