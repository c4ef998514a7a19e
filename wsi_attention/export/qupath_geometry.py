"""What QuPath asks of an object's geometry; all regions of a file are checked together, so many tiles cost little."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wsi_attention.export.geos import GEOS
from wsi_attention.json_values import JsonObject

Line: TypeAlias = list[list[float]]
"""Points of a line, ring or set of points; `_line_problem` and `_sound_boxes` check that they are numbers."""

DEPTHS = {"Point": 0, "MultiPoint": 1, "LineString": 1, "MultiLineString": 2, "Polygon": 2, "MultiPolygon": 3}
"""The geometries QuPath reads, and how many lists deep their points lie."""

PRECISION = 0.01
"""QuPath keeps coordinates to 1/100 px; a region smaller than that arrives empty."""

BOX_POINTS = 5
"""Points of a closed rectangle, which is what nearly every object of a large file is."""

TOGETHER = 512
"""Rectangles that wait to be looked at together; few, so that they are freed before Python's garbage collector runs."""


class GeometryChecks:
    """Takes the geometries of many features one by one, then checks their points and regions all at once.

    Args:
        extent: (w, h) of the image in QuPath's coordinates; None where it is not known.
    """

    def __init__(self, extent: tuple[int, int] | None) -> None:
        self._extent = extent
        self._flat: list[float] = []
        """x, y, x, y … of all points."""
        self._lines: list[tuple[int, int]] = []
        """(feature, points) of each line, ring, or set of points."""
        self._rings: list[tuple[int, int, int]] = []
        """(line, polygon, region) of each ring; a region is a Polygon or a MultiPolygon."""
        self._polygons = 0
        self._regions: list[int] = []
        """Feature of each region."""
        self._boxes: list[tuple[int, JsonObject]] = []
        """(feature, geometry) of what may be a rectangle; nothing in it has been looked at."""
        self._unread: list[tuple[int, str]] = []
        """(feature, problem) of rectangles that QuPath cannot read."""

    def take(self, feature: int, geometry: object) -> str | None:
        """Keep a geometry for `finish`; or return at once why QuPath cannot read it, and keep nothing."""
        if not isinstance(geometry, dict) or not geometry:
            return f"geometry is missing or empty ({str(geometry)[:40]}); QuPath drops the file"
        kind = geometry.get("type")
        if not isinstance(kind, str) or kind not in DEPTHS:
            return f"geometry type {str(kind)[:40]!r} is none that QuPath reads ({', '.join(DEPTHS)})"
        if kind == "Polygon" and _may_be_box(geometry.get("coordinates")):
            self._boxes.append((feature, geometry))
            if len(self._boxes) == TOGETHER:
                self._settle_boxes()
            return None
        return self._take_any(feature, kind, geometry.get("coordinates"))

    def _take_any(self, feature: int, kind: str, coordinates: object) -> str | None:
        parts = _parts(coordinates, DEPTHS[kind])
        if parts is None:
            return f"coordinates of the {kind} are missing, empty or not nested as its type asks; QuPath drops the file"
        lines = list(chain.from_iterable(parts))
        problem = next((text for text in (_line_problem(line, kind) for line in lines) if text), None)
        if problem is None:
            self._keep(feature, kind, parts)
        return problem

    def finish(self) -> list[tuple[int, str]]:
        """Return (feature, problem) of points outside the image and of regions that are invalid or have no area; of
        rectangles, also why QuPath cannot read them.
        """
        self._settle_boxes()
        if not self._flat:
            return self._unread
        points = np.array(self._flat, np.float64).reshape(-1, 2)
        lines = np.array(self._lines, np.int64)
        return [*self._unread, *self._outside(points, lines), *self._invalid(points, lines)]

    def _settle_boxes(self) -> None:
        """Keep the waiting rectangles together where every one is sound, else take them one by one."""
        boxes, self._boxes = self._boxes, []
        flat = _sound_boxes([geometry["coordinates"][0] for _, geometry in boxes])
        if flat is None:
            said = [(at, self._take_any(at, "Polygon", geometry["coordinates"])) for at, geometry in boxes]
            self._unread += [(at, problem) for at, problem in said if problem]
            return
        start = len(self._lines)
        self._rings += [(start + k, self._polygons + k, len(self._regions) + k) for k in range(len(boxes))]
        self._lines += [(at, BOX_POINTS) for at, _ in boxes]
        self._regions += [at for at, _ in boxes]
        self._polygons += len(boxes)
        self._flat += flat

    def _keep(self, feature: int, kind: str, parts: list[list[Line]]) -> None:
        for part in parts:
            for line in part:
                if kind.endswith("Polygon"):
                    self._rings.append((len(self._lines), self._polygons, len(self._regions)))
                self._lines.append((feature, len(line)))
                self._flat += chain.from_iterable(point[:2] for point in line)
            self._polygons += 1
        if kind.endswith("Polygon"):
            self._regions.append(feature)

    def _outside(self, points: NDArray[np.float64], lines: NDArray[np.int64]) -> list[tuple[int, str]]:
        if self._extent is None:
            return []
        out = ((points < 0) | (points > np.array(self._extent))).any(axis=1)
        owners, first = np.unique(np.repeat(lines[:, 0], lines[:, 1])[out], return_index=True)
        size = f"{self._extent[0]} x {self._extent[1]} px image"
        return [
            (int(owner), f"({x:g}, {y:g}) lies outside the {size}; is the bounds offset right?")
            for owner, (x, y) in zip(owners, points[out][first], strict=True)
        ]

    def _invalid(self, points: NDArray[np.float64], lines: NDArray[np.int64]) -> list[tuple[int, str]]:
        if not self._rings:
            return []
        line, polygon, region = np.array(self._rings, np.int64).T
        is_ring = np.zeros(len(lines), bool)
        is_ring[line] = True
        on_ring = np.repeat(is_ring, lines[:, 1])
        rings = GEOS.linearrings(points[on_ring], indices=np.repeat(np.arange(len(line)), lines[line, 1]))
        shapes = GEOS.polygons(rings) if len(rings) == len(self._regions) else _joined(rings, polygon, region)
        found = [
            (self._regions[at], f"region is invalid: {reason}; QuPath 0.6 drops the file")
            for at, reason in _reasons(shapes)
        ]
        empty = np.flatnonzero(GEOS.area(shapes) < PRECISION**2)
        return found + [(self._regions[at], "region has no area; it arrives empty in QuPath") for at in empty]


def _joined(rings: NDArray[np.object_], polygon: NDArray[np.int64], region: NDArray[np.int64]) -> NDArray[np.object_]:
    """Return rings as polygons with holes, polygons as regions."""
    _, first, polygon = np.unique(polygon, return_index=True, return_inverse=True)
    shapes: NDArray[np.object_] = GEOS.multipolygons(GEOS.polygons(rings, indices=polygon), indices=region[first])
    return shapes


def _reasons(shapes: NDArray[np.object_]) -> list[tuple[int, str]]:
    bad = np.flatnonzero(~GEOS.is_valid(shapes))
    return [(int(at), str(GEOS.is_valid_reason(shapes[at]))) for at in bad]


def _parts(coordinates: Any, depth: int) -> list[list[Line]] | None:
    """Return coordinates of any type as parts of lines of points; None where nested wrongly or a list is empty."""
    for _ in range(3 - depth):
        coordinates = [coordinates]
    if not _filled(coordinates) or not all(map(_filled, coordinates)):
        return None
    return coordinates if all(map(_filled, chain.from_iterable(coordinates))) else None


def _may_be_box(coordinates: object) -> bool:
    return (
        type(coordinates) is list
        and len(coordinates) == 1
        and type(coordinates[0]) is list
        and len(coordinates[0]) == BOX_POINTS
    )


def _sound_boxes(rings: list[Line]) -> list[float] | None:
    """Return x, y, x, y … of rings that are all closed and of finite numbers; None where one is not."""
    points = list(chain.from_iterable(rings))
    if not {list}.issuperset(map(type, points)) or not {2}.issuperset(map(len, points)):
        return None
    flat = list(chain.from_iterable(points))
    if not {int, float}.issuperset(map(type, flat)) or not _finite(flat):
        return None
    return flat if all(ring[0] == ring[-1] for ring in rings) else None


def _filled(value: object) -> bool:
    return isinstance(value, list) and bool(value)


def _line_problem(line: Line, kind: str) -> str | None:
    if not all(type(point) is list and 2 <= len(point) <= 3 for point in line):
        return f"a point must be [x, y], found {str(line)[:40]}; QuPath drops the file"
    values = list(chain.from_iterable(line))
    if not {int, float}.issuperset(map(type, values)) or not _finite(values):
        return f"a coordinate is no finite number in {str(line)[:60]}; QuPath drops the file"
    if kind.endswith("LineString") and len(line) < 2:
        return f"{kind} needs at least two points; QuPath drops the file"
    if kind.endswith("Polygon"):
        if len(line) < 4:
            return f"a ring has {len(line)} points, at least 4 are needed; QuPath drops the file"
        if line[0][:2] != line[-1][:2]:
            return "a ring is not closed: its last point must repeat its first; QuPath drops the file"
    return None


def _finite(values: list[float]) -> bool:
    try:
        return all(map(math.isfinite, values))
    except OverflowError:
        return False
