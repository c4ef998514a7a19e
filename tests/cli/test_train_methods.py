"""Every method through `train` and `classify`, from labels to a table, on generated slides."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from wsi_attention import registry
from wsi_attention.cli.app import app
from wsi_attention.testing.slides import SlideSpec, write_slide

METHODS = tuple(name for name in registry.names(registry.MODELS) if not name.endswith(("-mnist", "-plus")))
"""All but the one for images of digits, and the one that learns the maps of another and is trained with that."""


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    rows = ["slide,label"]
    for seed in range(4):
        label = ("benign", "lesion")[seed % 2]
        write_slide(folder / f"s{seed}.svs", SlideSpec(size=(640, 600), seed=seed, label=label, lesion_scale=8))
        rows.append(f"s{seed},{label}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def recipe(path: Path, method: str, arguments: dict[str, Any]) -> Path:
    lines = [f"{name} = {json.dumps(value)}" for name, value in arguments.items()]
    more = 'accumulate = "maximum"' if method == "oaa" else ""
    head = [f'method = "{method}"', "epochs = 2", "batch = 2", "validation_share = 0.5", more, "[model]"]
    path.write_text("\n".join([*head, *lines]) + "\n")
    return path


def invoked(*command: object) -> str:
    ran = CliRunner().invoke(app, [str(part) for part in command])
    assert ran.exit_code == 0, ran.output
    return ran.output


def trained_and_classified(folder: Path, slides: Path, method: str, arguments: dict[str, Any], *more: object) -> None:
    config = recipe(folder / f"{method}.toml", method, arguments)
    given = ["-l", slides / "labels.csv", "-i", slides, "--device", "cpu"]
    said = invoked("train", *given, "-o", folder / method, "--config", config, *more)
    assert "best of 2 epochs" in said
    assert ("tissue without a finding counts as 'benign'" in said) == (method == "zoom-in")
    invoked(
        "classify",
        "-i",
        slides,
        "-o",
        folder / f"{method}-results",
        "-m",
        folder / method,
        "--device",
        "cpu",
        "--what",
        "geojson,tiles,heatmap",
    )
    with (folder / f"{method}-results" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["done"] * 4
    assert all(float(row["prob_lesion"]) == pytest.approx(1 - float(row["prob_benign"]), abs=1e-5) for row in rows)
    for kind, suffix in (("geojson", "geojson"), ("tiles", "csv"), ("heatmaps", "jpg")):
        assert len(list((folder / f"{method}-results" / kind).glob(f"*.{suffix}"))) == 4


@pytest.mark.parametrize("method", METHODS)
def test_method(method: str, tmp_path: Path, slides: Path, small_arguments: dict[str, dict[str, Any]]) -> None:
    trained_and_classified(tmp_path, slides, method, small_arguments[method])
    if method == "oaa":
        trained_and_classified(tmp_path, slides, "oaa-plus", small_arguments["oaa-plus"], "--maps", tmp_path / "oaa")
