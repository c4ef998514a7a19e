"""Every method through classify with all exports, again from the results folder, and evaluated."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from wsi_attention import registry
from wsi_attention.cli.evaluation_lines import lines
from wsi_attention.defaults import EXPORTS, PICTURES
from wsi_attention.errors import InputError
from wsi_attention.evaluation.evaluation import evaluate
from wsi_attention.export.qupath import validate
from wsi_attention.inference.batch.classify import classify
from wsi_attention.inference.results.export_again import export_again
from wsi_attention.inference.results.state import stored_predictions
from wsi_attention.structures import Prediction

METHODS = tuple(name for name in registry.names(registry.MODELS) if not name.endswith("-mnist"))
"""All but the one for images of digits."""


def contents(folder: Path) -> dict[str, bytes]:
    kinds = ("geojson", "tiles", "heatmaps")
    files = [path for kind in kinds for path in sorted((folder / kind).rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def check_exports(prediction: Prediction, out: Path) -> None:
    collection = json.loads((out / "geojson" / "x.geojson").read_text())
    assert validate(collection, prediction.extent) == []
    tiles = [one["properties"] for one in collection["features"] if one["properties"]["objectType"] == "tile"]
    several = len(prediction.glimpses) > 1
    assert {one.get("name") for one in tiles} == {glimpse.name if several else None for glimpse in prediction.glimpses}
    with (out / "tiles" / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == prediction.counters.tiles == sum(len(glimpse.tiles) for glimpse in prediction.glimpses)
    for glimpse in prediction.glimpses:
        mine = [row for row in rows if row["glimpse"] == glimpse.name]
        assert sum(float(row["weight"]) for row in mine) == pytest.approx(1, abs=1e-3)
        assert all(0 <= float(row["attention_percentile"]) <= 100 for row in mine)
    group = json.loads((out / "heatmaps" / "x.ome.zarr" / "zarr.json").read_text())
    assert group["attributes"]["ome"]["multiscales"][0]["name"] == "attention"
    further = out / "heatmaps" / "x.ome.zarr" / "maps"
    assert sum(path.is_dir() for path in further.glob("*")) == len(prediction.maps) - 1


@pytest.mark.parametrize("method", METHODS)
def test_method(method: str, tmp_path: Path, write_slide, small_model) -> None:
    write_slide(tmp_path / "in" / "x.tif", side=512)
    classifier, out = small_model(method), tmp_path / "out"
    report = classify([tmp_path / "in"], out, classifier, what=EXPORTS + PICTURES)
    assert report.statuses == {"done": 1}, report.failures
    assert classify([tmp_path / "in"], out, classifier, what=EXPORTS + PICTURES).kept == 1
    ((_, prediction),) = stored_predictions(out)
    assert [found.name for found in prediction.maps].count("attention") == 1
    shown = next(found for found in prediction.maps if found.name == "attention")
    assert np.nansum(shown.values) == pytest.approx(1, abs=1e-4)
    check_exports(prediction, out)
    before = contents(out)
    for what in ("geojson", "tiles", "heatmap-zarr"):  # pictures: the exporters' contract
        list(export_again(out, what))
    assert contents(out) == before
    (tmp_path / "labels.csv").write_text("slide,label\nx,benign\n")
    assert "slides     1" in "\n".join(lines(evaluate(out, tmp_path / "labels.csv")))


@pytest.mark.parametrize("method", METHODS)
def test_exactly_where_the_method_can(method: str, tmp_path: Path, write_slide, small_model) -> None:
    path, classifier = write_slide(tmp_path / "x.tif", side=512), small_model(method)
    for wishes in ({"exact": True}, {"tolerance": 1e-5, "budget": 40}):
        out = tmp_path / f"{len(wishes)}"
        if method not in ("ats", "grow", "zoom-in"):
            with pytest.raises(InputError, match=f"method '{method}' estimates no sum"):
                classify([path], out, classifier, in_process=True, **wishes)  # type: ignore[arg-type]
            continue
        report = classify([path], out, classifier, what=["geojson", "tiles"], in_process=True, **wishes)  # type: ignore[arg-type]
        assert report.statuses == {"done": 1}, report.failures
        ((_, prediction),) = stored_predictions(out)
        assert (prediction.spread is None) == ("exact" in wishes)
        assert (prediction.unread_mass == 0.0) == ("exact" in wishes)
        assert "exact" in wishes or 0 < prediction.counters.tiles <= 40


@pytest.mark.parametrize("method", ["zoom-in", "grow", "mil"])
def test_certified_where_the_method_can(method: str, tmp_path: Path, write_slide, small_model) -> None:
    path, classifier = write_slide(tmp_path / "x.tif", side=512), small_model(method)
    wishes = {"certify": 0.99} | ({} if method == "mil" else {"budget": 20})
    report = classify([path], tmp_path / "out", classifier, what=["geojson", "tiles"], in_process=True, **wishes)  # type: ignore[arg-type]
    assert report.statuses == {"done": 1}, report.failures
    ((_, prediction),) = stored_predictions(tmp_path / "out")
    assert prediction.certified in (("proof",) if method == "mil" else ("no", "proof", "0.99"))
    assert prediction.counters.tiles <= 20 or method == "mil"
    assert "certified" in prediction.notes[-1]
