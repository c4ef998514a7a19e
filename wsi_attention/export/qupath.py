"""How QuPath reads GeoJSON: its rules for files, features and classes, checked before QuPath does.

QuPath reads a file whole or not at all: one object it cannot read drops all others. What it reads without complaint
can still arrive as something else (a tile as an annotation) or lose its numbers. Both are problems here. Forms that
only old versions wrote, and that QuPath still reads rightly, are remarks. Established from how QuPath itself reads
objects, regions and classes (https://github.com/qupath/qupath, versions 0.4 to 0.6).
"""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from wsi_attention.errors import GeoJSONError
from wsi_attention.export.qupath_geometry import DEPTHS, GeometryChecks

OBJECT_TYPES = frozenset({"annotation", "detection", "cell", "tile", "tmaCore", "root"})
OLD_TYPE_IDS = frozenset(
    {
        "PathTileObject",
        "PathCellObject",
        "TMACoreObject",
        "PathDetectionObject",
        "PathRootObject",
        "PathAnnotationObject",
    }
)
"""Versions 0.2 and 0.3 wrote the kind of object as its id."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def validate(source: object, extent: tuple[int, int] | None = None) -> list[str]:
    """Return the problems QuPath would have with a GeoJSON file or object; none where it reads everything as meant.

    Args:
        source: a path (.geojson, .json, also with .gz), or the object itself: a FeatureCollection, a Feature, a list.
        extent: (w, h) of the image in QuPath's coordinates; with it, points outside the image are problems.
    """
    return inspect(source, extent).problems


def validate_parts(parts: Iterable[list[object]], extent: tuple[int, int] | None = None) -> list[str]:
    """Validate features that are made part by part, so that those of 20,000 tiles never exist all at once."""
    report = Report()
    _Checks(report, extent).run(chain.from_iterable(parts))
    return report.problems


def inspect(source: object, extent: tuple[int, int] | None = None) -> Report:
    """Validate as `validate` does; return the remarks and the number of features too."""
    report = Report()
    if isinstance(source, str | Path):
        source = load(Path(source), report)
        if report.problems:
            return report
    features = features_in(source, report)
    report.features = len(features)
    _Checks(report, extent).run(features)
    return report


def features_of(source: object) -> list[object]:
    """Return the features of a file or object, whatever they hold.

    Raises:
        GeoJSONError: no file, no JSON, or nothing in which QuPath looks for objects.
    """
    report = Report()
    loaded = load(Path(source), report) if isinstance(source, str | Path) else source
    found = [] if report.problems else features_in(loaded, report)
    if report.problems:
        raise GeoJSONError(report.problems[0])
    return found


class _Checks:
    """Goes through features once; regions are collected and checked together."""

    def __init__(self, report: Report, extent: tuple[int, int] | None) -> None:
        self._report = report
        self._geometry = GeometryChecks(extent)
        self._ids: dict[str, int] = {}
        self._old: dict[str, int] = {}
        self._found: list[tuple[int, str]] = []
        self._classes: dict[str, tuple[str | None, str | None]] = {}

    def run(self, features: Iterable[object]) -> None:
        for index, feature in enumerate(features):
            self._feature(index, feature)
        self._found += self._geometry.finish()
        self._found.sort(key=lambda one: one[0])
        self._report.problems += [f"feature {index}: {text}" for index, text in self._found]
        self._report.remarks += [f"{count} features: {text}" for text, count in self._old.items()]

    def _problem(self, index: int, text: str) -> None:
        self._found.append((index, text))

    def _remark(self, text: str) -> None:
        self._old[text] = self._old.get(text, 0) + 1

    def _feature(self, index: int, feature: object) -> None:
        if not isinstance(feature, dict):
            self._problem(index, f"expected an object, found {short(feature)}; QuPath drops the file")
            return
        if feature.get("type") != "Feature":
            self._problem(index, f"type must be 'Feature', found {short(feature.get('type'))}; QuPath may skip it")
        self._id(index, feature)
        for key in ("geometry", "nucleusGeometry") if "nucleusGeometry" in feature else ("geometry",):
            problem = self._geometry.take(index, feature.get(key))
            if problem:
                self._problem(index, problem)
        if "objectType" in feature:
            self._problem(index, "objectType must be inside properties; here QuPath ignores it and makes an annotation")
        self._properties(index, feature)

    def _id(self, index: int, feature: dict[str, object]) -> None:
        if "id" not in feature:
            self._remark("no id, QuPath gives a new one on every reading")
            return
        value = feature["id"]
        if isinstance(value, str) and _UUID.fullmatch(value):
            first = self._ids.setdefault(value.lower(), index)
            if first != index:
                self._problem(index, f"id {value} is already that of feature {first}")
        elif isinstance(value, str) and value in OLD_TYPE_IDS:
            self._remark("kind of object as its id (QuPath 0.2, 0.3)")
        elif isinstance(value, str | int | float) and not isinstance(value, bool):
            self._problem(index, f"id {short(value)} is no UUID; QuPath gives a new one on every reading")
        else:
            self._problem(index, f"id must be a UUID, found {short(value)}; QuPath drops the file")

    def _properties(self, index: int, feature: dict[str, object]) -> None:
        if "properties" not in feature:
            self._remark("no properties, QuPath makes an unclassified annotation")
            return
        properties = feature["properties"]
        if not isinstance(properties, dict):
            self._problem(index, f"properties must be an object, found {short(properties)}; QuPath drops the file")
            return
        self._object_type(index, properties, feature.get("id"))
        if "name" in properties and not _primitive(properties["name"]):
            self._problem(index, f"name must be text, found {short(properties['name'])}; QuPath drops the file")
        if "color" in properties:
            self._object_color(index, properties["color"])
        if "classification" in properties:
            self._classification(index, properties["classification"])
        if "measurements" in properties:
            self._measurements(index, properties["measurements"])
        children = properties.get("childObjects", properties.get("children"))
        for child in children if isinstance(children, list) else ():
            self._feature(index, child)

    def _object_type(self, index: int, properties: dict[str, object], identity: object) -> None:
        for key in ("objectType", "object_type", "type"):
            if key in properties:
                break
        else:
            if not (isinstance(identity, str) and identity in OLD_TYPE_IDS):
                self._remark("no objectType, QuPath makes an annotation")
            return
        kind = properties[key]
        if not isinstance(kind, str):
            self._problem(index, f"{key} must be text, found {short(kind)}; QuPath drops the file")
        elif kind not in OBJECT_TYPES and kind not in OLD_TYPE_IDS and kind != "tma_core":
            known = ", ".join(sorted(OBJECT_TYPES))
            self._problem(index, f"{key} {short(kind)} is unknown, QuPath makes an annotation; known: {known}")
        elif key != "objectType":
            self._remark(f"{key} instead of objectType")

    def _object_color(self, index: int, color: object) -> None:
        if isinstance(color, int) and not isinstance(color, bool):
            self._remark("object colour as one packed number (QuPath 0.2, 0.3)")
        elif not (isinstance(color, list) and len(color) == 3 and all(map(is_byte, color))):
            self._problem(index, f"color must be [red, green, blue] of 0 to 255, found {short(color)}")

    def _classification(self, index: int, found: object) -> None:
        if found is None:
            return
        key = repr(found)
        if key not in self._classes:
            self._classes[key] = classification_problem(found), classification_remark(found)
        problem, remark = self._classes[key]
        if problem:
            self._problem(index, f"classification {problem}")
        elif remark:
            self._remark(remark)

    def _measurements(self, index: int, found: object) -> None:
        if isinstance(found, list):
            self._remark("measurements as a list (QuPath 0.2, 0.3)")
            if not all(isinstance(one, dict) and isinstance(one.get("name"), str) and "value" in one for one in found):
                self._problem(index, "a measurement in a list needs a name and a value; QuPath drops the file")
                return
            found = {one["name"]: one["value"] for one in found}
        if not isinstance(found, dict):
            self._problem(index, f"measurements must be an object, found {short(found)}; QuPath ignores them")
            return
        for name, value in found.items():
            if type(value) is int or (type(value) is float and value - value == 0.0):
                continue
            self._number(index, name, value)

    def _number(self, index: int, name: str, value: object) -> None:
        if isinstance(value, str) and value.lower() in ("nan", "inf", "-inf", "infinity", "-infinity"):
            self._remark("a measurement as the text NaN or Infinity")
        elif isinstance(value, float):
            self._problem(index, f"measurement {name!r} is {value}; leave numbers that are not finite out")
        else:
            self._problem(index, f"measurement {name!r} must be a number, found {short(value)}")


def _primitive(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


BARE = frozenset(DEPTHS)
"""Geometries that QuPath also takes where it looks for features."""


@dataclass
class Report:
    """What QuPath would make of a file.

    Attributes:
        problems: one sentence each, starting with the feature's index: QuPath would drop the file, change an object or
            lose a number.
        remarks: old forms that QuPath still reads rightly.
        features: how many objects were looked at.
    """

    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    features: int = 0


def load(path: Path, report: Report) -> object:
    """Return the content of a file; None, and a problem in the report, where it is no JSON."""
    unknown: list[str] = []
    try:
        raw = path.read_bytes()
        if path.suffix.lower() == ".gz":
            raw = gzip.decompress(raw)
        loaded = json.loads(raw.decode("utf-8-sig"), parse_constant=unknown.append)
    except (OSError, EOFError, zlib.error) as error:
        report.problems.append(f"file: cannot be read ({error})")
    except (ValueError, RecursionError) as error:
        report.problems.append(f"file: not JSON ({error})")
    else:
        if unknown:
            report.problems.append(f"file: not JSON: {len(unknown)} bare {unknown[0]}; leave such numbers out")
        return loaded
    return None


def features_in(source: object, report: Report) -> list[object]:
    """Return the features of an object; none, and a problem in the report, where QuPath would find none."""
    if isinstance(source, list):
        return [_feature(one, report) for one in source]
    kind = source.get("type") if isinstance(source, dict) else None
    if isinstance(kind, str) and (kind == "Feature" or kind in BARE):
        return [_feature(source, report)]
    if isinstance(source, dict) and kind == "FeatureCollection":
        features = source.get("features")
        if isinstance(features, list):
            return features
        report.problems.append("file: a FeatureCollection without a list of features; QuPath finds no object")
    else:
        report.problems.append(
            f"file: expected a FeatureCollection, a Feature, a geometry or a list, found {short(kind or source)}; "
            "QuPath finds no object"
        )
    return []


def _feature(one: object, report: Report) -> object:
    """Return a bare geometry as the annotation that QuPath makes of it, with a remark; anything else unchanged."""
    kind = one.get("type") if isinstance(one, dict) else None
    if not isinstance(kind, str) or kind not in BARE:
        return one
    text = f"a bare geometry ({kind}), not a Feature: QuPath makes an unclassified annotation of it"
    if text not in report.remarks:
        report.remarks.append(text)
    return {"type": "Feature", "geometry": one, "properties": {"objectType": "annotation"}}


def classification_problem(found: object) -> str | None:
    """Return what is wrong with a classification that is not null; None where QuPath reads it."""
    if isinstance(found, str):
        return _name_problem(found)
    if not isinstance(found, dict):
        return f"must be an object with name and color, found {short(found)}; QuPath drops the file"
    if not found or "colorRGB" in found or "parentClass" in found:
        return None
    if not ({"name", "names"} & found.keys()) or "color" not in found:
        return f"needs both name and color, found {short(sorted(found))}; QuPath drops the file"
    color = found["color"]
    if not (isinstance(color, list) and len(color) in (3, 4) and all(map(is_byte, color))):
        return f"color must be [red, green, blue] of 0 to 255, found {short(color)}; QuPath may drop the file"
    names = found["names"] if found.get("name") is None else [found["name"]]
    problems = map(_name_problem, names if isinstance(names, list) and names else [names])
    return next((problem for problem in problems if problem), None)


def classification_remark(found: object) -> str | None:
    """Return an old form that QuPath still reads rightly; None where it is none."""
    if isinstance(found, str):
        return "classification as plain text, without a colour"
    if isinstance(found, dict) and ("colorRGB" in found or "parentClass" in found):
        return "classification with a packed colour (QuPath 0.2, 0.3)"
    return None


def _name_problem(name: object) -> str | None:
    if not isinstance(name, str):
        return f"name must be text, found {short(name)}; QuPath drops the file"
    if not all(part.strip() for part in name.split(":")) or "\n" in name or "\r" in name:
        return f"name {short(name)} is blank, has a blank part or a line break; QuPath drops the file"
    return None


def is_byte(value: object) -> bool:
    """Return whether a value is a whole number from 0 to 255."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def short(value: object) -> str:
    """Return a value as messages show it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
