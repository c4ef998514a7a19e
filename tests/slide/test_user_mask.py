"""A user's own mask: stretched images, polygons with holes, and one-line errors."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsi_attention.errors import InputError, NoTissueError, WsiAttentionError
from wsi_attention.export.geojson import geojson_features as features
from wsi_attention.geometry import Box
from wsi_attention.slide.tissue import load_mask
from wsi_attention.structures import TissueMask
from wsi_attention.testing.exporters import example_prediction

EXTENT = (4000, 2000)


def ring(x: float, y: float, w: float, h: float) -> list[list[float]]:
    return [[x, y], [x + w, y], [x + w, y + h], [x, y + h], [x, y]]


def at(mask: TissueMask, x: float, y: float) -> bool:
    return bool(mask.mask[int(y / mask.downsample), int(x / mask.downsample)])


def geojson(folder: Path, value: Any) -> Path:
    path = folder / "mask.geojson"
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize("size", [(40, 20), (100, 100), (37, 211), (2, 2)])
def test_an_image_of_any_size_is_stretched_over_the_slide(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    pixels = np.zeros(size[::-1], np.uint8)
    pixels[: size[1] // 2, size[0] // 2 :] = 255
    Image.fromarray(pixels).save(tmp_path / f"mask{suffix}")
    mask = load_mask(tmp_path / f"mask{suffix}", EXTENT)
    assert mask.mask.shape == (np.ceil(2000 / mask.downsample), np.ceil(4000 / mask.downsample))
    assert mask.source.endswith(suffix)
    assert [at(mask, 3900, 40), at(mask, 100, 40), at(mask, 3900, 1960), at(mask, 100, 1960)] == [1, 0, 0, 0]
    border = size[0] // 2 / size[0] * 4000
    assert at(mask, border + mask.downsample, 100)
    assert not at(mask, border - mask.downsample, 100)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_all_usual_kinds_of_pixels(tmp_path: Path, mode: str) -> None:
    left = np.zeros((10, 20), np.uint8)
    left[:, :10] = 255
    image = Image.fromarray(left).convert(mode)
    if mode == "RGBA":
        image = Image.fromarray(np.stack([np.full_like(left, 255)] * 3 + [left], -1))
    image.save(tmp_path / "mask.png")
    mask = load_mask(tmp_path / "mask.png", EXTENT)
    assert at(mask, 100, 1000)
    assert not at(mask, 3900, 1000)


def test_a_large_mask_is_sampled_down(tmp_path: Path) -> None:
    Image.fromarray(np.full((3000, 6000), 1, np.uint8)).save(tmp_path / "mask.png")
    mask = load_mask(tmp_path / "mask.png", (60_000, 30_000))
    assert mask.mask.size <= 4_010_000
    assert mask.mask.all()


POLYGON = {"type": "Polygon", "coordinates": [ring(400, 400, 1000, 1000), ring(800, 800, 200, 200)]}
OTHER = {"type": "Polygon", "coordinates": [ring(850, 850, 100, 100)]}
FEATURE = {"type": "Feature", "properties": {}, "geometry": POLYGON}


@pytest.mark.parametrize(
    "value",
    [
        POLYGON,
        FEATURE,
        [FEATURE],
        {"type": "FeatureCollection", "features": [FEATURE, {"type": "Feature", "geometry": None}]},
        {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": [POLYGON["coordinates"]]}},
        {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [1, 1]}, POLYGON]},
    ],
)
def test_every_wrapping_of_a_polygon_with_a_hole(tmp_path: Path, value: Any) -> None:
    mask = load_mask(geojson(tmp_path, value), EXTENT)
    assert mask.area == pytest.approx(1000**2 - 200**2, rel=0.01)
    inside, hole, outside = at(mask, 500, 500), at(mask, 900, 900), at(mask, 2000, 500)
    assert (inside, hole, outside) == (True, False, False)


def test_a_hole_of_one_polygon_does_not_cut_another(tmp_path: Path) -> None:
    for order in ([OTHER, POLYGON], [POLYGON, OTHER]):
        mask = load_mask(geojson(tmp_path, order), EXTENT)
        assert at(mask, 900, 900)
        assert not at(mask, 810, 810)


def test_pixels_lie_where_the_polygon_does(tmp_path: Path) -> None:
    exact = load_mask(geojson(tmp_path, {"type": "Polygon", "coordinates": [ring(3, 2, 4, 5)]}), (10, 9))
    expected = np.zeros((9, 10), bool)
    expected[2:7, 3:7] = True
    np.testing.assert_array_equal(exact.mask, expected)


def test_polygons_hanging_over_the_edge_are_clipped(tmp_path: Path) -> None:
    mask = load_mask(geojson(tmp_path, {"type": "Polygon", "coordinates": [ring(-500, -500, 1000, 99_999)]}), EXTENT)
    assert mask.area == pytest.approx(500 * 2000, rel=0.01)


def test_real_annotations_of_qupath(shared_data: Path) -> None:
    for path in sorted((shared_data / "annotations").glob("qupath-0.[456]/*.geojson")):
        try:
            mask = load_mask(path, (60_000, 60_000))
        except WsiAttentionError as error:
            assert "\n" not in str(error)
        else:
            assert mask.mask.any()


BROKEN = {
    "nothing.geojson": "",
    "text.json": "{not json",
    "deep.json": "[" * 100_000,
    "point.geojson": json.dumps({"type": "Point", "coordinates": [1, 2]}),
    "empty.geojson": json.dumps({"type": "FeatureCollection", "features": []}),
    "no_features.geojson": json.dumps({"type": "FeatureCollection"}),
    "two_points.geojson": json.dumps({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}),
    "words.geojson": json.dumps({"type": "Polygon", "coordinates": [[["a", "b"]] * 4]}),
    "infinite.geojson": '{"type": "Polygon", "coordinates": [[[0, 0], [NaN, 1], [1, 1], [0, 0]]]}',
    "elsewhere.geojson": json.dumps({"type": "Polygon", "coordinates": [ring(9000, 9000, 100, 100)]}),
    "flat.geojson": json.dumps({"type": "Polygon", "coordinates": 3}),
    "text.png": "no picture",
    "mask.jpg": "no mask",
    "mask": "",
}


@pytest.mark.parametrize(("name", "text"), BROKEN.items(), ids=BROKEN)
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        load_mask(tmp_path / name, EXTENT)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_missing_and_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such mask"):
        load_mask(tmp_path / "missing.png", EXTENT)
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "black.png")
    with pytest.raises(NoTissueError, match=r"black\.png: the mask marks no tissue"):
        load_mask(tmp_path / "black.png", EXTENT)


BOUNDS = Box(1000, 500, 2000, 1200)
MARKED = {"objectType": "annotation"}


def collection(*boxes: tuple[float, ...], **members: Any) -> dict[str, Any]:
    made = [
        {"type": "Feature", "properties": MARKED, "geometry": {"type": "Polygon", "coordinates": [ring(*box)]}}
        for box in boxes
    ]
    return {"type": "FeatureCollection", "features": made, **members}


def corner(mask: TissueMask) -> tuple[float, float]:
    rows, columns = np.nonzero(mask.mask)
    return float(columns.min() * mask.downsample), float(rows.min() * mask.downsample)


def test_a_file_of_qupath_lies_in_the_slide_s_bounds(tmp_path: Path) -> None:
    """QuPath crops to the bounds; a file exported by hand says nothing about it, so a note does."""
    mask = load_mask(geojson(tmp_path, collection((100, 200, 600, 300))), EXTENT, BOUNDS)
    assert corner(mask) == pytest.approx((1100, 700), abs=mask.downsample)
    [note] = mask.notes
    assert note.startswith("mask.geojson: moved by (1000, 500)")
    assert '"metadata": {"offset": [0, 0]}' in note


@pytest.mark.parametrize("offset", [(0, 0), (100, 50), (1000, 500)])
def test_the_offset_that_a_file_states_is_added(tmp_path: Path, offset: tuple[int, int]) -> None:
    value = collection((1100, 700, 600, 300), metadata={"offset": list(offset), "extent": list(EXTENT)})
    for bounds in (BOUNDS, None):
        mask = load_mask(geojson(tmp_path, value), EXTENT, bounds)
        assert corner(mask) == pytest.approx((1100 + offset[0], 700 + offset[1]), abs=mask.downsample)
        assert mask.notes == ()


def test_our_own_qupath_file_comes_back_as_a_mask_where_its_tiles_are(tmp_path: Path) -> None:
    prediction = example_prediction(0)
    bounds = Box(*prediction.bounds, 1500, 1500)
    assert prediction.bounds != (0, 0)
    own = load_mask(geojson(tmp_path, features(prediction)), prediction.extent, bounds)
    level_0 = load_mask(geojson(tmp_path, features(prediction, bounds="none")), prediction.extent, bounds)
    left, top = (int(np.ceil(value / own.downsample)) for value in prediction.bounds)
    np.testing.assert_array_equal(own.mask[top:, left:], level_0.mask[top:, left:])
    assert own.mask.any()
    assert own.notes == level_0.notes == ()


def test_polygons_that_only_fit_level_0_are_left_there(tmp_path: Path) -> None:
    mask = load_mask(geojson(tmp_path, collection((1100, 700, 1800, 900))), EXTENT, BOUNDS)
    assert corner(mask) == pytest.approx((1100, 700), abs=mask.downsample)
    assert "level-0" in mask.notes[0]


def test_contours_of_trident_are_left_in_level_0(tmp_path: Path) -> None:
    value = collection((1100, 700, 300, 300))
    value["features"][0]["properties"] = {"tissue_id": 0}
    assert corner(load_mask(geojson(tmp_path, value), EXTENT, BOUNDS)) == pytest.approx((1100, 700), abs=2)


@pytest.mark.parametrize("bounds", [None, Box(0, 0, 2000, 1200)])
def test_without_an_offset_there_is_nothing_to_say(tmp_path: Path, bounds: Box | None) -> None:
    mask = load_mask(geojson(tmp_path, collection((100, 200, 600, 300))), EXTENT, bounds)
    assert (corner(mask), mask.notes) == ((pytest.approx(100, abs=2), pytest.approx(200, abs=2)), ())


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"offset": "left"}, "offset must be"),
        ({"offset": [1, None]}, "offset must be"),
        ({"offset": [0.5, 0]}, "offset must be"),
        ({"offset": [0, 0], "extent": [4001, 2000]}, "made for a slide of"),
    ],
)
def test_a_wrong_offset_and_another_slide_are_refused(tmp_path: Path, metadata: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_mask(geojson(tmp_path, collection((100, 200, 600, 300), metadata=metadata)), EXTENT, BOUNDS)


def test_a_picture_of_the_bounds_is_laid_over_them(tmp_path: Path) -> None:
    Image.fromarray(np.full((120, 200), 255, np.uint8)).save(tmp_path / "mask.png")
    mask = load_mask(tmp_path / "mask.png", EXTENT, BOUNDS)
    expected = np.zeros_like(mask.mask)
    low, high = np.array([500, 1000]) / mask.downsample, np.array([1700, 3000]) / mask.downsample
    expected[round(low[0]) : round(high[0]), round(low[1]) : round(high[1])] = True
    assert (mask.mask ^ expected).mean() < 0.005
    assert "bounds" in mask.notes[0]


def test_a_picture_of_other_proportions_is_stretched_and_says_so(tmp_path: Path) -> None:
    for size, told in (((100, 100), True), ((200, 100), False), ((37, 19), False)):
        Image.fromarray(np.full(size[::-1], 255, np.uint8)).save(tmp_path / "mask.png")
        mask = load_mask(tmp_path / "mask.png", EXTENT, BOUNDS)
        assert mask.mask.all()
        assert bool(mask.notes) == told


def test_a_packed_file_is_read(tmp_path: Path) -> None:
    plain = load_mask(geojson(tmp_path, POLYGON), EXTENT)
    for name in ("packed.geojson.gz", "PACKED.JSON.GZ"):
        (tmp_path / name).write_bytes(gzip.compress(json.dumps(POLYGON).encode()))
        np.testing.assert_array_equal(load_mask(tmp_path / name, EXTENT).mask, plain.mask)
    (tmp_path / "broken.geojson.gz").write_bytes(gzip.compress(b"[1, 2]")[:-9])
    (tmp_path / "plain.geojson.gz").write_text("{}")
    for name in ("broken.geojson.gz", "plain.geojson.gz"):
        with pytest.raises(InputError, match=f"{name}: not readable GeoJSON"):
            load_mask(tmp_path / name, EXTENT)


def test_a_packed_file_of_endless_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsi_attention.slide.user_mask.LARGEST", 1000)
    (tmp_path / "bomb.geojson.gz").write_bytes(gzip.compress(b" " * 100_000))
    with pytest.raises(InputError, match="more than"):
        load_mask(tmp_path / "bomb.geojson.gz", EXTENT)
