"""`train --features` and `classify --features`, as they are typed."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wsi_attention import load_model
from wsi_attention.cli.app import app
from wsi_attention.testing.slides import SlideSpec, write_slide

pytest.importorskip("h5py")
from bag_files import bag_of, write_features


def invoked(*command: object, code: int = 0) -> str:
    ran = CliRunner().invoke(app, [str(part) for part in command])
    assert ran.exit_code == code, ran.output
    return ran.output


def shares(results: Path) -> dict[str, float]:
    with (results / "predictions.csv").open(newline="") as file:
        return {row["slide"]: float(row["prob_lesion"]) for row in csv.DictReader(file)}


def test_from_features_to_a_model_that_reads_slides(tmp_path: Path) -> None:
    slides, demo, rows = tmp_path / "slides", load_model("demo"), ["slide,label"]
    for seed in range(4):
        label = ("benign", "lesion")[seed % 2]
        write_slide(path := slides / f"s{seed}.svs", SlideSpec((1200, 1100), seed=seed, label=label, lesion_scale=8))
        write_features(bag_of(path, demo, f"s{seed}"), tmp_path / "bags", "trident")
        rows.append(f"s{seed},{label}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    given = ["--features", tmp_path / "bags", "-l", tmp_path / "labels.csv", "--device", "cpu", "--epochs", 1]
    said = invoked("train", "-m", "ats", *given, "-i", slides, "-o", tmp_path / "ats", "--encoder-start", "demo")
    assert "looking at 4 slides" in said and "features are scaled to length 1" in said
    said = invoked("train", "-m", "mil", *given, "-o", tmp_path / "mil", "--encoder-start", "demo")
    assert "looking at 4 files of features" in said
    look = ["classify", "-i", slides, "-m", tmp_path / "ats", "--precision", "32", "--in-process", "--what", "tiles"]
    invoked(*look, "-o", tmp_path / "stored", "--features", tmp_path / "bags")
    invoked(*look, "-o", tmp_path / "pixels", "--no-snap")
    assert shares(tmp_path / "stored").keys() == shares(tmp_path / "pixels").keys() == {"s0", "s1", "s2", "s3"}
    with (tmp_path / "stored" / "predictions.csv").open(newline="") as file:
        assert all("were taken from a file" in row["notes"] for row in csv.DictReader(file))
