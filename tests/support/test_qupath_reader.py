from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from qupath_reader import QuPathObject, read_objects, write_objects

from wsi_attention.errors import GeoJSONError
from wsi_attention.export.geojson import geojson_features as features
from wsi_attention.export.qupath import inspect
from wsi_attention.testing.exporters import EXAMPLES, example_prediction

CELL = {"shape": shapely.box(0, 0, 9, 9), "nucleus": shapely.box(3, 3, 5, 5)}
INSIDE = QuPathObject("detection", shapely.Point(2, 2), identity="00000000-0000-4000-8000-000000000009")
KINDS = {
    "derived": QuPathObject("annotation", shapely.box(0, 0, 9, 9), classes=("Tumor", "Positive"), color=(9, 0, 0)),
    "hole": QuPathObject("annotation", shapely.box(0, 0, 9, 9).difference(shapely.box(2, 2, 4, 4)), locked=True),
    "parts": QuPathObject("annotation", shapely.MultiPolygon([shapely.box(0, 0, 5, 5), shapely.box(9, 9, 12.5, 12)])),
    "point": QuPathObject("annotation", shapely.Point(3.5, 4.25), name="here"),
    "points": QuPathObject("annotation", shapely.MultiPoint([(1, 2), (3, 4)])),
    "line": QuPathObject("annotation", shapely.LineString([(0, 0), (10, 10), (20, 0)])),
    "lines": QuPathObject("annotation", shapely.MultiLineString([[(0, 0), (10, 10)], [(20, 20), (30, 30)]])),
    "ellipse": QuPathObject("annotation", shapely.box(5, 5, 25, 15), ellipse=True),
    "detection": QuPathObject("detection", shapely.box(1, 1, 4, 4), measurements={"Area": 9.0, "x": float("inf")}),
    "tile": QuPathObject("tile", shapely.box(0, 0, 64, 64), measurements={"Weight": 0.125}),
    "cell": QuPathObject("cell", **CELL, measurements={"x": 1.0}),
    "core": QuPathObject("tmaCore", shapely.box(0, 0, 60, 60), ellipse=True, missing=True, name="A-1"),
    "children": QuPathObject("annotation", shapely.box(0, 0, 9, 9), children=(INSIDE,)),
}  # fmt: skip


def found(one: QuPathObject) -> tuple:
    shapes = shapely.normalize(one.shape).wkt, one.nucleus and shapely.normalize(one.nucleus).wkt
    return (*shapes, replace(one, shape=None, nucleus=None, children=()), tuple(map(found, one.children)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_object_comes_back(kind: str) -> None:
    given = replace(KINDS[kind], identity="00000000-0000-4000-8000-000000000001")
    written = write_objects([given])
    [again] = read_objects(written)
    assert found(again) == found(given)
    assert inspect(written).problems == []


@pytest.mark.parametrize("kind", EXAMPLES)
def test_our_objects_arrive_as_they_are_meant(kind: str) -> None:
    collection = features(example_prediction(kind=kind))
    for feature, one in zip(collection["features"], read_objects(collection), strict=True):
        properties = feature["properties"]
        assert one.kind == properties["objectType"]
        assert one.identity == feature["id"]
        assert one.classes == (properties["classification"]["name"],)
        assert one.measurements == {name: np.float32(value) for name, value in properties["measurements"].items()}
        assert shapely.equals(one.shape, shapely.geometry.shape(feature["geometry"]))


def tile(**changes) -> dict:
    made = copy.deepcopy(write_objects([KINDS["tile"]])["features"][0])
    made["properties"] |= changes
    return made


def test_what_quietly_becomes_something_else() -> None:
    assert read_objects([tile(objectType="region")])[0].kind == "annotation"
    beside = tile()
    beside["objectType"] = beside["properties"].pop("objectType")
    assert read_objects([beside])[0].kind == "annotation"
    assert read_objects([tile(measurements={"x": None, "y": True, "z": "NaN"})])[0].measurements.keys() == {"z"}
    assert read_objects([tile(id="7") | {"id": "7"}])[0].identity is None


@pytest.mark.parametrize(
    "changes",
    [{"classification": {"name": "a"}}, {"classification": "a: "}, {"name": None}, {"measurements": [{"name": "x"}]},
     {"measurements": {"x": "high"}}, {"classification": 3}],
)  # fmt: skip
def test_one_object_drops_the_file(changes: dict) -> None:
    with pytest.raises(GeoJSONError, match="feature 1: QuPath drops the file"):
        read_objects([tile(), tile(**changes)])


def test_an_open_ring_drops_the_file() -> None:
    bad = tile()
    bad["geometry"]["coordinates"] = [[[0, 0], [9, 0], [9, 9], [0, 9]]]
    with pytest.raises(GeoJSONError, match="not closed"):
        read_objects([bad])


def test_what_is_no_collection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GeoJSONError, match="expected a FeatureCollection"):
        read_objects({"type": "Topology"})
    with pytest.raises(GeoJSONError, match="cannot be read"):
        read_objects(tmp_path / "none.geojson")


def test_real_exports_are_read_and_written_again(shared_data: Path) -> None:
    for path in sorted((shared_data / "annotations").glob("qupath-*/*json")):
        objects = read_objects(path)
        again = read_objects(write_objects(objects))
        assert [found(one)[2:] for one in again] == [found(one)[2:] for one in objects], path
        for one, other in zip(objects, again, strict=True):
            assert one.shape.area == pytest.approx(other.shape.area, rel=1e-3, abs=0.1), path
