"""Exports made again from a results folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsi_attention.errors import InputError, ResultsError
from wsi_attention.export.geojson import GeoJSONExporter
from wsi_attention.export.heatmap import draw
from wsi_attention.export.record import to_record
from wsi_attention.inference.batch.discovery import SlideFile
from wsi_attention.inference.results.export_again import Reopened, export_again
from wsi_attention.inference.results.slide_key import first_look, second_look
from wsi_attention.inference.results.state import RunKey, SlideKey, State, to_text
from wsi_attention.structures import TissueMask
from wsi_attention.testing.exporters import example_prediction

RUN = RunKey("demo", "ab" * 32, {"classes": ["normal", "tumour"]})


def remember(results: Path, **slides) -> None:
    for name, prediction in slides.items():
        name = name.replace("__", "/")
        status = prediction.status if prediction else "failed"
        record = to_record(prediction) if prediction else None
        state = State(name, f"/in/{name}.svs", status, "", RUN, SlideKey(), record=record)
        path = results / "states" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_text(state))


def test_every_slide_with_a_prediction_is_written(tmp_path: Path) -> None:
    remember(tmp_path, a=example_prediction(1), sub__b=example_prediction(2), broken=None)
    written = list(export_again(tmp_path))
    assert written == [tmp_path / "geojson/a.geojson", tmp_path / "geojson/sub/b.geojson"]
    GeoJSONExporter()(example_prediction(2), tmp_path / "fresh.geojson")
    assert written[1].read_bytes() == (tmp_path / "fresh.geojson").read_bytes()
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".tmp-")]


def test_named_slides_alone_and_over_what_is_there(tmp_path: Path) -> None:
    remember(tmp_path, a=example_prediction(1), b=example_prediction(2))
    (tmp_path / "geojson").mkdir()
    (tmp_path / "geojson/b.geojson.gz").write_text("old")
    exporter = GeoJSONExporter("none", gzip=True)
    assert list(export_again(tmp_path, exporter, ["b"])) == [tmp_path / "geojson/b.geojson.gz"]
    assert (tmp_path / "geojson/b.geojson.gz").read_bytes()[:2] == b"\x1f\x8b"


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    remember(tmp_path, a=example_prediction(1))
    for _ in range(2):
        [path] = export_again(tmp_path, "heatmap-zarr")
        (path / "leftover").write_text("x")
    [path] = export_again(tmp_path, "heatmap-zarr")
    assert not (path / "leftover").exists() and (path / "zarr.json").exists()


def test_a_heatmap_of_a_slide_that_has_moved_shows_the_mask(tmp_path: Path) -> None:
    remember(tmp_path, a=example_prediction(1))
    [path] = export_again(tmp_path, "heatmap")
    with Image.open(path) as image:
        drawn = np.asarray(draw(example_prediction(1)), np.int16)
        assert np.abs(np.asarray(image, np.int16) - drawn).mean() < 3
    state = State("a", "/in/a.svs", "done", "", RUN, SlideKey())
    assert Reopened(state, example_prediction(1)).overview() is None


def test_the_slide_is_shown_where_it_is_still_the_same(tmp_path: Path) -> None:
    import tifffile

    from wsi_attention.slide.slide import open_slide

    pixels = np.random.default_rng(0).integers(120, 250, (256, 320, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "s.tif", pixels, tile=(64, 64), photometric="rgb")
    with open_slide(str(tmp_path / "s.tif"), mpp=0.5) as slide:
        first = first_look(SlideFile(str(tmp_path / "s.tif"), "", mpp=0.5))
        key = second_look(first, slide, str(tmp_path / "s.tif"))
    prediction = replace(
        example_prediction(),
        slide=str(tmp_path / "s.tif"),
        extent=(320, 256),
        mpp=0.5,
        tissue=TissueMask(np.ones((128, 160), bool), 2.0),
    )
    told: list[str] = []

    def reopened(key: SlideKey) -> Reopened:
        return Reopened(State("s", str(tmp_path / "s.tif"), "done", "", RUN, key), prediction, told.append)

    shown = reopened(replace(key, mask_sha256="ab")).overview()
    assert shown is not None and shown.shape == (256, 320, 3) and not told
    other = reopened(replace(key, fingerprint="other", changed=""))
    assert (other.overview(), other.tiles()) == (None, [])
    assert told == [
        f"{tmp_path / 's.tif'}: the file has other content; "
        "exported without its pixels until classify has done it again"
    ]


def test_wrong_calls_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no results here"):
        list(export_again(tmp_path))
    remember(tmp_path, a=example_prediction(1))
    with pytest.raises(ResultsError, match="no prediction for z"):
        list(export_again(tmp_path, "tiles", ["z"]))
    with pytest.raises(InputError, match="no exporter named 'svg'"):
        list(export_again(tmp_path, "svg"))
