"""Which part of a slide a user's mask is about: the whole of it, or the bounds that QuPath crops it to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import InputError
from wsi_attention.geometry import Box

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
    value: Any, corners: NDArray[np.float64], name: str, extent: tuple[int, int], bounds: Box | None
) -> MaskFrame:
    """The frame of GeoJSON polygons.

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
    """The frame of a picture of (w, h) pixels: the whole slide, or its bounds where only their proportions fit."""
    whole = Box(0, 0, *extent)
    if _proportional(size, extent):
        return MaskFrame(whole)
    if bounds is not None and _proportional(size, (bounds.w, bounds.h)):
        return MaskFrame(bounds, f"{name}: stretched over the slide's bounds, whose proportions it has")
    sizes = "{}×{} pixels, the slide {}×{}".format(*size, *extent)
    return MaskFrame(whole, f"{name}: stretched over the slide although their proportions differ (mask {sizes})")


def _stated(value: Any, name: str, extent: tuple[int, int]) -> tuple[int, int] | None:
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


def _whole(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value == int(value)
    )


def _fits(corners: NDArray[np.float64], box: Box) -> bool:
    low, size = np.array([box.x, box.y]), np.array([box.w, box.h])
    over = TOLERANCE * size
    return bool((corners[0] >= low - over).all() and (corners[1] <= low + size + over).all())


def _of_trident(value: Any) -> bool:
    """Whether every feature has TRIDENT's column; its contours are in level-0 pixels."""
    features = list(_features(value))
    return bool(features) and all("tissue_id" in properties for properties in features)


def _features(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict) and value.get("type") == "FeatureCollection":
        value = value["features"]
    for one in value if isinstance(value, list) else [value]:
        properties = one.get("properties") if isinstance(one, dict) else None
        yield properties if isinstance(properties, dict) else {}


def _proportional(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes have the same proportions, but for a pixel of rounding."""
    expected = size[0] * other[1] / other[0]
    return abs(expected - size[1]) <= max(1.0, other[1] / other[0], TOLERANCE * size[1])
