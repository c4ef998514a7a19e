"""A mask that the user brings, a picture or GeoJSON, and where it lies on the slide."""

from __future__ import annotations

import gzip
import json
import math
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import InputError, NoTissueError
from wsi_attention.geometry import Box
from wsi_attention.structures import TissueMask

IMAGES = (".png", ".tif", ".tiff")
POLYGONS = (".geojson", ".json", ".geojson.gz", ".json.gz")
MAX_PIXELS = 4_000_000
"""Pixels of a mask; finer ones are sampled down to this."""
BAND = 256
"""Rows of a mask that polygons are filled in at once."""
LARGEST = 1_000_000_000
"""Bytes of GeoJSON, unpacked, that are read at most."""


Rings = list[list[list[float]]]
"""A polygon of GeoJSON: rings of points [x, y, …], the outer ring first."""


def load_mask(path: str | Path, extent: tuple[int, int], bounds: Box | None = None) -> TissueMask:
    """Read a tissue mask.

    An image of any size is stretched over the whole slide, or over its bounds where it has their proportions; what is
    neither 0 nor transparent is tissue. GeoJSON (a Feature, a FeatureCollection, a list of features or a bare geometry)
    counts its Polygons and MultiPolygons, holes left out, in level-0 pixels; on a slide with bounds in QuPath's frame
    or the one it states (`slide.mask_frame`).

    Args:
        path: a .png, .tif, .tiff, .geojson or .json file, the last two also with .gz.
        extent: (w, h) of the slide in level-0 pixels.
        bounds: of the slide, `Slide.bounds`.

    Returns:
        A mask of at most 4 Mpx over the slide. Its notes say which frame was taken where there was a choice.

    Raises:
        InputError: the file is missing, broken, of another kind, has no polygon, was made for another slide, or lies
            outside this one.
        NoTissueError: the image marks nothing.
    """
    path = Path(path)
    name = path.name.lower()
    if not name.endswith(IMAGES + POLYGONS):
        found = path.suffix.lower() or "no suffix"
        raise InputError(f"{path}: a tissue mask is one of {' '.join(IMAGES + POLYGONS)}, not {found}")
    if not path.is_file():
        raise InputError(f"{path}: no such mask file")
    return (_from_image if name.endswith(IMAGES) else _from_polygons)(path, extent, bounds)


def _coarsest(extent: tuple[int, int], wanted: float) -> float:
    """Return the wanted downsample, raised where the mask would exceed its limit, never below 1."""
    return max(1.0, wanted, math.sqrt(extent[0] * extent[1] / MAX_PIXELS))


def _shape(extent: tuple[int, int], downsample: float) -> tuple[int, int]:
    return math.ceil(extent[1] / downsample), math.ceil(extent[0] / downsample)


def _from_image(path: Path, extent: tuple[int, int], bounds: Box | None) -> TissueMask:
    marked = _marked(path)
    height, width = marked.shape
    (left, top, across, down), note = frame_of_picture((width, height), path.name, extent, bounds)
    downsample = _coarsest(extent, min(across / width, down / height))
    rows, columns = _shape(extent, downsample)
    y = np.minimum((np.arange(rows) + 0.5) * downsample, extent[1] - 0.5)
    x = np.minimum((np.arange(columns) + 0.5) * downsample, extent[0] - 0.5)
    row = np.floor((y - top) / down * height).astype(np.int64)
    column = np.floor((x - left) / across * width).astype(np.int64)
    mask = np.zeros((rows, columns), np.bool_)
    inside = np.flatnonzero((row >= 0) & (row < height)), np.flatnonzero((column >= 0) & (column < width))
    mask[np.ix_(*inside)] = marked[np.ix_(row[inside[0]], column[inside[1]])]
    if not mask.any():
        raise NoTissueError(f"{path}: the mask marks no tissue, every pixel is 0; mark tissue with any other value")
    return TissueMask(mask, downsample, str(path), (note,) if note else ())


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


def _from_polygons(path: Path, extent: tuple[int, int], bounds: Box | None) -> TissueMask:
    try:
        value = json.loads(_text(path))
        rings = [_rings(polygon) for polygon in _polygons(value)]
    except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path}: not readable GeoJSON ({type(error).__name__}: {error})") from error
    corners = [(ring.min(0), ring.max(0)) for polygon in rings for ring in polygon]
    if not corners:
        raise InputError(f"{path}: no Polygon or MultiPolygon in this GeoJSON; a tissue mask needs at least one")
    around = np.stack([np.min([low for low, _ in corners], 0), np.max([high for _, high in corners], 0)])
    frame = frame_of_polygons(value, around, path.name, extent, bounds)
    downsample = _coarsest(extent, 1.0)
    mask = np.zeros(_shape(extent, downsample), np.bool_)
    for polygon in rings:
        _fill(mask, [(ring + np.array(frame.box[:2])) / downsample for ring in polygon])
    if not mask.any():
        raise InputError(f"{path}: no polygon lies on the slide of {extent[0]}×{extent[1]} level-0 pixels")
    return TissueMask(mask, downsample, str(path), (frame.note,) if frame.note else ())


def _text(path: Path) -> str:
    """Return the content of a file, unpacked if its name ends in .gz."""
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        raw = file.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise ValueError(f"more than {LARGEST / 1e9:g} GB of text")
    return raw.decode("utf-8-sig")


def _polygons(value: object) -> Iterator[Rings]:
    """Yield every polygon, a list of rings, in any GeoJSON value."""
    if isinstance(value, list):
        for item in value:
            yield from _polygons(item)
    if not isinstance(value, dict):
        return
    kind = value.get("type")
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


def _rings(polygon: Rings) -> list[NDArray[np.float64]]:
    rings = [np.asarray([point[:2] for point in ring], np.float64) for ring in polygon]
    for ring in rings:
        if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3 or not np.isfinite(ring).all():
            raise ValueError("a ring needs three or more points of finite x and y")
    return rings


def _fill(mask: NDArray[np.bool_], rings: list[NDArray[np.float64]]) -> None:
    """Add one polygon to the mask: the pixels whose centres lie in the first ring and in none of the others."""
    from shapely import intersects_xy, make_valid, prepare
    from shapely.geometry import Polygon

    if not rings:
        return
    low = np.maximum(np.floor(rings[0].min(0)).astype(np.int64), 0)
    high = np.minimum(np.ceil(rings[0].max(0)).astype(np.int64) + 1, mask.shape[::-1])
    polygon = make_valid(Polygon(rings[0], rings[1:]))
    prepare(polygon)
    x = np.arange(low[0], high[0]) + 0.5
    for top in range(int(low[1]), int(high[1]), BAND):
        rows = slice(top, min(top + BAND, int(high[1])))
        y = np.arange(rows.start, rows.stop)[:, None] + 0.5
        mask[rows, low[0] : high[0]] |= intersects_xy(polygon, x, y)


TOLERANCE = 0.02
"""Share of a side by which polygons may hang over their frame, and proportions of a picture differ from it."""


class MaskFrame(NamedTuple):
    """Where a mask lies.

    Attributes:
        box: what a picture is stretched over; its corner is what is added to the corners of polygons.
        note: what a reader should know about how that was decided; empty where there was nothing to decide.
    """

    box: Box
    note: str = ""


def frame_of_polygons(
    value: object, corners: NDArray[np.float64], name: str, extent: tuple[int, int], bounds: Box | None
) -> MaskFrame:
    """Return the frame of GeoJSON polygons.

    A file that states its offset (`metadata`, as our own do) has its origin there. QuPath's own files state none, but
    QuPath crops a slide to its bounds, so their origin is where those begin; unless the polygons do not fit into the
    bounds, or another tool wrote them, whose frame is level 0.

    Args:
        value: the whole GeoJSON value.
        corners: (2, 2), smallest and largest (x, y) of all polygons.
        name: of the file, for notes and errors.
        extent: (w, h) of the slide in level-0 pixels.
        bounds: of the slide.

    Raises:
        InputError: the file states an offset that is none, or was made for a slide of another size.
    """
    whole = Box(0, 0, *extent)
    stated = _stated(value, name, extent)
    if stated is not None:
        return MaskFrame(Box(*stated, *extent))
    if bounds is None or (bounds.x, bounds.y) == (0, 0):
        return MaskFrame(whole)
    shown, scanned = _fits(corners, Box(0, 0, bounds.w, bounds.h)), _fits(corners, bounds)
    if scanned and (not shown or _of_trident(value)):
        return MaskFrame(whole, f"{name}: read in level-0 pixels, not in QuPath's frame, which is the slide's bounds")
    choice = 'if it is in level-0 pixels, give it the member "metadata": {"offset": [0, 0]}'
    return MaskFrame(
        bounds, f"{name}: moved by ({bounds.x}, {bounds.y}) to the slide's bounds, as QuPath shows it; {choice}"
    )


def frame_of_picture(size: tuple[int, int], name: str, extent: tuple[int, int], bounds: Box | None) -> MaskFrame:
    """Return the frame of a picture of (w, h) pixels: the whole slide, or its bounds if only their proportions fit."""
    whole = Box(0, 0, *extent)
    if _proportional(size, extent):
        return MaskFrame(whole)
    if bounds is not None and _proportional(size, (bounds.w, bounds.h)):
        return MaskFrame(bounds, f"{name}: stretched over the slide's bounds, whose proportions it has")
    sizes = "{}×{} pixels, the slide {}×{}".format(*size, *extent)
    return MaskFrame(whole, f"{name}: stretched over the slide although their proportions differ (mask {sizes})")


def _stated(value: object, name: str, extent: tuple[int, int]) -> tuple[int, int] | None:
    facts = value.get("metadata") if isinstance(value, dict) else None
    if not isinstance(facts, dict):
        return None
    made_for = facts.get("extent")
    if isinstance(made_for, list) and len(made_for) == 2 and made_for != list(extent):
        raise InputError(f"{name}: made for a slide of {made_for} level-0 pixels, this one has {list(extent)}")
    offset = facts.get("offset")
    if offset is None:
        return None
    if not (isinstance(offset, list) and len(offset) == 2 and all(map(_whole, offset))):
        raise InputError(f"{name}: metadata.offset must be [x, y] in whole level-0 pixels, found {str(offset)[:60]}")
    return int(offset[0]), int(offset[1])


def _whole(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value == int(value)
    )


def _fits(corners: NDArray[np.float64], box: Box) -> bool:
    low, size = np.array([box.x, box.y]), np.array([box.w, box.h])
    over = TOLERANCE * size
    return bool((corners[0] >= low - over).all() and (corners[1] <= low + size + over).all())


def _of_trident(value: object) -> bool:
    """Tell whether every feature has TRIDENT's column; its contours are in level-0 pixels."""
    features = list(_features(value))
    return bool(features) and all("tissue_id" in properties for properties in features)


def _features(value: object) -> Iterator[dict[str, object]]:
    if isinstance(value, dict) and value.get("type") == "FeatureCollection":
        value = value["features"]
    for one in value if isinstance(value, list) else [value]:
        properties = one.get("properties") if isinstance(one, dict) else None
        yield properties if isinstance(properties, dict) else {}


def _proportional(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Tell whether two sizes have the same proportions, but for a pixel of rounding."""
    expected = size[0] * other[1] / other[0]
    return abs(expected - size[1]) <= max(1.0, other[1] / other[0], TOLERANCE * size[1])
