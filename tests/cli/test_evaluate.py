"""The command prints what the function finds, and writes it as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wsi_attention.cli.app import app


def test_the_page_and_the_json(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("slide,status,prob_benign,prob_lesion\na,done,0.2,0.8\nb,done,0.9,0.1\n")
    (tmp_path / "labels.csv").write_text("slide,label\na.svs,lesion\nb.svs,benign\nc.svs,benign\n")
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles" / "a.csv").write_text("minx,miny,width,height,weight\n0,0,10,10,1\n")
    (tmp_path / "truth").mkdir()
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [5, 5]}, "properties": {}}
    (tmp_path / "truth" / "a.geojson").write_text(json.dumps(point))
    given = {"-p": tmp_path, "-l": tmp_path / "labels.csv", "-g": tmp_path / "truth", "--json": tmp_path / "out.json"}
    result = CliRunner().invoke(app, ["evaluate", *(str(part) for pair in given.items() for part in pair)])
    assert result.exit_code == 0, result.output
    assert "AUROC      1.000  (95 % 0.207 to 1.000), 1 lesion against 1 benign" in result.output
    assert "accuracy   1.000  (95 % 0.158 to 1.000), 2 of 2 slides" in result.output
    assert re.search(r"F1         1\.000  \(95 % 0\.\d+ to 1\.000\), mean over the classes, 2 slides", result.output)
    assert "lesion (sensitivity): 1 of 1 slides right  (95 % 0.025 to 1.000)" in result.output
    assert "Clopper and Pearson" in result.output
    assert "labelled without prediction: 1" in result.output
    assert "touches a lesion: 1 of 1 (100.0%)" in result.output
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["n"] == 2
    assert written["accuracy_interval_95"] == pytest.approx([0.158, 1.0], abs=1e-3)
    assert written["confusion"] == [[1, 0], [0, 1]]
    assert written["localisation"] == {"positives": 1, "hits": 1, "missed": []}


def test_figures_of_a_demonstration_say_so(tmp_path: Path) -> None:
    warning = "demonstration model: the label means nothing on real tissue"
    lines = [
        "slide,status,prob_benign,prob_lesion,notes",
        f"a,done,0.2,0.8,{warning}; mpp was given",
        "b,done,0.9,0.1,",
    ]
    (tmp_path / "predictions.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "labels.csv").write_text("slide,label\na,lesion\nb,benign\n")
    given = {"-p": tmp_path, "-l": tmp_path / "labels.csv", "--json": tmp_path / "out.json"}
    result = CliRunner().invoke(app, ["evaluate", *(str(part) for pair in given.items() for part in pair)])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == f"D{warning[1:]}."
    assert json.loads((tmp_path / "out.json").read_text())["warning"] == warning
