"""The command prints what the function finds, and writes it as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wsi_attention.cli.app import app
from wsi_attention.errors import InputError, ResultsError


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
    assert "labelled without prediction: 1" in result.output and "\n  without prediction: c.svs\n" in result.output
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


def test_the_page_lies_beside_the_predictions_or_where_it_is_wanted(tmp_path: Path) -> None:
    results = tmp_path / "results"
    (results / "states").mkdir(parents=True)
    rows = [f"s{i},done,{1 - p},{p}" for i, p in enumerate((0.1, 0.25, 0.75, 0.5, 0.25, 0.875))]
    (results / "predictions.csv").write_text("\n".join(["slide,status,prob_normal,prob_tumour", *rows]))
    kinds = [("normal", "val", "A"), ("tumour", "val", "A"), ("tumour", "test", "A")]
    kinds += [("normal", "test", "B"), ("normal", "test", "B"), ("tumour", "test", "B")]
    lines = [f"s{i},{label},{part},{site}" for i, (label, part, site) in enumerate(kinds)]
    (tmp_path / "labels.csv").write_text("\n".join(["slide,label,split,site", *lines]))
    given = ["evaluate", "-p", str(results), "-l", str(tmp_path / "labels.csv")]
    plain = CliRunner().invoke(app, given)
    assert plain.exit_code == 0, plain.output
    assert plain.stdout.splitlines()[-1] == f"page       {results / 'evaluation' / 'evaluation.html'}"
    assert (results / "evaluation" / "evaluation.csv").is_file()
    more = ["--sensitivity", "1", "--threshold", "tumour=0.75", "--by", "site", "--against", str(results)]
    result = CliRunner().invoke(app, [*given, *more, "-o", str(tmp_path / "out" / "here")])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(plain.stdout[: plain.stdout.index("page")].rstrip())
    assert "tumour at 0.75 or more (given)" in result.stdout
    assert "tumour at 0.25 or more (sensitivity 1 on 2 validation rows, 1 of them tumour)" in result.stdout
    assert "sensitivity 1.000 (95 % 0.158 to 1.000), specificity 0.000 (95 % 0.000 to 0.842), 4 slides" in result.stdout
    assert "  B: AUROC 1.000 (95 % " in result.stdout
    assert "against results: AUROC 0.833 and 0.833, difference +0.000  (95 % 0.000 to 0.000), p = 1," in result.stdout
    assert {file.name for file in (tmp_path / "out" / "here").iterdir()} == {
        *("evaluation.html", "evaluation.csv"),
        *("roc.svg", "precision_recall.svg", "reliability.svg", "decision_curve.svg"),
    }


def test_a_threshold_is_never_chosen_on_test_slides(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("slide,prob_normal,prob_tumour\na,0.2,0.8\nb,0.9,0.1\n")
    (tmp_path / "labels.csv").write_text("slide,label,split\na,tumour,test\nb,normal,test\n")
    result = CliRunner().invoke(
        app, ["evaluate", "-p", str(tmp_path), "-l", str(tmp_path / "labels.csv"), "--sensitivity", "0.95"]
    )
    assert isinstance(result.exception, InputError)
    assert "its column split has 2 test rows and no val" in str(result.exception)
    assert not (tmp_path / "evaluation").exists()


def test_nothing_is_written_beside_a_table_that_lies_in_no_results_folder(tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("slide,prob_normal,prob_tumour\na,0.2,0.8\nb,0.9,0.1\n")
    (tmp_path / "labels.csv").write_text("slide,label\na,tumour\nb,normal\n")
    result = CliRunner().invoke(
        app, ["evaluate", "-p", str(tmp_path / "cohort.csv"), "-l", str(tmp_path / "labels.csv")]
    )
    assert result.exit_code == 0, result.output
    assert "page       none: the table lies in no results folder; -o takes a folder for the page" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cohort.csv", "labels.csv"]


def test_predictions_where_nothing_can_be_written_are_still_judged(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("slide,prob_normal,prob_tumour\na,0.2,0.8\nb,0.9,0.1\n")
    (tmp_path / "labels.csv").write_text("slide,label\na,tumour\nb,normal\n")
    (tmp_path / "states").mkdir()
    (tmp_path / "evaluation").write_text("a file in its place")
    given = ["evaluate", "-p", str(tmp_path), "-l", str(tmp_path / "labels.csv")]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert "AUROC      1.000" in result.stdout
    assert "no page: " in result.output
    asked = CliRunner().invoke(app, [*given, "-o", str(tmp_path / "evaluation")])
    assert isinstance(asked.exception, ResultsError)
