"""A model of patients: trained on all slides of a patient as one bag, and classifying so, whoever asks for which slide.

Only one of the two slides of a patient shows the lesion; the label is the patient's.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from wsi_attention.checkpoint import load_model
from wsi_attention.cli.app import app
from wsi_attention.errors import InputError, SlideError
from wsi_attention.inference.batch import patient_subject, subjects
from wsi_attention.inference.batch.classify import classify
from wsi_attention.inference.batch.discovery import SlideFile
from wsi_attention.inference.batch.summary import Report
from wsi_attention.inference.predict import NOBODY, predict
from wsi_attention.inference.results.slide_key import first_look
from wsi_attention.inference.results.state import stored_predictions
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.testing.slides import SlideSpec, write_slide

RECIPE = """
bag = "patient"
epochs = 2
batch = 2
validation_share = 0.34
[model]
draws = 8
tile_size = 32
tile_mpp = 1.0
overview_mpp = 8.0
encoder_widths = [8, 8]
features = 8
attention_widths = [8, 8]
context = 3
"""
PATIENTS = 4


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides of 512 pixels, two a patient, with labels."""
    folder = tmp_path_factory.mktemp("cohort")
    rows = []
    for patient in range(PATIENTS):
        label = ("benign", "lesion")[patient % 2]
        for slide in range(2):
            shown = label if slide == patient // 2 else "benign"
            name = f"p{patient}-{slide}"
            spec = SlideSpec(size=(512, 400 + 64 * slide), seed=10 * patient + slide, label=shown, lesion_scale=8)
            write_slide(folder / f"{name}.svs", spec)
            rows.append(f"{name},{label},p{patient}")
    (folder / "labels.csv").write_text("\n".join(["slide,label,patient", *rows]) + "\n")
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def trained(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("models") / "ours"
    given = ["-l", cohort / "labels.csv", "-i", cohort, "-o", output, "--config", cohort / "recipe.toml"]
    more = ["--method", "ats", "--device", "cpu"]
    done = CliRunner().invoke(app, ["train", *map(str, given), *more], catch_exceptions=False)
    assert done.exit_code == 0 and "on 2 patients, which chose the epoch too" in done.output
    return output


def run(cohort: Path, results: Path, model: Path, table: str = "labels.csv", **more: Any) -> Report:
    classifier = load_model(model)
    return classify(cohort, results, classifier, slides_csv=cohort / table, in_process=True, what="geojson", **more)


def rows(path: Path, key: str) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row[key]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def whole(cohort: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results") / "whole"
    assert run(cohort, results, trained).exit_status == 0
    return results


def test_training_on_patients_is_told(trained: Path) -> None:
    config = json.loads((trained / "config.json").read_text())
    assert config["recipe"]["bag"] == "patient" and load_model(trained).bag == "patient"
    assert config["metrics"]["training patients"] == PATIENTS - 2
    assert (config["metrics"]["validation slides"], config["metrics"]["validation patients"]) == (4, 2)
    with (trained / "training" / "metrics.csv").open() as file:
        assert all(np.isfinite(float(row["train_loss"])) for row in csv.DictReader(file))


def test_slides_of_a_patient_share_label_and_weight(whole: Path) -> None:
    slides, patients = rows(whole / "predictions.csv", "slide"), rows(whole / "patients.csv", "patient")
    found = dict(stored_predictions(whole))
    for patient, row in patients.items():
        both = [slides[f"{patient}-{n}"] for n in range(2)]
        assert both[0]["prob_lesion"] == both[1]["prob_lesion"] == row["prob_lesion"]
        parts = [found[f"{patient}-{n}"] for n in range(2)]
        weights = [float(one.glimpses[-1].weights.sum()) for one in parts]
        assert sum(weights) == pytest.approx(1.0) and sum(len(one.glimpses[-1].valid) for one in parts) == 8
        assert row["deciding_slide"] == f"{patient}-{int(weights[1] > weights[0])}"
        for one in parts:
            corners = one.glimpses[-1].tiles.locations[0] + 32  # a tile's centre lies on its slide
            assert ((corners >= -32) & (corners < np.array(one.extent) + 32)).all()
            attention = one.maps[0]
            assert attention.grid.origin == (0.0, 0.0)
            assert attention.grid.cols * attention.grid.step[0] >= one.extent[0]
        mass = sum(float(np.nansum(one.maps[0].values, dtype=np.float64)) for one in parts)
        assert mass == pytest.approx(1.0, abs=1e-4)  # one distribution over both


def test_workers_order_and_resuming_change_nothing(cohort: Path, trained: Path, whole: Path, tmp_path: Path) -> None:
    run(cohort, tmp_path / "out", trained, workers=2)
    for name in ("p0-1", "p2-0"):  # as a kill between two slides of a patient leaves it
        (tmp_path / f"out/states/{name}.json").unlink()
    assert run(cohort, tmp_path / "out", trained).kept == 2 * PATIENTS - 2
    same = ["patients.csv", *(f"geojson/{path.name}" for path in (whole / "geojson").iterdir())]
    for name in same:
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes(), name
    assert run(cohort, tmp_path / "out", trained).kept == 2 * PATIENTS


def test_another_slide_of_the_patient_decides_too(cohort: Path, trained: Path, tmp_path: Path) -> None:
    own = shutil.copytree(cohort, tmp_path / "slides")
    (own / "t.csv").write_text("slide,patient\np0-0,p0\np0-1,p0\np1-0,p1\n")
    run(own, tmp_path / "out", trained, "t.csv")
    first = rows(tmp_path / "out/patients.csv", "patient")
    shutil.copy(own / "p3-1.svs", own / "p0-1.svs")
    report = run(own, tmp_path / "out", trained, "t.csv")
    assert report.kept == 1 and dict(report.again)["p0-0"].startswith("another slide of the patient has changed")
    second = rows(tmp_path / "out/patients.csv", "patient")
    assert second["p0"]["prob_lesion"] != first["p0"]["prob_lesion"] and second["p1"] == first["p1"]
    (own / "p0-1.svs").write_bytes(b"II*\0")
    run(own, tmp_path / "out", trained, "t.csv")
    row = rows(tmp_path / "out/predictions.csv", "slide")["p0-0"]
    assert row["status"] == "partial" and row["reason"].startswith("p0-1.svs of the patient is not in it: ")
    assert rows(tmp_path / "out/patients.csv", "patient")["p0"]["status"] == "partial"
    (own / "t.csv").write_text("slide,patient\np0-0,p0\n")
    with pytest.raises(InputError, match=r"patient p0 has a slide in .* that is not asked for now \(p0-1\)"):
        run(own, tmp_path / "out", trained, "t.csv")


def test_a_slide_whose_overview_cannot_be_read_leaves_the_bag(cohort: Path, trained: Path, tmp_path: Path) -> None:
    own = shutil.copytree(cohort, tmp_path / "slides")
    (own / "t.csv").write_text("slide,patient\np0-0,p0\np0-1,p0\n")
    with tifffile.TiffFile(own / "p0-1.svs") as file:
        stored = list(zip(file.pages[0].dataoffsets, file.pages[0].databytecounts, strict=True))
    with (own / "p0-1.svs").open("r+b") as spoilt:
        for start, length in stored:
            spoilt.seek(start)
            spoilt.write(bytes(length))
    assert run(own, tmp_path / "out", trained, "t.csv").statuses == {"partial": 1, "failed": 1}
    both, patient = (
        rows(tmp_path / "out/predictions.csv", "slide"),
        rows(tmp_path / "out/patients.csv", "patient")["p0"],
    )
    assert re.fullmatch(r"p0-1\.svs of the patient is not in it: .* cannot be read: .*", both["p0-0"]["reason"])
    assert "cannot be read" in both["p0-1"]["reason"] and both["p0-1"]["label"] == ""
    assert (patient["status"], patient["slides_used"], patient["slides"]) == ("partial", "1", "2")
    assert patient["label"] == both["p0-0"]["label"] != ""


def test_what_is_asked_of_another_slide_decides_too(cohort: Path, trained: Path, tmp_path: Path) -> None:
    table, mask = tmp_path / "t.csv", tmp_path / "mask.png"
    table.write_text("slide,patient,mask\np0-0,p0,\np0-1,p0,mask.png\n")
    pixels = np.full((64, 64), 255, np.uint8)
    Image.fromarray(pixels).save(mask)
    run(cohort, tmp_path / "out", trained, str(table))
    first = rows(tmp_path / "out/patients.csv", "patient")["p0"]
    pixels[:, 24:] = 0
    Image.fromarray(pixels).save(mask)
    report = run(cohort, tmp_path / "out", trained, str(table))
    assert {name for name, _ in report.again} == {"p0-0", "p0-1"}
    both = rows(tmp_path / "out/predictions.csv", "slide")
    assert both["p0-0"]["prob_lesion"] == both["p0-1"]["prob_lesion"] != first["prob_lesion"]
    other = SlideFile(str(cohort / "p0-1.svs"), "p0-1.svs", patient="p0")
    asked = [other, replace(other, mpp=0.3), replace(other, series="1"), replace(other, mask=str(mask))]
    own = replace(other, path=str(cohort / "p0-0.svs"), relative="p0-0.svs")
    assert len({first_look(replace(own, beside=(one,))).beside_changed for one in asked}) == len(asked)


def test_a_slide_that_can_be_opened_at_last_joins_the_bag(
    cohort: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(path: str, **more: Any) -> Slide:
        if "p0-1" in path:
            raise SlideError(f"{path}: the disk is away")
        return open_slide(path, **more)

    (tmp_path / "t.csv").write_text("slide,patient\np0-0,p0\np0-1,p0\n")
    with monkeypatch.context() as patched:
        for module in (patient_subject, subjects):
            patched.setattr(module, "open_slide", away)
        assert run(cohort, tmp_path / "out", trained, str(tmp_path / "t.csv")).statuses == {"partial": 1, "failed": 1}
    assert run(cohort, tmp_path / "out", trained, str(tmp_path / "t.csv")).statuses == {"done": 2}
    both = rows(tmp_path / "out/predictions.csv", "slide")
    assert both["p0-0"]["prob_lesion"] == both["p0-1"]["prob_lesion"] and both["p0-0"]["status"] == "done"


def test_a_slide_that_goes_to_another_patient_or_name(cohort: Path, trained: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("slide,patient\np0-0,p0\np0-1,p0\n")
    run(cohort, tmp_path / "out", trained, str(table))
    before = (tmp_path / "out/states/p0-0.json").read_bytes()
    table.write_text("slide,patient\np0-0,other\n")
    with pytest.raises(InputError, match=r"patient p0 has a slide in .* that is not asked for now \(p0-1\)"):
        run(cohort, tmp_path / "out", trained, str(table))
    assert (tmp_path / "out/states/p0-0.json").read_bytes() == before
    table.write_text("slide,patient\np0-0,other\np0-1,other\n")
    report = run(cohort, tmp_path / "out", trained, str(table))
    assert len(report.again) == 2 and all("the patient has another name" in why for _, why in report.again)
    for _, found in stored_predictions(tmp_path / "out"):
        assert found.provenance["bag"]["patient"] == "other" and not any("patient p0" in one for one in found.notes)
    assert run(cohort, tmp_path / "out", trained, str(table)).kept == 2
    table.write_text("slide,patient\np0-0,other\np0-1,p0\n")
    run(cohort, tmp_path / "out", trained, str(table))
    alone = rows(tmp_path / "out/predictions.csv", "slide")
    assert alone["p0-0"]["prob_lesion"] != alone["p0-1"]["prob_lesion"]


def test_one_scale_a_bag_and_no_features(cohort: Path, trained: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("slide,patient,mpp\np0-0,p0,0.5\np0-1,p0,0.25\n")
    report = run(cohort, tmp_path / "out", trained, str(table))
    assert report.statuses == {"failed": 2}
    assert "patient p0 has slides of 0.5 µm/px" in dict(report.failures)["p0-0"]
    with pytest.raises(InputError, match="leave --features out"):
        run(cohort, tmp_path / "out2", trained, features=tmp_path)


def test_a_slide_without_a_patient_is_its_own_and_says_so(cohort: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("slide\np0-0\n")
    run(cohort, tmp_path / "out", trained, str(tmp_path / "t.csv"))
    assert NOBODY in rows(tmp_path / "out/predictions.csv", "slide")["p0-0"]["notes"]
    alone = predict(cohort / "p0-0.svs", trained)
    assert alone.notes.count(NOBODY) == 1
    run(cohort, tmp_path / "known", trained, str(table_of_one(tmp_path)))
    assert NOBODY not in rows(tmp_path / "known/predictions.csv", "slide")["p0-0"]["notes"]


def table_of_one(folder: Path) -> Path:
    """A patient of a single slide."""
    (folder / "one.csv").write_text("slide,patient\np0-0,p0\n")
    return folder / "one.csv"
