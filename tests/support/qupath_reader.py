"""What QuPath makes of GeoJSON: a model of its reader, object by object, and of what it writes again.

`qupath_rules` says what is wrong with a file; here is what arrives. Established from QuPath's own reader
(https://github.com/qupath/qupath, 0.4 to 0.7) and compared with it by tests/plugins/test_qupath.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import shapely

from wsi_attention.errors import GeoJSONError
from wsi_attention.export.qupath import features_of
from wsi_attention.export.qupath_geometry import DEPTHS

_GEOS: Any = shapely
"""Shapely's functions carry no types."""

KINDS = {
    "PathTileObject": "tile",
    "tile": "tile",
    "PathCellObject": "cell",
    "cell": "cell",
    "TMACoreObject": "tmaCore",
    "tmaCore": "tmaCore",
    "tma_core": "tmaCore",
    "PathDetectionObject": "detection",
    "detection": "detection",
    "PathRootObject": "root",
    "root": "root",
}
"""Names of kinds, as files of any version have them; every other name becomes an annotation."""

SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True)
class QuPathObject:
    """An object as QuPath holds it.

    Attributes:
        kind: annotation, detection, cell, tile, tmaCore or root.
        shape: shapely geometry, coordinates as in the file.
        identity: its UUID; None where the file gives none and QuPath makes one up.
        name: as shown in lists.
        classes: the parts of its class, none for unclassified objects.
        color: of the class, (red, green, blue); a class that QuPath knows already keeps the colour it has there.
        measurements: by name, as float32, which is how QuPath keeps them.
        nucleus: of a cell.
        ellipse: whether the outline is the ellipse in the shape's bounding box.
        locked: against changes by hand.
        missing: of a TMA core.
        children: objects inside it.
    """

    kind: str
    shape: Any
    identity: str | None = None
    name: str | None = None
    classes: tuple[str, ...] = ()
    color: tuple[int, ...] | None = None
    measurements: Mapping[str, float] = field(default_factory=dict)
    nucleus: Any = None
    ellipse: bool = False
    locked: bool = False
    missing: bool = False
    children: tuple[QuPathObject, ...] = ()


def read_objects(source: str | Path | Any) -> list[QuPathObject]:
    """The objects that QuPath makes of a file or collection, whether or not they are what was meant.

    Raises:
        GeoJSONError: QuPath would drop the whole file.
    """
    read = []
    for index, feature in enumerate(features_of(source)):
        try:
            read.append(_object(feature))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, _GEOS.errors.GEOSException) as error:
            raise GeoJSONError(f"feature {index}: QuPath drops the file ({type(error).__name__}: {error})") from error
    return read


def write_objects(objects: Iterable[QuPathObject]) -> dict[str, Any]:
    """The FeatureCollection that QuPath 0.4 and later writes for some objects."""
    return {"type": "FeatureCollection", "features": [_feature(one) for one in objects]}


def _object(feature: dict[str, Any]) -> QuPathObject:
    properties = feature.get("properties", {})
    identity = str(feature["id"]) if "id" in feature else None
    geometry = feature["geometry"]
    kind = _kind(properties, identity)
    shape = _shape(geometry)
    nucleus = _shape(feature["nucleusGeometry"]) if "nucleusGeometry" in feature else None
    classes, color = _classification(properties.get("classification"))
    children = properties.get("childObjects", properties.get("children"))
    return QuPathObject(
        kind=kind,
        shape=shape,
        identity=_uuid(identity),
        name=_text(properties["name"]) if "name" in properties else None,
        classes=classes,
        color=color,
        measurements=_measurements(properties.get("measurements")),
        nucleus=nucleus if kind == "cell" else None,
        ellipse=bool(geometry.get("isEllipse")) or kind == "tmaCore",
        locked=properties.get("isLocked") is True and kind != "root",
        missing=properties.get("isMissing") is True and kind == "tmaCore",
        children=tuple(map(_object, children)) if isinstance(children, list) else (),
    )


def _kind(properties: dict[str, Any], identity: str | None) -> str:
    for key in ("objectType", "object_type", "type"):
        if key in properties:
            return KINDS.get(_text(properties[key]), "annotation")
    return KINDS.get(identity or "", "annotation")


def _shape(geometry: dict[str, Any]) -> Any:
    if geometry["type"] not in DEPTHS:
        raise ValueError(f"no geometry of type {geometry['type']}")
    if geometry["type"].endswith("Polygon"):
        polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        if any(ring[0] != ring[-1] for rings in polygons for ring in rings):
            raise ValueError("a ring is not closed")
    return _GEOS.force_2d(_GEOS.geometry.shape(geometry))


def _uuid(identity: str | None) -> str | None:
    try:
        return str(UUID(identity)) if identity else None
    except ValueError:
        return None


def _text(value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise TypeError(f"text is needed, found {value!r}")
    return str(value)


def _classification(found: Any) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    if found is None or found == {}:
        return (), None
    if isinstance(found, str):
        return _parts(found), None
    if "colorRGB" in found or "parentClass" in found:
        packed = found.get("colorRGB", 0)
        above, _ = _classification(found.get("parentClass"))
        return (*above, _text(found["name"])), (packed >> 16 & 255, packed >> 8 & 255, packed & 255)
    color = tuple(int(value) for value in found["color"][:3])
    if "name" in found:
        return _parts(found["name"]), color
    return tuple(map(_text, found["names"])), color


def _parts(name: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in name.split(":"))
    if not all(parts) or "\n" in name:
        raise ValueError(f"the class {name!r} has a blank part or a line break")
    return parts


def _measurements(found: Any) -> dict[str, float]:
    if isinstance(found, list):
        found = {_text(one["name"]): one["value"] for one in found}
    if not isinstance(found, dict):
        return {}
    known = {name: value for name, value in found.items() if isinstance(value, str | int | float)}
    return {name: _float32(value) for name, value in known.items() if not isinstance(value, bool)}


def _float32(value: str | float) -> float:
    return float(np.float32(SPECIAL.get(value.lower(), value) if isinstance(value, str) else value))


def _feature(one: QuPathObject) -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": one.kind}
    if one.name is not None:
        properties["name"] = one.name
    if one.classes:
        named = {"name": one.classes[0]} if len(one.classes) == 1 else {"names": list(one.classes)}
        properties["classification"] = named | ({"color": list(one.color)} if one.color else {})
    if one.locked:
        properties["isLocked"] = True
    if one.kind == "tmaCore":
        properties["isMissing"] = one.missing
    if one.measurements:
        properties["measurements"] = {name: _number(value) for name, value in one.measurements.items()}
    if one.children:
        properties["childObjects"] = [_feature(child) for child in one.children]
    geometry = _geometry(one.shape) | ({"isEllipse": True} if one.ellipse else {})
    feature = {"type": "Feature", "geometry": geometry, "properties": properties}
    if one.identity:
        feature["id"] = one.identity
    return feature | ({"nucleusGeometry": _geometry(one.nucleus)} if one.nucleus is not None else {})


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")


def _geometry(shape: Any) -> dict[str, Any]:
    rounded = _GEOS.transform(shape, lambda points: points.round(2))
    found: dict[str, Any] = json.loads(_GEOS.to_geojson(rounded))
    return found
