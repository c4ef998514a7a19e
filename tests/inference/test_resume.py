"""Killed at any moment, a batch that is called again ends as one that was never disturbed."""

from __future__ import annotations

import csv
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import warm_python

from wsi_attention.checkpoint import Classifier
from wsi_attention.defaults import EXPORTS, PICTURES
from wsi_attention.inference.batch.classify import classify

KILLED_AT_A_RENAME = """
import os, signal, sys
from wsi_attention.inference.results import folder as results
from wsi_attention.inference.batch.classify import classify
from wsi_attention.checkpoint import load_model
from wsi_attention.defaults import EXPORTS, PICTURES

def counted(original):
    def step(*given):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return original(*given)
    return step

results.publish, results.write_text = counted(results.publish), counted(results.write_text)
left = int(sys.argv[4])
classify([sys.argv[1]], sys.argv[2], load_model(sys.argv[3]), workers=2, what=EXPORTS + PICTURES)
"""

PLAIN = """
import sys
from wsi_attention.inference.batch.classify import classify
from wsi_attention.checkpoint import load_model
model = load_model(sys.argv[3])
print("ready", flush=True)
classify([sys.argv[1]], sys.argv[2], model, workers=2)
"""


def everything(folder: Path) -> dict[str, Any]:
    """All files of a results folder; timings, run files and the lock left out."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name == ".lock" or name.startswith(("run_", "report.html")):
            continue
        found[name] = path.read_bytes()
        if name == "predictions.csv":
            with path.open(newline="") as file:
                found[name] = [{**row, "seconds": ""} for row in csv.DictReader(file)]
        elif name.startswith("states/"):
            found[name] = json.loads(path.read_text(), object_hook=lambda o: {k: o[k] for k in o if k != "seconds"})
    return found


def test_killed_between_any_two_files(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    for seed in range(3):
        write_slide(tmp_path / f"slides/{seed}.tif", seed=seed)
    out = tmp_path / "out"
    for finished, left in enumerate((2, 6, 7)):
        command = [sys.executable, "-c", KILLED_AT_A_RENAME, tmp_path / "slides", out, tiny.folder, left]
        ran = warm_python.run(list(map(str, command)), capture_output=True, text=True)
        states = list(out.glob("states/[!.]*.json"))
        assert (ran.returncode, len(states)) == (-signal.SIGKILL, finished), ran.stderr
    every = EXPORTS + PICTURES
    report = classify([tmp_path / "slides"], out, tiny, what=every)
    assert (report.kept, report.statuses["done"]) == (2, 3)
    classify([tmp_path / "slides"], tmp_path / "fresh", tiny, what=every)
    assert len(everything(out)) > 3 * len(every)
    assert everything(out) == everything(tmp_path / "fresh")


@pytest.mark.slow
def test_killed_at_ten_random_moments(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    for seed in range(24):
        write_slide(tmp_path / f"slides/{seed % 4}/{seed}.tif", seed=seed)
    (tmp_path / "slides/broken.svs").write_bytes(b"no slide")
    classify([tmp_path / "slides"], tmp_path / "fresh", tiny)
    moments = random.Random(0)
    command = [sys.executable, "-c", PLAIN, tmp_path / "slides", tmp_path / "out", tiny.folder]
    for _ in range(10):
        process = warm_python.Popen(list(map(str, command)), stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(moments.uniform(0, 1))
        process.kill()
        process.communicate()
    classify([tmp_path / "slides"], tmp_path / "out", tiny, workers=2)
    assert everything(tmp_path / "out") == everything(tmp_path / "fresh")
