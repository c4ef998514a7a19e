"""A user's own tissue mask: a PNG or TIFF stretched over the slide, or GeoJSON polygons in level-0 pixels."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import InputError, NoTissueError
from wsi_attention.structures import TissueMask

IMAGES = (".png", ".tif", ".tiff")
POLYGONS = (".geojson", ".json")
MAX_PIXELS = 4_000_000
"""Pixels of a mask; finer ones are sampled down to this."""
BAND = 256
"""Rows of a mask that polygons are filled in at once."""


def load_mask(path: str | Path, extent: tuple[int, int]) -> TissueMask:
    """Reads a tissue mask.

    An image of any size is stretched over the whole slide; what is neither 0 nor transparent is tissue. GeoJSON
    (a Feature, a FeatureCollection, a list of features or a bare geometry) counts its Polygons and MultiPolygons,
    holes left out, in level-0 pixels.

    Args:
        path: a .png, .tif, .tiff, .geojson or .json file.
        extent: (w, h) of the slide in level-0 pixels.

    Returns:
        A mask of at most 4 Mpx over the slide.

    Raises:
        InputError: the file is missing, broken, of another kind, has no polygon, or lies outside the slide.
        NoTissueError: the image marks nothing.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in IMAGES + POLYGONS:
        raise InputError(f"{path}: a tissue mask is one of {' '.join(IMAGES + POLYGONS)}, not {suffix or 'no suffix'}")
    if not path.is_file():
        raise InputError(f"{path}: no such mask file")
    return _from_image(path, extent) if suffix in IMAGES else _from_polygons(path, extent)


def _coarsest(extent: tuple[int, int], wanted: float) -> float:
    """The wanted downsample, raised where the mask would exceed its limit, never below 1."""
    return max(1.0, wanted, math.sqrt(extent[0] * extent[1] / MAX_PIXELS))


def _shape(extent: tuple[int, int], downsample: float) -> tuple[int, int]:
    return math.ceil(extent[1] / downsample), math.ceil(extent[0] / downsample)


def _from_image(path: Path, extent: tuple[int, int]) -> TissueMask:
    marked = _marked(path)
    height, width = marked.shape
    downsample = _coarsest(extent, min(extent[0] / width, extent[1] / height))
    rows, columns = _shape(extent, downsample)
    y = (np.arange(rows) + 0.5) * downsample / extent[1] * height
    x = (np.arange(columns) + 0.5) * downsample / extent[0] * width
    row = np.minimum(y.astype(np.int64), height - 1)
    column = np.minimum(x.astype(np.int64), width - 1)
    mask = marked[row[:, None], column]
    if not mask.any():
        raise NoTissueError(f"{path}: the mask marks no tissue, every pixel is 0; mark tissue with any other value")
    return TissueMask(mask, downsample, str(path))


def _marked(path: Path) -> NDArray[np.bool_]:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                pixels = np.asarray(image)
    except Image.DecompressionBombError:
        raise InputError(f"{path}: the mask is too large to read; save it coarser, 4 Mpx are enough") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path}: not a readable PNG or TIFF mask ({error})") from error
    if pixels.ndim == 2:
        return np.asarray(pixels != 0)
    has_alpha = pixels.shape[2] in {2, 4}
    colour = pixels[..., :-1] if has_alpha else pixels
    marked = (colour != 0).any(-1)
    return np.asarray(marked & (pixels[..., -1] != 0) if has_alpha else marked)


def _from_polygons(path: Path, extent: tuple[int, int]) -> TissueMask:
    try:
        rings = [_rings(polygon) for polygon in _polygons(json.loads(path.read_text("utf-8-sig")))]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path}: not readable GeoJSON ({type(error).__name__}: {error})") from error
    if not rings:
        raise InputError(f"{path}: no Polygon or MultiPolygon in this GeoJSON; a tissue mask needs at least one")
    downsample = _coarsest(extent, 1.0)
    mask = np.zeros(_shape(extent, downsample), np.bool_)
    for polygon in rings:
        _fill(mask, [ring / downsample for ring in polygon])
    if not mask.any():
        raise InputError(f"{path}: no polygon lies on the slide of {extent[0]}×{extent[1]} level-0 pixels")
    return TissueMask(mask, downsample, str(path))


def _polygons(value: Any) -> Iterator[list[Any]]:
    """Every polygon, a list of rings, in any GeoJSON value."""
    if isinstance(value, list):
        for item in value:
            yield from _polygons(item)
        return
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "FeatureCollection":
        yield from _polygons(value["features"])
    elif kind == "Feature" and value["geometry"] is not None:
        yield from _polygons(value["geometry"])
    elif kind == "GeometryCollection":
        yield from _polygons(value["geometries"])
    elif kind == "Polygon":
        yield value["coordinates"]
    elif kind == "MultiPolygon":
        yield from value["coordinates"]


def _rings(polygon: list[Any]) -> list[NDArray[np.float64]]:
    rings = [np.asarray([point[:2] for point in ring], np.float64) for ring in polygon]
    for ring in rings:
        if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3 or not np.isfinite(ring).all():
            raise ValueError("a ring needs three or more points of finite x and y")
    return rings


def _fill(mask: NDArray[np.bool_], rings: list[NDArray[np.float64]]) -> None:
    """Adds one polygon to the mask: the pixels whose centres lie in the first ring and in none of the others."""
    from shapely import intersects_xy, make_valid, prepare
    from shapely.geometry import Polygon

    if not rings:
        return
    low = np.maximum(np.floor(rings[0].min(0)).astype(np.int64), 0)
    high = np.minimum(np.ceil(rings[0].max(0)).astype(np.int64) + 1, mask.shape[::-1])
    polygon = make_valid(Polygon(rings[0], rings[1:]))  # type: ignore[no-untyped-call]
    prepare(polygon)  # type: ignore[no-untyped-call]
    x = np.arange(low[0], high[0]) + 0.5
    for top in range(int(low[1]), int(high[1]), BAND):
        rows = slice(top, min(top + BAND, int(high[1])))
        y = np.arange(rows.start, rows.stop)[:, None] + 0.5
        mask[rows, low[0] : high[0]] |= intersects_xy(polygon, x, y)  # type: ignore[no-untyped-call]
