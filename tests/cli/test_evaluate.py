"""The command prints what the function finds, and writes it as JSON."""

from __future__ import annotations

import json
from pathlib import Path

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
    assert "AUROC      1.0000  (95 % 1.0000 to 1.0000)" in result.output
    assert "labelled without prediction: 1" in result.output
    assert "touches a lesion: 1 of 1 (100.0%)" in result.output
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["confusion"] == [[1, 0], [0, 1]]
    assert written["localisation"] == {"positives": 1, "hits": 1, "missed": []}
