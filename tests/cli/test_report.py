"""`wsi-attention report` and `wsi-attention view`."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from wsi_attention.cli import report as report_module
from wsi_attention.cli import view as view_module
from wsi_attention.errors import InputError, ResultsError
from wsi_attention.export.record import to_record
from wsi_attention.export.table import figures
from wsi_attention.inference.results.state import RunKey, SlideKey, State, to_text
from wsi_attention.testing.exporters import example_prediction

app = typer.Typer()
app.command()(report_module.report)
app.command()(view_module.view)


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results of a version that knew no report."""
    made = example_prediction(1)
    row, record = figures(made), to_record(made)
    state = State("a", "/in/a.svs", "done", "", RunKey("demo", "ab" * 32, {}), SlideKey("x"), row=row, record=record)
    (tmp_path / "states").mkdir()
    (tmp_path / "states/a.json").write_text(to_text(state))
    return tmp_path


def test_report_makes_what_is_missing(results: Path) -> None:
    ran = run("report", results)
    assert ran.exit_code == 0 and ran.output.strip() == str(results / "report.html")
    assert (results / "report/a.html").is_file()
    assert (results / "report.html").read_text().count("<article") == 1


def test_report_of_one_slide_elsewhere(results: Path, tmp_path: Path) -> None:
    ran = run("report", results, "--slide", "a", "-o", tmp_path / "a.html")
    assert ran.exit_code == 0 and (tmp_path / "a.html").is_file()


@pytest.mark.parametrize("command", ["report", "view"])
def test_a_folder_without_results_is_refused(command: str, tmp_path: Path) -> None:
    ran = run(command, tmp_path)
    assert isinstance(ran.exception, ResultsError) and "give the folder that classify wrote" in str(ran.exception)


def test_wrong_calls_are_refused(results: Path) -> None:
    assert "no slide named b" in str(run("report", results, "--slide", "b").exception)
    assert isinstance(run("view", results, "--slides", results / "gone").exception, InputError)
    assert "--port" in str(run("view", results, "--port", 70_000, "--no-browser").exception)


def test_view_serves_until_it_is_interrupted(results: Path) -> None:
    command = [sys.executable, "-u", "-m", "wsi_attention.cli", "view", str(results), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        found = re.search(r"1 slides? at (http://127\.0\.0\.1:\d+/)", process.stdout.readline())
        assert found
        with urllib.request.urlopen(found[1], timeout=10) as answer:
            assert b"<canvas" in answer.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)
        assert "Traceback" not in process.stderr.read()
