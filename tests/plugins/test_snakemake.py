"""The Snakemake wrapper, run by Snakemake."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("snakemake")

ROOT = Path(__file__).resolve().parents[2]
WRAPPER = ROOT / "plugins" / "snakemake" / "wsi-attention" / "classify"
SLIDE = ROOT / "sample_slides" / "sample_01.svs"


def run(folder: Path, snakefile: Path, *more: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    home = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--snakefile", str(snakefile), *more]
    environment = os.environ | home | {"PATH": path}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_shipped_example_classifies_a_sample_slide(tmp_path: Path) -> None:
    done = run(tmp_path, WRAPPER / "test" / "Snakefile", "--config", f"slides={SLIDE}")
    assert done.returncode == 0, done.stderr
    (row,) = rows(tmp_path / "results" / "sample_01" / "predictions.csv")
    assert (row["slide"], row["status"]) == ("sample_01", "done")
    written = json.loads((tmp_path / "results" / "sample_01" / "geojson" / "sample_01.geojson").read_text())
    assert written["type"] == "FeatureCollection" and written["features"]
    assert "1 slide: 1 done" in (tmp_path / "logs" / "sample_01.log").read_text()


def test_a_broken_slide_fails_the_job_unless_that_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "a broken.svs").write_bytes(b"II*\0" + bytes(100))
    rule = """
rule {name}:
    input:
        slides=["a broken.svs"],
    output:
        predictions="{name}/predictions.csv",
    params:
        accept_failed={accept},
        extra="-m demo",
    wrapper:
        "file://{wrapper}"
"""
    text = "rule all:\n    input:\n        'strict/predictions.csv',\n        'lenient/predictions.csv',\n"
    text += rule.format(name="strict", accept=False, wrapper=WRAPPER)
    text += rule.format(name="lenient", accept=True, wrapper=WRAPPER)
    (tmp_path / "Snakefile").write_text(text)
    done = run(tmp_path, tmp_path / "Snakefile", "--keep-going")
    assert done.returncode != 0
    assert not (tmp_path / "strict" / "predictions.csv").exists()
    (row,) = rows(tmp_path / "lenient" / "predictions.csv")
    assert row["status"] == "failed" and row["slide"] == "a broken"


def test_outputs_outside_the_results_folder_are_refused(tmp_path: Path) -> None:
    text = f"""
rule classify:
    input:
        slides="{SLIDE}",
    output:
        predictions="results/predictions.csv",
        geojson="elsewhere/sample_01.geojson",
    params:
        extra="-m demo",
    wrapper:
        "file://{WRAPPER}"
"""
    (tmp_path / "Snakefile").write_text(text)
    done = run(tmp_path, tmp_path / "Snakefile")
    assert done.returncode != 0
    assert "outputs must lie in results" in done.stdout + done.stderr
    assert not (tmp_path / "results" / "predictions.csv").exists()


def test_a_model_must_be_named(tmp_path: Path) -> None:
    text = f"""
rule classify:
    input:
        slides="{SLIDE}",
    output:
        predictions="results/predictions.csv",
    wrapper:
        "file://{WRAPPER}"
"""
    (tmp_path / "Snakefile").write_text(text)
    done = run(tmp_path, tmp_path / "Snakefile")
    assert done.returncode != 0
    assert "input 'model' is missing" in done.stdout + done.stderr
    assert not (tmp_path / "results" / "predictions.csv").exists()
