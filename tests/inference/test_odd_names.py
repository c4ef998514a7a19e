"""Slides and classes with names that break files, tables, pictures and terminals: harmless in all of them."""

from __future__ import annotations

import csv
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import warm_python

from wsi_attention.checkpoint import Classifier, load_model, save_model
from wsi_attention.defaults import EXPORTS, PICTURES
from wsi_attention.evaluation.evaluation import evaluate
from wsi_attention.export.heatmap import draw
from wsi_attention.inference.batch.classify import classify
from wsi_attention.inference.batch.names import assign_names
from wsi_attention.model_card import ModelCard
from wsi_attention.plain_text import HARMFUL
from wsi_attention.safe_names import safe_name
from wsi_attention.testing.exporters import example_prediction

NAMES = (
    *("=1+1", "@SUM(1)", "-1", "+1", "'=x"),
    *("two\nlines", "two\rlines", "next\x85line", "line\u2028sep", "right\u202egvs", "esc\x1b[31mred", "tab\there"),
    *("CON", "aux.part", "nul", "com1", "dot.", "space ", 'a<b>:"|?*', "back\\slash"),
    *("é", "e\u0301", "case", "CASE", "x" * 200, "x" * 201, "{slide}", "%s", "$(id)"),
)
RAW = b"raw\xff"


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_are_fit_for_any_system(name: str) -> None:
    safe = safe_name(name)
    assert not HARMFUL.search(safe) and not set(safe) & set('<>:"|?*\\')
    assert safe.partition(".")[0].upper() not in {"CON", "AUX", "NUL", "COM1"} and safe[-1] not in ". "


def test_no_two_slides_share_a_file() -> None:
    relatives = [f"{name}.svs" for name in NAMES] + [
        "_CON.svs",
        "two_lines.svs",
        "a/b.svs",
        "a.png/b.svs",
        "a_png/b.svs",
    ]
    relatives += ["a.svs", "a.json/b.svs", "a.json/c.svs"]
    names = assign_names([(f"/in/{relative}", relative) for relative in relatives], {})
    folded = [name.casefold() for name in names.values()]
    assert len(set(folded)) == len(relatives)
    files = {f"{name}.{end}" for name in folded for end in ("json", "png", "csv", "geojson", "ome.zarr")}
    assert not files & {part for name in folded for part in [name.rpartition("/")[0]]}
    half = dict(list(names.items())[::2])
    assert assign_names([(f"/in/{relative}", relative) for relative in relatives], half) == names


@pytest.fixture
def odd_model(tiny: Classifier, tmp_path: Path) -> Classifier:
    """The tiny model with classes that a spreadsheet would run."""
    card = ModelCard(method="ats", classes=("=1+1", "@SUM"), arguments=tiny.config["options"])
    save_model(tmp_path / "odd", tiny.model, card)
    return load_model(tmp_path / "odd")


def test_a_batch_of_odd_names(tmp_path: Path, odd_model: Classifier, write_slide) -> None:
    slides, out = tmp_path / "slides", tmp_path / "out"
    slides.mkdir()
    source = write_slide(tmp_path / "source.tif", side=384).read_bytes()
    chosen = [name for name in NAMES if len(name) < 200 and "/" not in name]
    for name in (*chosen, os.fsdecode(RAW)):
        (slides / f"{name}.tif").write_bytes(source)
    report = classify([slides], out, odd_model, what=EXPORTS + PICTURES)
    assert dict(report.statuses) == {"done": len(chosen) + 1}, report.failures
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(chosen) + 1
    assert not [cell for row in rows for cell in (row["slide"], row["label"], row["reason"]) if cell[:1] in set("=+-@")]
    assert {row["label"] for row in rows} <= {"'=1+1", "'@SUM"}
    assert not HARMFUL.search((out / "report.html").read_text(encoding="utf-8").replace("\n", ""))
    assert all(json.loads(path.read_text(encoding="utf-8")) for path in out.glob("geojson/*.geojson"))
    assert classify([slides], out, odd_model, what=EXPORTS + PICTURES).kept == len(chosen) + 1
    labels = tmp_path / "labels.csv"
    with labels.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("slide", "label"))
        writer.writerows((f"{name}.tif", "=1+1") for name in ("=1+1", "@SUM(1)", "-1", "CON", "aux.part"))
    found = evaluate(out / "predictions.csv", labels)
    assert (found.unpredicted, found.classes) == ((), ("=1+1", "@SUM"))
    assert len(found.unlabelled) == len(rows) - 5


@pytest.mark.parametrize("odd", ["\n", "\x85", "\u202e", "\udcff", "\x1b[2J"])
def test_pictures_of_odd_names(odd: str) -> None:
    prediction = example_prediction()
    classes = (f"be{odd}nign", *prediction.classes[1:])
    assert draw(replace(prediction, slide=f"/in/a{odd}b.svs", classes=classes)).size


def test_a_terminal_is_not_steered(tmp_path: Path) -> None:
    code = "import sys; from wsi_attention.cli import main; main()"
    path = tmp_path / "no\x1b]0;title\x07\u202eslide.svs"
    path.write_bytes(b"no slide")
    for command in (
        ["info", path],
        ["classify", "-i", path, "-o", tmp_path / "out", "-m", "demo"],
        ["info", f"{path}x"],
    ):
        ran = warm_python.run([sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True)
        assert ran.returncode in (1, 2)
        assert not HARMFUL.search((ran.stdout + ran.stderr).replace("\n", "")), command
        assert "\\x1b" in ran.stdout + ran.stderr or "no_]0" in ran.stderr
