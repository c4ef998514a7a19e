from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path

import pytest
from qupath_reader import read_objects

from wsi_attention.export.geojson import geojson_features as features
from wsi_attention.export.qupath import inspect, validate
from wsi_attention.testing.exporters import example_prediction

SQUARE = [[[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]]
ID = "12345678-1234-5678-1234-567812345678"


def feature(**changes) -> dict:
    """A sound tile; `key=...` sets a feature's key, `properties__key=...` one of its properties."""
    made = {
        "type": "Feature",
        "id": ID,
        "geometry": {"type": "Polygon", "coordinates": SQUARE},
        "properties": {
            "objectType": "tile",
            "classification": {"name": "a", "color": [1, 2, 3]},
            "measurements": {"x": 1.5, "y": 2},
        },
    }
    for key, value in changes.items():
        place, _, inner = key.partition("__")
        if inner:
            made["properties"][inner] = value
        else:
            made[place] = value
    return made


def collection(*found: dict) -> dict:
    return {"type": "FeatureCollection", "features": list(found)}


def test_a_sound_file_has_no_problem_and_no_remark() -> None:
    report = inspect(collection(feature()))
    assert (report.problems, report.remarks, report.features) == ([], [], 1)


BROKEN = {
    "object type beside properties": (feature(objectType="tile"), "inside properties"),
    "unknown object type": (feature(properties__objectType="region"), "unknown"),
    "object type null": (feature(properties__objectType=None), "objectType must be text"),
    "classification without colour": (feature(properties__classification={"name": "a"}), "both name and color"),
    "classification without name": (feature(properties__classification={"color": [1, 2, 3]}), "both name and color"),
    "colour of two": (feature(properties__classification={"name": "a", "color": [1, 2]}), "color must be"),
    "colour of floats": (feature(properties__classification={"name": "a", "color": [0.5, 0, 1]}), "color must be"),
    "colour too large": (feature(properties__classification={"name": "a", "color": [0, 0, 256]}), "color must be"),
    "colour as text": (feature(properties__classification={"name": "a", "color": "#ff0000"}), "color must be"),
    "blank class": (feature(properties__classification={"name": "  ", "color": [1, 2, 3]}), "blank"),
    "class with a blank part": (feature(properties__classification={"name": "a: ", "color": [1, 2, 3]}), "blank"),
    "class with a line break": (feature(properties__classification={"name": "a\nb", "color": [1, 2, 3]}), "blank"),
    "class a number": (feature(properties__classification={"name": 3, "color": [1, 2, 3]}), "name must be text"),
    "classification a number": (feature(properties__classification=3), "must be an object"),
    "no names": (feature(properties__classification={"names": [], "color": [1, 2, 3]}), "name must be text"),
    "measurement NaN": (feature(properties__measurements={"x": float("nan")}), "'x' is nan"),
    "measurement infinite": (feature(properties__measurements={"x": float("inf")}), "'x' is inf"),
    "measurement null": (feature(properties__measurements={"x": None}), "must be a number"),
    "measurement text": (feature(properties__measurements={"x": "high"}), "must be a number"),
    "measurement true": (feature(properties__measurements={"x": True}), "must be a number"),
    "measurements a number": (feature(properties__measurements=3), "measurements must be an object"),
    "list without value": (feature(properties__measurements=[{"name": "x"}]), "needs a name and a value"),
    "id null": (feature(id=None), "id must be a UUID"),
    "id a number": (feature(id=7), "no UUID"),
    "id text": (feature(id="tile-7"), "no UUID"),
    "id object": (feature(id={}), "id must be a UUID"),
    "properties null": (feature(properties=None), "properties must be an object"),
    "name null": (feature(properties__name=None), "name must be text"),
    "object colour": (feature(properties__color=[1, 2]), "color must be"),
    "type": (feature(type="feature"), "type must be 'Feature'"),
    "geometry null": (feature(geometry=None), "geometry is missing"),
    "geometry empty": (feature(geometry={}), "geometry is missing"),
    "nucleus crossing": (
        feature(nucleusGeometry={"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]]}),
        "invalid",
    ),
    "broken child": (feature(properties__childObjects=[feature(id=None)]), "id must be a UUID"),
    "no object": (["not", "a", "feature"], "expected an object"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_one_bad_feature_is_found_and_named(case: str) -> None:
    bad, words = BROKEN[case]
    sound = [feature(id=f"{k:08x}-0000-5000-8000-000000000000") for k in range(3)]
    problems = validate(collection(*sound[:2], copy.deepcopy(bad), sound[2]))
    assert problems, case
    assert all(problem.startswith("feature 2: ") for problem in problems)
    assert any(words in problem for problem in problems), problems


def test_an_id_used_twice_is_found_whatever_its_case() -> None:
    [problem] = validate(collection(feature(id=ID.upper()), feature()))
    assert problem == f"feature 1: id {ID} is already that of feature 0"


def test_points_outside_the_image_are_found_only_where_its_size_is_known() -> None:
    assert validate(collection(feature()), (10, 10)) == []
    assert validate(collection(feature())) == []
    [problem] = validate(collection(feature()), (10, 9))
    assert "(10, 10) lies outside the 10 x 9 px image" in problem


@pytest.mark.parametrize("source", [{"features": []}, {"type": "Topology"}, "text", 3, None])
def test_what_is_no_collection_is_one_problem(source, tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(source))
    [problem] = validate(path)
    assert problem.startswith("file: expected a FeatureCollection")


def test_features_must_be_a_list() -> None:
    [problem] = validate({"type": "FeatureCollection", "features": {}})
    assert "without a list of features" in problem


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b'{"type": "FeatureCollection", "features": [NaN]}', "bare NaN"),
        (b'[{"x": Infinity, "y": -Infinity}]', "2 bare Infinity"),
    ],
)
def test_what_is_no_json_is_one_problem(raw: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_bytes(raw)
    [problem] = validate(path)
    assert words in problem


def test_missing_and_truncated_files_are_problems(tmp_path: Path) -> None:
    assert "cannot be read" in validate(tmp_path / "none.geojson")[0]
    whole = gzip.compress(json.dumps(collection(feature())).encode())
    (tmp_path / "a.geojson.gz").write_bytes(whole)
    (tmp_path / "b.geojson.gz").write_bytes(whole[:-12])
    (tmp_path / "c.geojson.gz").write_bytes(b"plain")
    assert validate(tmp_path / "a.geojson.gz") == []
    assert "cannot be read" in validate(tmp_path / "b.geojson.gz")[0]
    assert "cannot be read" in validate(str(tmp_path / "c.geojson.gz"))[0]


OLD = {
    "kind as id": (feature(id="PathTileObject"), "as its id"),
    "packed class colour": (feature(properties__classification={"name": "a", "colorRGB": -1}), "packed colour"),
    "list of measurements": (feature(properties__measurements=[{"name": "x", "value": 1}]), "as a list"),
    "class as text": (feature(properties__classification="a"), "plain text"),
    "object_type": (
        {**feature(), "properties": {"object_type": "tile"}},
        "object_type instead of objectType",
    ),
    "NaN as text": (feature(properties__measurements={"x": "NaN"}), "text NaN"),
    "packed object colour": (feature(properties__color=-65536), "packed number"),
}


@pytest.mark.parametrize("case", OLD)
def test_old_forms_are_remarks_not_problems(case: str) -> None:
    old, words = OLD[case]
    report = inspect(collection(old))
    assert report.problems == []
    assert any(words in remark for remark in report.remarks), report.remarks


def test_names_of_a_derived_class_and_no_class_are_fine() -> None:
    derived = feature(properties__classification={"names": ["Tumor", "Positive"], "color": [1, 2, 3]})
    assert validate(collection(derived)) == []
    assert validate(collection(feature(properties__classification=None))) == []


def test_a_bare_list_and_a_single_feature_are_read() -> None:
    assert validate([feature()]) == []
    assert validate(feature()) == []


def test_a_bare_geometry_is_an_annotation_and_a_remark_says_so() -> None:
    square = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]}
    for value, count in ((square, 1), ([square, feature(), square], 3)):
        report = inspect(value)
        assert (report.problems, report.features) == ([], count)
        assert sum("bare geometry (Polygon)" in remark for remark in report.remarks) == 1
    [one] = read_objects(square)
    assert (one.kind, one.shape.area) == ("annotation", 40.5)
    [problem] = validate({"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 9]]]})
    assert "not closed" in problem


def test_no_false_alarm_on_what_qupath_itself_wrote(shared_data: Path) -> None:
    found = sorted((shared_data / "annotations").glob("qupath-*/*json"))
    assert len(found) >= 13
    for path in found:
        report = inspect(path)
        assert report.problems == [], path
        assert report.features > 0
    new = [path for path in found if path.parent.name in ("qupath-0.4", "qupath-0.5", "qupath-0.6")]
    assert all(inspect(path).remarks == [] for path in new)


def test_real_exports_with_one_planted_fault_are_refused(shared_data: Path) -> None:
    whole = json.loads((shared_data / "annotations/qupath-0.6/Single_cells.geojson").read_text())
    whole["features"][70]["geometry"]["coordinates"][0].pop()
    [problem] = validate(whole)
    assert problem.startswith("feature 70: a ring is not closed")


def test_our_own_exports_pass() -> None:
    for seed in range(5):
        prediction = example_prediction(seed)
        size = prediction.extent[0] - prediction.bounds[0], prediction.extent[1] - prediction.bounds[1]
        report = inspect(features(prediction), size)
        assert (report.problems, report.remarks) == ([], [])
