"""patients.csv: every patient whatever became of the slides, killed and resumed, and patients named anew."""

from __future__ import annotations

import csv
import gzip
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import warm_python

from wsi_attention.checkpoint import Classifier
from wsi_attention.errors import InputError
from wsi_attention.export.geojson import GeoJSONExporter, rewrite_patient
from wsi_attention.inference.batch.classify import classify
from wsi_attention.inference.batch.slides_csv import read_slides_csv
from wsi_attention.inference.batch.summary import Report
from wsi_attention.inference.results.export_again import export_results
from wsi_attention.inference.results.patients import meaning_of, patients_table
from wsi_attention.inference.results.state import RunKey, SlideKey, State
from wsi_attention.testing.exporters import example_prediction

COMMAND_LINE = """
import os, signal, sys
from wsi_attention.inference.results import folder as results
from wsi_attention.cli import main

def counted(original):
    def step(*given):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return original(*given)
    return step

results.publish, results.write_text = counted(results.publish), counted(results.write_text)
results.write_if_new = counted(results.write_if_new)
left = int(sys.argv.pop(1))
main()
"""


def patients(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "patients.csv").open(newline="") as file:
        return {row["patient"]: row for row in csv.DictReader(file)}


def told(folder: Path, slide: str) -> str:
    content = json.loads((folder / f"geojson/{slide}.geojson").read_text())
    return str(content["metadata"].get("patient", ""))


def listed(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["slide,patient", *rows]) + "\n")
    return path


@pytest.fixture
def slides(tmp_path: Path, write_slide: Any) -> Path:
    folder = tmp_path / "slides"
    for seed, name in enumerate(("a", "b", "c")):
        write_slide(folder / f"{name}.tif", seed=seed, side=512)
    return folder


def run(slides: Path, table: Path | None, results: Path, model: Classifier, **more: Any) -> Report:
    return classify(slides, results, model, slides_csv=table, in_process=True, **more)


def test_rows_of_patients_follow_their_slides(slides: Path, tmp_path: Path, tiny: Classifier, write_slide: Any) -> None:
    write_slide(slides / "glass.tif", tissue=False, side=512)
    table = listed(tmp_path / "t.csv", "a,p1", "b,p1", "c,-p2", "gone,-p2", "glass,p3")
    report = run(slides, table, tmp_path / "out", tiny)
    assert report.statuses == {"done": 3, "failed": 1, "no_tissue": 1}
    found = patients(tmp_path / "out")
    assert list(found) == ["'-p2", "p1", "p3"]  # an apostrophe, for spreadsheets
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = {row["slide"]: row for row in csv.DictReader(file)}
    mean = (float(rows["a"]["prob_lesion"]) + float(rows["b"]["prob_lesion"])) / 2
    assert float(found["p1"]["prob_lesion"]) == pytest.approx(mean, abs=1.1e-6)
    assert (found["p1"]["status"], found["p1"]["slides_used"], found["p1"]["slides"]) == ("done", "2", "2")
    first = max("ab", key=lambda name: float(rows[name][f"prob_{found['p1']['label']}"]))
    assert found["p1"]["deciding_slide"] == first and found["p1"]["deciding_tiles"].count(";") == 4
    assert found["'-p2"]["status"] == "partial" and found["'-p2"]["reason"].startswith("gone failed: ")
    assert found["p3"]["status"] == "no_tissue" and found["p3"]["label"] == ""
    assert told(tmp_path / "out", "a") == "p1"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Patient p1: " in page and "2 of 2 slides" in page
    assert page.index("Patient -p2: ") < page.index("Patient p1: ")


def test_without_patients_there_is_no_such_table(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    run(slides, None, tmp_path / "out", tiny)
    assert not (tmp_path / "out" / "patients.csv").exists()
    assert '"patient"' not in (tmp_path / "out" / "states" / "a.json").read_text()
    assert "All patients" not in (tmp_path / "out" / "report.html").read_text()


def test_patients_named_later_need_no_second_look_and_give_the_same_bytes(
    slides: Path, tmp_path: Path, tiny: Classifier
) -> None:
    at_once, later = tmp_path / "at_once", tmp_path / "later"
    table = listed(tmp_path / "t.csv", "a,p1", "b,p1", "c,p2")
    run(slides, table, at_once, tiny)
    run(slides, None, later, tiny)
    assert run(slides, table, later, tiny).kept == 3
    for name in ("patients.csv", *(f"geojson/{slide}.geojson" for slide in "abc")):
        assert (later / name).read_bytes() == (at_once / name).read_bytes(), name
    moved = run(slides, listed(tmp_path / "t.csv", "a,p1", "b,p2", "c,p2"), later, tiny)
    assert moved.kept == 3 and [told(later, slide) for slide in "abc"] == ["p1", "p2", "p2"]
    assert {name: row["slides"] for name, row in patients(later).items()} == {"p1": "1", "p2": "2"}
    run(slides, None, later, tiny)  # who does not say it does not change it
    assert {name: row["slides"] for name, row in patients(later).items()} == {"p1": "1", "p2": "2"}
    run(slides, None, later, tiny, existing="overwrite")
    assert not (later / "patients.csv").exists()


def test_a_compressed_geojson_in_place_of_the_plain_one_names_the_new_patient(
    slides: Path, tmp_path: Path, tiny: Classifier
) -> None:
    run(slides, listed(tmp_path / "t.csv", "a,p1"), tmp_path / "out", tiny, what="geojson")
    (packed,) = export_results(tmp_path / "out", GeoJSONExporter(gzip=True))
    assert packed.suffix == ".gz" and not (tmp_path / "out/geojson/a.geojson").exists()
    report = run(slides, listed(tmp_path / "t.csv", "a,p2"), tmp_path / "out", tiny, what="geojson")
    assert report.kept == 1
    assert json.loads(gzip.decompress(packed.read_bytes()))["metadata"]["patient"] == "p2"


def test_a_geojson_that_is_damaged_is_made_again(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    run(slides, None, tmp_path / "out", tiny)
    (tmp_path / "out/geojson/a.geojson").write_text("{")
    report = run(slides, listed(tmp_path / "t.csv", "a,p1", "b,p1", "c,p1"), tmp_path / "out", tiny)
    assert report.kept == 2 and [name for name, _ in report.again] == ["a"]
    assert [told(tmp_path / "out", slide) for slide in "abc"] == ["p1"] * 3


def test_another_patient_changes_one_entry_of_a_compressed_file_too(tmp_path: Path) -> None:
    path, target = tmp_path / "a.geojson.gz", tmp_path / "b.geojson.gz"
    GeoJSONExporter(gzip=True)(example_prediction(0), path)
    assert rewrite_patient(path, target, "Zoë")
    before, after = (json.loads(gzip.decompress(one.read_bytes())) for one in (path, target))
    assert after["metadata"].pop("patient") == "Zoë" and after == before
    path.write_bytes(path.read_bytes()[:40])
    assert not rewrite_patient(path, tmp_path / "c", "p")


def test_killed_at_the_command_line_and_resumed(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    table = listed(tmp_path / "t.csv", "a,p1", "b,p1")

    def command(results: str, left: int) -> subprocess.CompletedProcess[str]:
        given = ["-i", slides, "--slides-csv", table, "-o", tmp_path / results, "-m", tiny.folder, "--device", "cpu"]
        full = [
            sys.executable,
            "-c",
            COMMAND_LINE,
            str(left),
            "classify",
            *map(str, given),
            "--in-process",
            "--what",
            "tiles",
        ]
        return warm_python.run(full, capture_output=True, text=True)

    assert command("whole", -1).returncode == 0
    assert command("out", 4).returncode == -signal.SIGKILL  # between two slides of a patient
    row = patients(tmp_path / "out")["p1"]
    assert (row["status"], row["slides_used"], row["slides"]) == ("partial", "1", "2")
    assert row["reason"].endswith(" is not done yet")
    assert command("out", -1).returncode == 0
    assert (tmp_path / "out/patients.csv").read_bytes() == (tmp_path / "whole/patients.csv").read_bytes()
    assert not list((tmp_path / "out").rglob(".tmp-*"))


def test_the_slides_csv_reads_patients(tmp_path: Path, write_slide: Any) -> None:
    write_slide(tmp_path / "a.tif", side=64)
    found = read_slides_csv(listed(tmp_path / "t.csv", "a, p1 "))
    assert [slide.patient for slide in found.slides] == ["p1"]
    (tmp_path / "t.csv").write_text("slide,Patient,patient\na,p1,p2\n")
    with pytest.raises(InputError, match="'patient' stands there twice"):
        read_slides_csv(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("said", "names", "slides", "wanted"),
    [
        (
            {"kind": "ordinal", "order": ["g1", "g2", "g3"], "columns": ["label"]},
            ("g1", "g2", "g3"),
            (
                {"prob_g1": "0.6", "prob_g2": "0.3", "prob_g3": "0.1"},
                {"prob_g1": "0.1", "prob_g2": "0.2", "prob_g3": "0.7"},
            ),
            {"label": "g3", "prob_g3": "0.400000", "deciding_slide": "s1"},
        ),
        (
            {"kind": "regression", "columns": ["size"], "mean": [1.0], "deviation": [2.0]},
            ("size",),
            ({"value_size": "3"}, {"value_size": "6"}),
            {"label": "4.5", "value_size": "4.500000", "deciding_slide": ""},
        ),
    ],
)
def test_other_targets_have_rows_of_patients_too(
    said: dict[str, Any], names: tuple[str, ...], slides: tuple[dict[str, str], ...], wanted: dict[str, str]
) -> None:
    run = RunKey("m", "ab" * 32, {"classes": list(names), "target": said})
    states = {
        f"s{n}": State(f"s{n}", f"/in/s{n}", "done", "", run, SlideKey("f"), {"label": "x", **row}, patient="p")
        for n, row in enumerate(slides)
    }
    (row,) = csv.DictReader(patients_table(states, meaning_of(run), {}))
    assert {name: row[name] for name in wanted} == wanted and next(iter(row)) == "patient"
