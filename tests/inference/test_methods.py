"""Every method through classify with all exports, again from the results folder, and evaluated."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsi_attention.cli.evaluate import _page
from wsi_attention.errors import InputError
from wsi_attention.export.qupath_rules import validate
from wsi_attention.inference.again import export_again
from wsi_attention.inference.batch import classify
from wsi_attention.inference.states import stored_predictions
from wsi_attention.models.card import ModelCard
from wsi_attention.models.checkpoint import Classifier, build_model, load_model, save_model
from wsi_attention.structures import Prediction
from wsi_attention.training.evaluation import evaluate

TILES: dict[str, Any] = {"tile_mpp": 0.5, "overview_mpp": 4.0}
ENCODER: dict[str, Any] = {"encoder_widths": (8, 8), "features": 8}
METHODS: dict[str, dict[str, Any]] = {
    "ats": {**TILES, **ENCODER, "tile_size": 32, "draws": 6, "attention_widths": (8, 8)},
    "zoom-in": {
        "tile_size": 16,
        "tile_mpp": 0.5,
        "overview_mpp": 8.0,
        "view_mpps": (2.0,),
        "cells_um": (64.0, 16.0),
        "draws": 6,
        "attention_widths": (8, 8),
        **ENCODER,
    },
    "tnet": {**TILES, **ENCODER, "base": 32, "grid": 3, "overlap": 0.5, "attended": (2, 2), "location_width": 8},
    "rams-trans": {**TILES, "size": 64, "patch": 8, "dim": 24, "depth": 3, "heads": 3},
    "oaa": {"overview_mpp": 4.0, "trunk_widths": (8, 8), "context": 3, "head_widths": (8,)},
    "oaa-plus": {"overview_mpp": 4.0, "trunk_widths": (8, 8), "context": 3, "head_widths": (8,)},
    "trt": {**TILES, **ENCODER, "size": 48, "patch": 8, "dim": 24, "depth": 4, "budget": 8, "tile_size": 32},
}


def model_of(method: str, folder: Path) -> Classifier:
    arguments = json.loads(json.dumps(METHODS[method]))
    torch.manual_seed(0)
    card = ModelCard(method=method, classes=("benign", "lesion/in situ"), arguments=arguments)
    save_model(folder, build_model(method, 2, **arguments), card)
    return load_model(folder)


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
def test_method(method: str, tmp_path: Path, write_slide) -> None:
    write_slide(tmp_path / "in" / "x.tif", side=512)
    classifier, out = model_of(method, tmp_path / "model"), tmp_path / "out"
    report = classify([tmp_path / "in"], out, classifier)
    assert report.statuses == {"done": 1}, report.failures
    assert classify([tmp_path / "in"], out, classifier).kept == 1
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
    assert "slides     1" in _page(evaluate(out, tmp_path / "labels.csv"))


@pytest.mark.parametrize("method", METHODS)
def test_exactly_where_the_method_can(method: str, tmp_path: Path, write_slide) -> None:
    path, classifier = write_slide(tmp_path / "x.tif", side=512), model_of(method, tmp_path / "model")
    for wishes in ({"exact": True}, {"tolerance": 1e-5, "budget": 40}):
        out = tmp_path / f"{len(wishes)}"
        if method not in ("ats", "zoom-in"):
            with pytest.raises(InputError, match=f"method '{method}' estimates no sum"):
                classify([path], out, classifier, **wishes)  # type: ignore[arg-type]
            continue
        report = classify([path], out, classifier, what=["geojson", "tiles"], **wishes)  # type: ignore[arg-type]
        assert report.statuses == {"done": 1}, report.failures
        ((_, prediction),) = stored_predictions(out)
        assert (prediction.spread == 0) == ("exact" in wishes)
        assert "exact" in wishes or 0 < prediction.counters.tiles <= 40
