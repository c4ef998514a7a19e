"""Broken and hostile files beside good ones: a row and a reason for each, the good ones done, memory bounded."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import warm_python

from wsi_attention.checkpoint import Classifier

SCRIPT = """
import json, resource, sys
from wsi_attention.inference.batch.classify import classify
from wsi_attention.checkpoint import load_model
*inputs, out, model = sys.argv[1:]
report = classify(inputs, out, load_model(model), workers=2, limit=120, what=("geojson", "tiles"))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
json.dump({"exit": report.exit_status, "peak": peak, "left": report.threads_left}, sys.stdout)
"""


def test_hostile_files_beside_good_ones(shared_data: Path, tmp_path: Path, tiny: Classifier) -> None:
    malformed = shared_data / "malformed"
    good = [
        shared_data / "slides/aperio/CMU-1-Small-Region.svs",
        shared_data / "slides-derived/cmu1sr-tifffile-pyramid.ome.tif",
    ]
    command = [sys.executable, "-c", SCRIPT, malformed, *good, tmp_path / "out", tiny.folder]
    ran = warm_python.run(list(map(str, command)), capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout)
    assert found["exit"] == 1
    assert not found["left"]
    assert found["peak"] < 2e9
    with (tmp_path / "out/predictions.csv").open(newline="") as file:
        rows = {row["slide"]: row for row in csv.DictReader(file)}
    files = [path for path in malformed.rglob("*") if path.is_file() and path.name != "README.md"]
    assert len(rows) == len(files) + len(good)
    assert all(row["reason"] for row in rows.values() if row["status"] in ("failed", "no_tissue", "partial"))
    assert all("\n" not in row["reason"] for row in rows.values())
    assert [rows[name]["status"] for name in ("CMU-1-Small-Region", "cmu1sr-tifffile-pyramid")] == ["done", "done"]
    assert rows["derived/ok-mini"]["status"] == "done"
    assert rows["derived/ifd-loop"]["status"] == "failed"
