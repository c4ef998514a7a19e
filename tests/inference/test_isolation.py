"""Slides that take their process down: one row each, with the reason, and all other slides done."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import warm_python

from wsi_attention.checkpoint import Classifier

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "from wsi_attention.cli import main; main()"]
WHAT = "geojson,tiles"
REASONS = {
    "abort": "its worker process crashed with SIGABRT (Aborted) in ",
    "segv": "its worker process crashed with SIGSEGV (Segmentation fault) in ",
    "exit": "a library ended its worker process with exit status 3, twice",
    "sysexit": "a library wanted to end the program (SystemExit(3))",
    "hang": "not finished after 10 s",
    "loop": "not finished after 10 s",
    "hang_gil": "not finished after 10 s in ",
    "kill": "its worker process was killed (SIGKILL)",
}
"""What the row of a slide says that ends its process in this way."""


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process in which `tests/crash_reader` is installed."""
    folder = tmp_path_factory.mktemp("outside")
    shutil.copyfile(ROOT / "tests/crash_reader/crash_wsi.py", folder / "crash_wsi.py")
    facts = folder / "crash_wsi-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: crash-wsi\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[wsi_attention.readers]\ncrash = crash_wsi:CrashReader\n")
    path = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def crash(folder: Path, how: str, where: str) -> Path:
    path = folder / f"{how}-{where}.crash"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"CRASH {how} {where}\n")
    return path


def command(slides: Path, out: Path, model: Classifier, *more: str) -> list[str]:
    options = ["-i", str(slides), "-o", str(out), "-m", str(model.folder), "--device", "cpu", "--what", WHAT]
    return [*COMMAND, "classify", *options, *more]


def run(environment: dict[str, str], *given: Any) -> subprocess.CompletedProcess[str]:
    return warm_python.run(command(*given), env=environment, capture_output=True, text=True, timeout=280)


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return {row["slide"]: row for row in csv.DictReader(file)}


def family(process: int) -> list[Any]:
    psutil = pytest.importorskip("psutil")
    return list(psutil.Process(process).children(recursive=True))


def none_left(family: list[Any]) -> bool:
    psutil = pytest.importorskip("psutil")
    _, alive = psutil.wait_procs(family, timeout=10)
    return all(one.status() == psutil.STATUS_ZOMBIE for one in alive if one.is_running())


def check_deaths(environment: dict[str, str], slides: Path, out: Path, model: Classifier, workers: int) -> None:
    limit = "10" if any("hang" in path.name for path in slides.iterdir()) else "120"
    ran = run(environment, slides, out, model, "--limit", limit, "-n", str(workers))
    assert ran.returncode == 1, ran.stderr
    table = rows(out)
    for name, row in table.items():
        how = name.partition("-")[0]
        if how not in REASONS:
            assert (row["status"], row["reason"]) == ("done", ""), row
            assert (out / f"geojson/{name}.geojson").is_file()
        else:
            assert row["status"] == "failed" and row["reason"].startswith(REASONS[how]), row
            assert f"{name}: {row['reason']}" in ran.stderr
    assert len(table) == len([path for path in slides.iterdir() if path.suffix in (".crash", ".tif")])
    assert not list(out.rglob(".tmp-*"))


def deaths(folder: Path, write_slide: Any, *ways: str) -> Path:
    for seed, name in enumerate(("a", "m", "z")):
        write_slide(folder / f"{name}.tif", seed=seed)
    for how in ways:
        for where in ("open", "read"):
            crash(folder, how, where)
    return folder


def test_a_slide_that_ends_its_process_costs_one_row(
    tmp_path: Path, write_slide: Any, tiny: Classifier, environment: dict[str, str]
) -> None:
    slides = deaths(tmp_path / "slides", write_slide, "abort", "segv", "exit", "sysexit", "kill")
    check_deaths(environment, slides, tmp_path / "out", tiny, workers=1)
    table = rows(tmp_path / "out")
    assert "in __init__ (crash_wsi.py:" in table["abort-open.crash"]["reason"]
    assert "in string_at (__init__.py:" in table["segv-read.crash"]["reason"]
    assert "< segv (crash_wsi.py:" in table["segv-read.crash"]["reason"]
    state = json.loads((tmp_path / "out/states/segv-read.crash.json").read_text())
    assert "Fatal Python error: Segmentation fault" in state["traceback"]
    again = run(environment, slides, tmp_path / "out", tiny)
    assert "3 had been finished by an earlier run and were kept" in again.stdout
    assert {name: row["status"] for name, row in rows(tmp_path / "out").items()} == {
        name: row["status"] for name, row in table.items()
    }


def test_a_slide_that_hangs_is_ended_from_outside(
    tmp_path: Path, write_slide: Any, tiny: Classifier, environment: dict[str, str]
) -> None:
    slides = deaths(tmp_path / "slides", write_slide, "hang_gil")
    crash(slides, "hang", "read")
    crash(slides, "loop", "open")
    check_deaths(environment, slides, tmp_path / "out", tiny, workers=3)
    assert "(crash_wsi.py:" in rows(tmp_path / "out")["hang_gil-read.crash"]["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("turn", range(3))
def test_every_death_three_times(
    tmp_path: Path, write_slide: Any, tiny: Classifier, environment: dict[str, str], workers: int, turn: int
) -> None:
    slides = deaths(tmp_path / "slides", write_slide, *REASONS)
    check_deaths(environment, slides, tmp_path / "out", tiny, workers)


def test_a_slide_whose_process_was_killed_once_is_done(
    tmp_path: Path, write_slide: Any, tiny: Classifier, environment: dict[str, str]
) -> None:
    crash(tmp_path / "slides", "kill_once", "read")
    write_slide(tmp_path / "slides/a.tif")
    ran = run(environment, tmp_path / "slides", tmp_path / "out", tiny)
    assert {name: row["status"] for name, row in rows(tmp_path / "out").items()} == {
        "a": "done",
        "kill_once-read.crash": "done",
    }, ran.stderr
    assert (tmp_path / "slides/kill_once-read.killed").exists()


def wait_for(condition: Any, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not condition() and time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    assert condition()


def start(environment: dict[str, str], *given: Any) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return warm_python.Popen(command(*given), env=environment, start_new_session=True, **pipes)


def opening(process: int) -> bool:
    """Return True where the nursery has two workers or more: then one of them opens the slide that hangs."""
    return len(family(process)) >= 2


@pytest.mark.parametrize("how", ["hang", "hang_gil"])
def test_ctrl_c_before_the_first_slide_says_so_and_leaves_no_process(
    tmp_path: Path, tiny: Classifier, environment: dict[str, str], how: str
) -> None:
    for where in ("open", "read"):
        crash(tmp_path / "slides", how, where)
    process = start(environment, tmp_path / "slides", tmp_path / "out", tiny)
    wait_for(lambda: len(family(process.pid)) >= 3, process)
    time.sleep(1)
    started = family(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    shown, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    assert "interrupted: 0 of 2 slides are finished; the same command does the rest" in shown
    assert none_left(started)
    assert not list((tmp_path / "out").rglob(".tmp-*"))


def test_no_worker_outlives_the_process_that_started_it(
    tmp_path: Path, tiny: Classifier, environment: dict[str, str]
) -> None:
    for where in ("open", "read"):
        crash(tmp_path / "slides", "hang_gil", where)
    process = start(environment, tmp_path / "slides", tmp_path / "out", tiny)
    wait_for(lambda: len(family(process.pid)) >= 3, process)
    time.sleep(1)
    started = family(process.pid)
    process.kill()
    process.communicate()
    assert none_left(started)
