"""`wsi-attention classify`."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from wsi_attention import checkpoint, cli
from wsi_attention.cli import classify as module
from wsi_attention.errors import ResultsError
from wsi_attention.export.chosen import name_of
from wsi_attention.inference.batch import classify as batch
from wsi_attention.inference.batch import forecast
from wsi_attention.inference.batch.forecast import Cost, Forecast
from wsi_attention.inference.batch.summary import Report

app = typer.Typer()
app.command()(module.classify)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command passes on; nothing is classified."""
    seen: dict[str, Any] = {}

    def instead(order: Any, results: Path, classifier: Any, wishes: Any, runner: Any, watch: Any) -> Report:
        what = tuple(map(name_of, wishes.what))
        effort = {name: getattr(wishes.effort, name) for name in ("exact", "tolerance", "budget", "unread")}
        seen.update(vars(order) | vars(wishes) | effort, what=what, results=results, classifier=classifier, watch=watch)
        return seen.get("report") or Report(results, 1, Counter(done=1))

    monkeypatch.setattr(batch, "run_batch", instead)
    monkeypatch.setattr(checkpoint, "load_model", lambda name: SimpleNamespace(name=f"model {name}", purpose=""))
    return seen


def run(arguments: str) -> Any:
    return CliRunner().invoke(app, arguments if "-m " in arguments else f"-m mine {arguments}")


def test_options_reach_the_function(called: dict[str, Any]) -> None:
    ran = run("-i a.svs b.svs c.svs -o out -m mine -n 3 -b 8 --mpp 0.25 --what tiles,geojson --overwrite")
    assert ran.exit_code == 0, ran.output
    assert called["inputs"] == ("a.svs", "b.svs", "c.svs")
    assert (called["results"], called["classifier"].name) == ("out", "model mine")
    assert (called["workers"], called["batch"], called["mpp"]) == (3, 8, 0.25)
    assert (called["what"], called["existing"]) == (("tiles", "geojson"), "overwrite")
    assert called["watch"] is None


def test_exact_and_tolerance_reach_the_function(called: dict[str, Any]) -> None:
    assert run("-i slides --exact").exit_code == 0
    assert (called["exact"], called["tolerance"], called["budget"]) == (True, None, None)
    assert run("-i slides --tolerance 0.02 --budget 640").exit_code == 0
    assert (called["exact"], called["tolerance"], called["budget"]) == (False, 0.02, 640)
    assert called["unread"] is None
    assert run("-i slides --tolerance 0.02 --unread 0.1").exit_code == 0
    assert called["unread"] == 0.1


def test_a_model_must_be_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["wsi-attention", "classify", "-i", str(tmp_path), "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("wsi-attention: error: no model was given: name the folder that wsi-attention train wrote")
    assert "with -m; -m demo is a demonstration whose label means nothing on real tissue" in said
    assert not (tmp_path / "out").exists()


def test_all_exports_are_written_unless_told(called: dict[str, Any]) -> None:
    assert run("-i slides").exit_code == 0
    assert called["what"] == batch.EXPORTS
    for name in batch.EXPORTS:
        assert name in run("--help").output


def test_summary_says_what_happened_and_where(called: dict[str, Any], tmp_path: Path) -> None:
    report = Report(tmp_path, 4, Counter(done=3, failed=1), kept=2, others=("a/notes.txt",), seconds=1.25)
    report.failures.append(("b/x", "broken"))
    called["report"] = report
    ran = run("-i slides")
    assert ran.exit_code == 1
    assert ran.stdout.splitlines() == [
        "4 slides: 3 done, 1 failed in 1.2 s",
        "2 had been finished by an earlier run and were kept",
        "1 other file skipped: notes.txt",
        f"table:    {tmp_path / 'predictions.csv'}",
    ]
    assert ran.stderr == "wsi-attention: b/x: broken\n"


def test_quiet_prints_problems_alone(called: dict[str, Any], tmp_path: Path) -> None:
    called["report"] = Report(tmp_path, 2, Counter(done=1, failed=1), failures=[("x", "broken")])
    ran = run("-i slides -q")
    assert (ran.exit_code, ran.stdout, ran.stderr) == (1, "", "wsi-attention: x: broken\n")


def test_a_dry_run_says_what_would_be_done(
    called: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def instead(order: Any, *rest: Any) -> Forecast:
        asked.append(order)
        cost = Cost("a.svs, in the middle by size", 30.0, 10.0, 2_000_000)
        found = ("1", "2", "3", "4"), Counter({"its files are gone: tiles": 1})
        return Forecast(tmp_path, "mine", "cpu", "32", ("geojson", "tiles"), 9, *found, 2, 2, cost)

    monkeypatch.setattr(forecast, "foresee", instead)
    ran = run("-i slides --dry-run -n 2")
    assert (ran.exit_code, asked[0].inputs, "order" in called) == (0, ("slides",), False)
    assert ran.stdout.splitlines() == [
        "would classify 4 of 9 slides with model mine on cpu, precision 32",
        f"5 have a result in {tmp_path} that stands",
        "1 would be done again: its files are gone: tiles",
        "2 other files would be skipped",
        f"would write to {tmp_path}: predictions.csv, geojson, tiles",
        "a slide: 30.0 s, 10 tiles, measured on a.svs, in the middle by size",
        "all: about 60 seconds with 2 side by side, 40 tiles, 8 MB of results; slides differ",
        "nothing was written; the same command without --dry-run does it",
    ]


def test_another_number_of_draws_is_for_this_machine(called: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "with_draws", lambda model, draws: SimpleNamespace(name=draws, purpose=""))
    assert run("-i slides --draws 12").exit_code == 0
    assert called["classifier"].name == 12
    assert "--draws is for this machine" in str(run("-i slides --draws 12 --local-cluster 2").exception)


def test_every_slide_without_a_label_is_a_line_on_stderr(called: dict[str, Any], tmp_path: Path) -> None:
    called["report"] = Report(tmp_path, 3, Counter(no_tissue=1, failed=24), empty=[("a", "no tissue found")])
    called["report"].failures += [(f"s{number:02}", "broken") for number in range(24)]
    ran = run("-i slides")
    lines = ran.stderr.splitlines()
    assert lines[:2] == ["wsi-attention: a: no tissue found", "wsi-attention: s00: broken"]
    assert (len(lines), lines[-1]) == (21, "wsi-attention: 5 more slides without a label, see the table")
    called["report"] = Report(tmp_path, 1, Counter(no_tissue=1), empty=[("a", "no tissue found")])
    assert run("-i slides").exit_code == 1


def test_interruption_says_how_to_go_on(called: dict[str, Any], tmp_path: Path) -> None:
    called["report"] = Report(tmp_path, 40, Counter(done=12, failed=1), interrupted=True)
    ran = run("-i slides")
    assert ran.exit_code == 130
    assert ran.output.splitlines()[-1] == "interrupted: 12 of 40 slides are finished; the same command does the rest"


def test_threads_that_hang_do_not_keep_the_command(
    called: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    called["report"] = Report(tmp_path, 1, Counter(failed=1), failures=[("x", "slow")], threads_left=True)
    run("-i slides")
    assert left == [1]


def test_errors_are_one_line_and_status_two(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], called: dict[str, Any]
) -> None:
    def refuse(*given: Any, **more: Any) -> Report:
        raise ResultsError("out holds results\nof something else")

    monkeypatch.setattr(batch, "run_batch", refuse)
    monkeypatch.setattr(sys, "argv", ["wsi-attention", "classify", "-i", "slides", "-o", "out", "-m", "mine"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "wsi-attention: error: out holds results of something else\n"


def test_the_summary_tells_where_everything_is(tmp_path: Path) -> None:
    from wsi_attention.inference.batch.summary import Report, summary

    (tmp_path / "geojson").mkdir()
    (tmp_path / "predictions.csv").touch()
    said = summary(Report(tmp_path, 0))
    assert str(tmp_path / "predictions.csv") in said
    assert str(tmp_path / "geojson") in said
    assert "heatmaps" not in said


def test_profile_prints_where_the_time_went(tmp_path: Path) -> None:
    slide = Path(__file__).resolve().parents[2] / "sample_slides" / "sample_01.svs"
    results = tmp_path / "results"
    ran = CliRunner().invoke(app, [str(slide), "-o", str(results), "-m", "demo", "--what", "geojson", "--profile"])
    assert ran.exit_code == 0, ran.output
    warning = "demonstration model: the label means nothing on real tissue"
    assert ran.stderr == f"wsi-attention: {warning}\n"
    assert ran.stdout.splitlines()[0] == f"D{warning[1:]}."
    assert f",{warning}\n" in (results / "predictions.csv").read_text()
    kinds = [line.split()[0] for line in ran.stdout.splitlines() if line.rstrip().endswith("%")]
    assert kinds == ["open", "overview", "attention", "read", "encode", "export", "waiting"]
