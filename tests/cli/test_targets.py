"""Grades, several labels, numbers and survival the whole way: labels in, table, page and figures out."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wsi_attention.checkpoint import load_model
from wsi_attention.cli.app import app
from wsi_attention.errors import InputError
from wsi_attention.export.record import from_record, to_record
from wsi_attention.inference.results.state import stored_predictions
from wsi_attention.testing.slides import SlideSpec, write_slide

COMMON = """
epochs = 1
batch = 2
[model]
tile_size = 64
tile_mpp = 1.0
overview_mpp = 8.0
encoder_widths = [8, 8]
features = 8
"""
KINDS = {
    "ordinal": ('method = "ats"\ntarget = "ordinal"\norder = ["G1", "G2"]\ncolumns = ["grade"]', "quadratic kappa"),
    "labels": ('method = "mil"\ntarget = "labels"\ncolumns = ["ER", "PR"]', "mean AUROC"),
    "regression": ('method = "ats"\ntarget = "regression"\ncolumns = ["age"]', "mean error of age"),
    "survival": ('method = "mil"\ntarget = "survival"\nintervals = 2', "C-index"),
}
COLUMNS = {
    "ordinal": ["prob_G1", "prob_G2", "expected_grade"],
    "labels": ["prob_ER", "prob_PR"],
    "regression": ["value_age"],
    "survival": ["risk", "survival_5", "survival_9"],
}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    rows = ["slide,split,grade,ER,PR,age,time,event"]
    for seed in range(4):
        write_slide(
            folder / f"s{seed}.svs", SlideSpec(size=(700, 600), seed=seed, label=("benign", "lesion")[seed % 2])
        )
        part = "train" if seed < 2 else "val"
        truth = f"G{seed % 2 + 1},{seed % 2},{1 - seed % 2},{50 + 3 * seed},{5 + 4 * (seed % 2)},1"
        rows.append(f"s{seed},{part},{truth}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    listed = [f"s{seed},Smith" for seed in range(4)]
    (folder / "patients.csv").write_text("\n".join(["slide,patient", *listed]) + "\n")
    return folder


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(part) for part in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


USUAL = ("ordinal", "survival")
"""Kinds that every run of the suite trains; the others take part with `-m slow`."""


@pytest.mark.parametrize(
    "kind", [kind if kind in USUAL else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_the_same_commands_tables_and_reports(slides: Path, tmp_path: Path, kind: str) -> None:
    asked, figure = KINDS[kind]
    (tmp_path / "recipe.toml").write_text(f"{asked}\n{COMMON}")
    given = ("train", "-l", slides / "labels.csv", "-i", slides, "-o", tmp_path / "model", "--device", "cpu")
    told = run(*given, "--config", tmp_path / "recipe.toml")
    assert f"{figure} " in told
    assert "finished already after 1 epochs" in run(*given, "--config", tmp_path / "recipe.toml")
    assert load_model(tmp_path / "model").target.kind == kind
    assert json.loads((tmp_path / "model" / "config.json").read_text())["format"] == 3

    assert f"columns      {', '.join(COLUMNS[kind])}" in run("info", tmp_path / "model")

    config = json.loads((tmp_path / "model" / "config.json").read_text())
    for part in ("calibration", "conformal", "familiar"):
        assert config[part] == {"missing": f"the model was asked for {kind}, and this is for one label a slide"}
    with pytest.raises(InputError, match="model model predicts something else than one label of several"):
        run("classify", "-i", slides, "-m", tmp_path / "model", "-o", tmp_path / "no", "--certify", "proof")

    place = tmp_path / "results"
    table = slides / "patients.csv"
    inputs = ("-i", slides, "--slides-csv", table)
    run("classify", *inputs, "-m", tmp_path / "model", "-o", place, "--device", "cpu", "--in-process")
    with (place / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[3 : 3 + len(COLUMNS[kind])] == COLUMNS[kind]
    assert list(rows[0])[3 + len(COLUMNS[kind])] == "set"
    for name, prediction in stored_predictions(place):
        row = next(row for row in rows if row["slide"] == name)
        assert row["label"] == prediction.label
        assert {column: float(row[column]) for column in COLUMNS[kind]} == pytest.approx(
            {f"prob_{one}" if one in prediction.classes else one: value for one, value in prediction.numbers}, abs=1e-6
        )
        again = from_record(json.loads(json.dumps(to_record(prediction))))
        assert (again.verdict, again.values) == (prediction.verdict, prediction.values)
    with (place / "patients.csv").open() as file:
        (patient,) = csv.DictReader(file)
    assert list(patient)[3 : 3 + len(COLUMNS[kind])] == COLUMNS[kind]
    for column in COLUMNS[kind][kind == "survival" :]:
        assert float(patient[column]) == pytest.approx(sum(float(row[column]) for row in rows) / 4, abs=2e-6)
    assert (patient["label"] != "", patient["set"], patient["slides_used"]) == (True, "", "4")
    page = (place / "report.html").read_text()
    assert all(f"<b>{row['label']}</b>" in page for row in rows)

    shutil.rmtree(tmp_path / "model")
    shown = run("evaluate", "-p", place, "-l", slides / "labels.csv", "--json", tmp_path / "out.json")
    assert f"{figure}  " in shown
    assert f"no page: it is for one label a slide, and the model was asked for {kind}" in shown
    assert json.loads((tmp_path / "out.json").read_text())["n"] == 2
    with pytest.raises(InputError, match="--threshold, --by: only for one label a slide"):
        run("evaluate", "-p", place, "-l", slides / "labels.csv", "--threshold", "0.5", "--by", "PR")
    with pytest.raises(InputError, match=f"is of patients, and a {kind} is judged by slide"):
        run("evaluate", "-p", place / "patients.csv", "-r", place, "-l", slides / "labels.csv")


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (
            'method = "tnet"\ntarget = "survival"',
            "tnet learns one label a slide, not target = 'survival'; .*ats, ",
        ),
        ('method = "ats"\ntarget = "survival"\nnegative = "x"', "negative is about the classes of target = 'label'"),
        ('method = "ats"\ntarget = "ordinal"', 'recipe: target = "ordinal" needs order'),
    ],
)
def test_what_cannot_be_is_refused_before_a_slide_is_looked_for(tmp_path: Path, recipe: str, words: str) -> None:
    (tmp_path / "recipe.toml").write_text(recipe)
    given = ("train", "-l", tmp_path / "no.csv", "-i", tmp_path / "none", "-o", tmp_path / "m", "--device", "cpu")
    with pytest.raises(InputError, match=words):
        run(*given, "--config", tmp_path / "recipe.toml")
