"""A GeoJSON file or object as QuPath takes it up: where it looks for objects, and what is reported about them."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsi_attention.export.qupath_classes import short
from wsi_attention.export.qupath_geometry import DEPTHS

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


def load(path: Path, report: Report) -> Any:
    """What a file holds; None, and a problem in the report, where it is no JSON."""
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


def features_in(source: Any, report: Report) -> list[Any]:
    """The features of an object; none, and a problem in the report, where QuPath would find none."""
    if isinstance(source, list):
        return [_feature(one, report) for one in source]
    kind = source.get("type") if isinstance(source, dict) else None
    if isinstance(kind, str) and (kind == "Feature" or kind in BARE):
        return [_feature(source, report)]
    if kind == "FeatureCollection":
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


def _feature(one: Any, report: Report) -> Any:
    """A bare geometry as the annotation that QuPath makes of it, with a remark; anything else as it is."""
    kind = one.get("type") if isinstance(one, dict) else None
    if not isinstance(kind, str) or kind not in BARE:
        return one
    text = f"a bare geometry ({kind}), not a Feature: QuPath makes an unclassified annotation of it"
    if text not in report.remarks:
        report.remarks.append(text)
    return {"type": "Feature", "geometry": one, "properties": {"objectType": "annotation"}}
