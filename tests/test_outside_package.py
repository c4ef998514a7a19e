"""Somebody else's package adds a reader, a method and an exporter by entry points alone; the command uses them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm_python

from wsi_attention.geometry import Box

PACKAGE = Path(__file__).resolve().parent / "outside_package"
LESION = Box(512, 320, 64, 64)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH that holds what an installer makes of the package, without a build or a network."""
    folder = tmp_path_factory.mktemp("site")
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shutil.copytree(PACKAGE / "outside_wsi", folder / "outside_wsi", ignore=shutil.ignore_patterns("__pycache__"))
    facts = folder / f"outside_wsi-{project['version']}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [line for group, points in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))]
    (facts / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one slide of the package's format, with a lesion on a cell of the method's grid, and a text."""
    folder = tmp_path_factory.mktemp("slides")
    pixels = np.full((811, 1003, 3), 246, np.uint8)
    pixels[130:, 136:] = (232, 200, 222)
    pixels[LESION.y : LESION.y + LESION.h, LESION.x : LESION.x + LESION.w] = (95, 55, 140)
    np.savez(folder / "one.slide.npz", **{"0": pixels, "1": pixels[::2, ::2], "2": pixels[::4, ::4]}, mpp=0.5)
    (folder / "notes.txt").write_text("no slide")
    return folder


def ran(installed: Path, *command: object, code: int = 0, run: Callable[..., Any] = warm_python.run) -> str:
    done = run(
        [sys.executable, *map(str, command)], env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_it_keeps_the_shipped_contracts(installed: Path) -> None:
    command = "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", PACKAGE / "contracts.py"
    said = ran(installed, *command, run=subprocess.run)  # pytest must come before what it rewrites
    assert " passed" in said
    assert "failed" not in said


TRAIN = """
import sys
import torch
from wsi_attention.model_card import ModelCard
from wsi_attention.checkpoint import build_model, save_model
model = build_model("brightest", 2, tile_size=64)
with torch.no_grad():
    model.attention.weight.fill_(-40.0)
save_model(sys.argv[1], model, ModelCard(method="brightest", classes=("benign", "lesion"), arguments={"tile_size": 64}))
"""


def test_the_command_reads_looks_and_writes_with_it(installed: Path, slides: Path, tmp_path: Path) -> None:
    """Its slides are found in a folder, its method looks at the lesion, its file and ours say the same place."""
    command = "-c", "from wsi_attention.cli import main; main()"
    ran(installed, "-c", TRAIN, tmp_path / "model")
    ran(installed, *command, "classify", "-i", slides, "-o", tmp_path / "out", "-m", tmp_path / "model",
               "--what", "geojson,boxes")  # fmt: skip
    [row] = csv.DictReader((tmp_path / "out/predictions.csv").read_text(encoding="utf-8").splitlines())
    assert row["status"] == "done"
    [boxes] = (tmp_path / "out/boxes").glob("*.txt")
    assert boxes.read_text(encoding="utf-8").splitlines()[2].split()[:4] == [str(value) for value in LESION]
    [geojson] = (tmp_path / "out/geojson").glob("*.geojson")
    features = json.loads(geojson.read_text(encoding="utf-8"))["features"]
    tiles = [f["geometry"]["coordinates"][0] for f in features if f["properties"]["objectType"] == "tile"]
    assert [[LESION.x, LESION.y] in ring and [LESION.x + 64, LESION.y + 64] in ring for ring in tiles].count(True) == 1
    assert "npz" in ran(installed, *command, "info", slides / "one.slide.npz")


def test_without_it_the_command_says_what_is_missing(slides: Path, tmp_path: Path) -> None:
    command = "-c", "from wsi_attention.cli import main; main()"
    said = ran(tmp_path, *command, "classify", "-i", slides, "-o", tmp_path / "out", "-m", "demo", code=2)
    assert "no slides in" in " ".join(said.split())
