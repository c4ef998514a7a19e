from __future__ import annotations

import gzip
import json
import re
import time
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely

from wsi_attention.errors import GeoJSONError, InputError
from wsi_attention.export.geojson import NAMESPACE, GeoJSONExporter
from wsi_attention.export.geojson import geojson_features as features
from wsi_attention.export.qupath import inspect
from wsi_attention.structures import Glimpse, Prediction, TileSet
from wsi_attention.testing.exporters import EXAMPLES, ExporterContract, example_prediction


class TestGeoJSONExporter(ExporterContract):
    exporter = GeoJSONExporter()


def tiles_of(collection: dict) -> list[dict]:
    return [one for one in collection["features"] if one["properties"]["objectType"] == "tile"]


def regions_of(collection: dict) -> list[dict]:
    return [one for one in collection["features"] if one["properties"]["objectType"] == "annotation"]


def with_tiles(locations, weights, size=(100, 100), **changes) -> Prediction:
    """A 1000 x 800 slide without bounds and just these tiles."""
    weights = np.array(weights, np.float64)
    tiles = TileSet(np.array(locations, np.int64), size, 1.0)
    glimpse = Glimpse(tiles, weights, np.full(len(weights), 1e-3), np.full(len(weights), True), drawn=True)
    base = replace(example_prediction(), extent=(1000, 800), bounds=(0, 0), glimpses=(glimpse,))
    return replace(base, **changes)


def test_a_tile_is_what_qupath_reads() -> None:
    [tile] = tiles_of(features(with_tiles([(10, 20)], [1.0])))
    assert sorted(tile) == ["geometry", "id", "properties", "type"]
    assert tile["type"] == "Feature"
    assert tile["geometry"] == {
        "type": "Polygon",
        "coordinates": [[[10, 20], [110, 20], [110, 120], [10, 120], [10, 20]]],
    }
    assert tile["properties"]["objectType"] == "tile"
    assert set(tile["properties"]["classification"]) == {"name", "color"}
    assert set(tile["properties"]["measurements"]) == {
        "Attention",
        "Attention percentile",
        "Sampling probability",
        "Weight",
    }


def test_sampling_probabilities_are_those_of_methods_that_sample() -> None:
    prediction = with_tiles([(10, 20)], [1.0])
    glimpse = replace(prediction.glimpses[0], drawn=False)
    [tile] = tiles_of(features(replace(prediction, glimpses=(glimpse,), spread=None)))
    assert set(tile["properties"]["measurements"]) == {"Attention", "Attention percentile", "Weight"}
    found = features(example_prediction(kind="levels"))
    assert "Sampling probability" not in json.dumps(found)
    assert not {"spread", "unread_mass"} & found["metadata"].keys()
    assert features(prediction)["metadata"]["unread_mass"] == 0.625


def test_a_demonstration_says_so_in_class_names_and_metadata() -> None:
    found = features(example_prediction(kind="demonstration"))
    assert {one["properties"]["classification"]["name"] for one in regions_of(found)} == {
        "tumour (demonstration model)"
    }
    assert found["metadata"]["purpose"] == "demonstration"
    assert found["metadata"]["notes"][0] == "demonstration model: the label means nothing on real tissue"
    assert "purpose" not in features(example_prediction())["metadata"]


def test_coordinates_are_level_0_minus_the_bounds_offset() -> None:
    prediction = with_tiles([(300, 400)], [1.0], bounds=(256, 128))
    [auto] = tiles_of(features(prediction))
    [none] = tiles_of(features(prediction, bounds="none"))
    assert auto["geometry"]["coordinates"][0][0] == [300 - 256, 400 - 128]
    assert none["geometry"]["coordinates"][0][0] == [300, 400]
    assert features(prediction)["metadata"]["offset"] == [256, 128]
    assert features(prediction, bounds="none")["metadata"]["offset"] == [0, 0]
    assert auto["id"] == none["id"]


def test_tiles_are_clipped_to_the_slide_and_outside_ones_dropped() -> None:
    collection = features(with_tiles([(-40, -60), (950, 750), (1000, 0), (2000, 900)], [0.4, 0.3, 0.2, 0.1]))
    boxes = [shapely.geometry.shape(one["geometry"]).bounds for one in tiles_of(collection)]
    assert boxes == [(0, 0, 60, 40), (950, 750, 1000, 800)]
    assert len(regions_of(collection)) == 2


def test_what_lies_left_of_the_bounds_is_clipped_too() -> None:
    [tile] = tiles_of(features(with_tiles([(200, 100)], [1.0], bounds=(256, 128))))
    assert shapely.geometry.shape(tile["geometry"]).bounds == (0, 0, 44, 72)


@pytest.mark.parametrize("kind", EXAMPLES)
@pytest.mark.parametrize("bounds", ["auto", "none"])
def test_regions_are_valid_closed_and_turn_as_rfc_7946_asks(kind: str, bounds: str) -> None:
    for seed in range(3):
        for feature in features(example_prediction(seed, kind), bounds)["features"]:
            ring = feature["geometry"]["coordinates"][0]
            assert ring[0] == ring[-1]
            shape = shapely.geometry.shape(feature["geometry"])
            assert shape.is_valid and shape.area > 0 and shapely.LinearRing(ring).is_ccw


def test_ids_come_from_content() -> None:
    first, again, other = (features(example_prediction(seed)) for seed in (1, 1, 2))
    ids = [one["id"] for one in first["features"]]
    assert ids == [one["id"] for one in again["features"]]
    assert len(set(ids)) == len(ids)
    assert not set(ids) & {one["id"] for one in other["features"]}
    assert all(uuid.UUID(one).version == 5 for one in ids)


def test_an_id_is_the_uuid5_of_slide_weights_and_tile() -> None:
    prediction = with_tiles([(10, 20)], [1.0])
    facts = prediction.provenance
    name = f"{facts['fingerprint']}/{facts['weights_sha256']}/0/tiles/10,20,100,100"
    [tile] = tiles_of(features(prediction))
    assert tile["id"] == str(uuid.uuid5(NAMESPACE, name))


def test_a_tile_drawn_twice_is_one_object_with_both_weights() -> None:
    collection = features(with_tiles([(10, 20), (300, 20), (10, 20)], [0.25, 0.25, 0.5]))
    assert [one["properties"]["measurements"]["Weight"] for one in tiles_of(collection)] == [0.75, 0.25]


def test_a_failed_tile_has_no_weight_and_another_class() -> None:
    prediction = example_prediction()
    classes = [one["properties"]["classification"]["name"] for one in tiles_of(features(prediction))]
    assert classes.count("Not readable") == 1 == int((~prediction.glimpses[0].valid).sum())
    for one in tiles_of(features(prediction)):
        readable = one["properties"]["classification"]["name"] == "Inspected"
        assert ("Weight" in one["properties"]["measurements"]) == readable


def test_numbers_that_are_not_finite_are_left_out() -> None:
    prediction = with_tiles([(10, 20), (300, 20)], [0.5, 0.5])
    glimpse = replace(prediction.glimpses[0], attention=np.array([np.nan, np.inf]))
    for one in tiles_of(features(replace(prediction, glimpses=(glimpse,), maps=()))):
        assert one["properties"]["measurements"] == {"Weight": 0.5}


def test_touching_tiles_become_one_region_named_by_rank() -> None:
    collection = features(with_tiles([(0, 0), (100, 0), (500, 500), (700, 100)], [0.2, 0.3, 0.4, 0.1]), top=3)
    first, second = regions_of(collection)
    assert first["properties"]["measurements"]["Weight"] == 0.5
    assert first["properties"]["measurements"]["Tiles"] == 2
    assert shapely.geometry.shape(first["geometry"]).bounds == (0, 0, 200, 100)
    assert len(first["geometry"]["coordinates"][0]) == 5
    assert shapely.geometry.shape(second["geometry"]).bounds == (500, 500, 600, 600)
    assert [one["properties"]["name"] for one in (first, second)] == ["Attention rank 1", "Attention rank 2"]
    assert first["properties"]["classification"]["name"] == "tumour"


def test_tiles_that_meet_at_a_corner_stay_two_regions() -> None:
    regions = regions_of(features(with_tiles([(0, 0), (100, 100)], [0.6, 0.4])))
    assert [one["properties"]["measurements"]["Weight"] for one in regions] == [0.6, 0.4]


def test_tiles_around_a_hole_keep_the_hole() -> None:
    ring = [(x, y) for x in (0, 100, 200) for y in (0, 100, 200) if (x, y) != (100, 100)]
    [region] = regions_of(features(with_tiles(ring, [1 / 8] * 8), top=8))
    assert len(region["geometry"]["coordinates"]) == 2
    assert shapely.geometry.shape(region["geometry"]).area == 80_000
    assert not shapely.LinearRing(region["geometry"]["coordinates"][1]).is_ccw


def test_no_number_has_more_than_six_digits(tmp_path: Path) -> None:
    GeoJSONExporter()(example_prediction(4), tmp_path / "a.geojson")
    text = (tmp_path / "a.geojson").read_text()
    measurements = "".join(re.findall(r'"measurements":\{[^}]*\}', text))
    numbers = re.findall(r":(-?[0-9.]+)(?:e-?\d+)?[,}]", measurements)
    assert len(numbers) > 50
    assert all(len(number.replace(".", "").lstrip("0")) <= 6 for number in numbers)


def test_gz_is_the_same_text_without_a_clock(tmp_path: Path) -> None:
    GeoJSONExporter()(example_prediction(), tmp_path / "a.geojson")
    GeoJSONExporter()(example_prediction(), tmp_path / "a.geojson.gz")
    packed = (tmp_path / "a.geojson.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "a.geojson").read_bytes()
    assert packed[4:8] == b"\0\0\0\0"


def test_nothing_is_written_where_qupath_would_drop_the_file(tmp_path: Path) -> None:
    prediction = replace(example_prediction(), classes=("normal", " "))
    with pytest.raises(GeoJSONError, match=r"example usual 0\.svs.*classification name ' '"):
        GeoJSONExporter()(prediction, tmp_path / "a.geojson")
    assert not list(tmp_path.iterdir())


def test_unknown_bounds_are_refused() -> None:
    with pytest.raises(InputError, match="possible: auto, none"):
        features(example_prediction(), "off")
    with pytest.raises(InputError, match="possible: auto, none"):
        GeoJSONExporter("off")


@pytest.mark.slow
def test_many_tiles_stay_small_and_fast(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    count = 20_000
    locations = rng.permutation(99_000)[: 2 * count].reshape(count, 2)
    weights = rng.dirichlet(np.ones(count))
    glimpse = Glimpse(TileSet(locations, (256, 256), 2.0), weights, weights, np.full(count, True))
    prediction = replace(example_prediction(), extent=(100_000, 100_000), bounds=(0, 0), glimpses=(glimpse,))
    start = time.process_time()
    GeoJSONExporter()(prediction, tmp_path / "a.geojson")
    spent = time.process_time() - start
    GeoJSONExporter()(prediction, tmp_path / "a.geojson.gz")
    assert (tmp_path / "a.geojson").stat().st_size <= 8e6
    assert (tmp_path / "a.geojson.gz").stat().st_size <= 1.5e6
    assert spent <= 3.0  # about 1 s of one core
    report = inspect(tmp_path / "a.geojson.gz", (100_000, 100_000))
    assert (report.problems, report.remarks) == ([], [])
    assert report.features > count


def test_the_collection_says_what_it_is_about() -> None:
    facts = features(example_prediction())["metadata"]
    assert facts["label"] == "tumour"
    assert facts["probabilities"] == {"normal": 0.0625, "tumour": 0.9375}
    assert facts["status"] == "partial"
    assert facts["use"] == "research use only"
    json.dumps(facts, allow_nan=False)


def test_bounds_are_told_where_the_slide_has_some() -> None:
    prediction = example_prediction()
    bounds = [1_024, 640, 19_000, 15_000]
    told = features(replace(prediction, provenance=prediction.provenance | {"bounds": bounds}))["metadata"]
    assert told["bounds"] == bounds
    assert "bounds" not in features(prediction)["metadata"]


def test_tiles_name_their_glimpse_where_there_are_several() -> None:
    prediction = example_prediction(kind="zoomed")
    found = tiles_of(features(prediction))
    names = [one["properties"]["name"] for one in found]
    assert set(names) == {"views", "tiles"}
    assert names.count("views") == len(np.unique(prediction.glimpses[0].tiles.locations[0], axis=0))
    assert all("name" not in one["properties"] for one in tiles_of(features(example_prediction())))
    assert len({one["id"] for one in found}) == len(found)


@pytest.mark.parametrize("kind", ["zoomed", "levels"])
def test_annotations_come_from_the_last_glimpse(kind: str) -> None:
    prediction = example_prediction(kind=kind)
    last = shapely.union_all(
        [
            shapely.geometry.shape(one["geometry"])
            for one in tiles_of(features(prediction))
            if one["properties"]["name"] == prediction.glimpses[-1].name
        ]
    )
    regions = regions_of(features(prediction))
    assert regions
    assert all(last.covers(shapely.geometry.shape(one["geometry"])) for one in regions)


def test_without_tiles_there_are_no_objects() -> None:
    collection = features(example_prediction(kind="overview_alone"))
    assert collection["features"] == []
    assert collection["metadata"]["label"] == "tumour"
