"""Runs killed by SIGKILL at random moments and started again: their results against those of undisturbed runs.

    OMP_NUM_THREADS=1 python tests/benchmarks/kills.py [--classify 60] [--workers 10] [--train 20]

Generated slides. Half of the killed runs of `classify` lose their whole process group, the other half the parent alone,
whose workers must then end by themselves; `--workers` runs lose one worker and must end well by themselves. A kill
counts only if the run had not ended before.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from common import options_parser, run_and_save

from wsi_attention.testing.slides import SlideSpec, write_slide

COMMAND = [sys.executable, "-c", "from wsi_attention.cli import main; main()"]
RECIPE = """
epochs = 3
batch = 2
validation_share = 0.34
[model]
draws = 4
tile_size = 64
tile_mpp = 1.0
overview_mpp = 8.0
encoder_widths = [8, 16]
features = 16
attention_widths = [8, 8]
context = 3
"""


@dataclass
class Score:
    """What became of killed runs.

    Attributes:
        landed: kills that hit a running process.
        missed: runs that had ended before; they count for nothing.
        identical: killed runs that ended with the results of an undisturbed one.
        wrong: what was wrong with the others.
    """

    landed: int = 0
    missed: int = 0
    identical: int = 0
    wrong: list[str] = field(default_factory=list)


def classify(slides: Path, out: Path, *more: str) -> list[str]:
    """The command that classifies a folder."""
    return [*COMMAND, "classify", "-i", str(slides), "-o", str(out), "-m", "demo", "--device", "cpu", "-n", "2", *more]


def train(slides: Path, out: Path) -> list[str]:
    """The command that trains on a folder."""
    given = ["-l", str(slides / "labels.csv"), "-i", str(slides), "--config", str(slides / "recipe.toml")]
    return [*COMMAND, "train", *given, "-o", str(out), "--device", "cpu"]


def results(folder: Path) -> dict[str, Any]:
    """All files of a results folder, without times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name == ".lock" or name.startswith(("run_", "report.html")):
            continue
        if name == "predictions.csv":
            with path.open(newline="", encoding="utf-8") as file:
                found[name] = [{**row, "seconds": ""} for row in csv.DictReader(file)]
        elif name.startswith("states/"):
            found[name] = json.loads(path.read_text("utf-8"), object_hook=_without_seconds)
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def weights(folder: Path) -> dict[str, Any]:
    """A model's weights and configuration."""
    return {name: (folder / name).read_bytes() for name in ("model.safetensors", "config.json")}


def killed(command: Sequence[str], after: float, kill: Callable[[subprocess.Popen[bytes]], bool]) -> bool:
    """Start a command, kill it after some seconds, and wait for all it had started; whether the kill landed."""
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    time.sleep(after)
    family = psutil.Process(run.pid).children(recursive=True) if run.poll() is None else []
    landed = run.poll() is None and kill(run)
    run.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    if any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in alive):
        raise RuntimeError(f"processes that outlived a killed run: {alive}")
    return landed


def group(run: subprocess.Popen[bytes]) -> bool:
    """Kill a run with all its processes."""
    os.killpg(run.pid, signal.SIGKILL)
    return run.wait() == -signal.SIGKILL


def parent(run: subprocess.Popen[bytes]) -> bool:
    """Kill the process that was called, and no other."""
    run.kill()
    return run.wait() == -signal.SIGKILL


def worker(run: subprocess.Popen[bytes]) -> bool:
    """Kill one process that works on slides; whether there was one."""
    end = time.monotonic() + 60
    while time.monotonic() < end and run.poll() is None:
        workers = [one for child in psutil.Process(run.pid).children() for one in child.children()]
        if workers:
            random.choice(workers).kill()
            return True
        time.sleep(0.01)
    return False


@dataclass(frozen=True)
class Whole:
    """An undisturbed run.

    Attributes:
        command: what makes such a run write to a folder.
        read: what it is compared by.
        folder: takes the runs.
        expected: what it gave.
        seconds: how long it took.
    """

    command: Callable[[Path], list[str]]
    read: Callable[[Path], dict[str, Any]]
    folder: Path
    expected: dict[str, Any]
    seconds: float

    @classmethod
    def run(cls, command: Callable[[Path], list[str]], read: Callable[[Path], dict[str, Any]], folder: Path) -> Whole:
        """Make one."""
        start = time.monotonic()
        subprocess.run(command(folder / "whole"), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return cls(command, read, folder, read(folder / "whole"), time.monotonic() - start)


def disturbed(whole: Whole, times: int, kills: Sequence[Callable[[subprocess.Popen[bytes]], bool]]) -> Score:
    """Kill so many runs, at moments all over their time, and start each again."""
    score, out = Score(), whole.folder / "out"
    latest = whole.seconds
    while score.landed < times and score.missed < 5 * times:
        shutil.rmtree(out, ignore_errors=True)
        moment = random.uniform(0, latest)
        if not killed(whole.command(out), moment, kills[score.landed % len(kills)]):
            score.missed, latest = score.missed + 1, max(0.8 * latest, 0.5)  # the machine is less busy than it was
            continue
        score.landed += 1
        again = subprocess.run(whole.command(out), capture_output=True, text=True)
        if again.returncode == 0 and whole.read(out) == whole.expected and not list(out.rglob(".tmp-*")):
            score.identical += 1
        else:
            score.wrong.append(f"status {again.returncode}: {again.stderr[-300:]}")
        print(f"  {score.landed} of {times} landed, {score.identical} identical", flush=True)
    return score


def without_a_worker(whole: Whole, times: int) -> Score:
    """Kill one worker of each of so many runs, which must end by themselves as if nothing had been."""
    score, out, told = Score(), whole.folder / "out", whole.folder / "said"
    while score.landed < times and score.missed < 5 * times:
        shutil.rmtree(out, ignore_errors=True)
        with told.open("wb") as said:
            run = subprocess.Popen(whole.command(out), stdout=said, stderr=said, start_new_session=True)
        time.sleep(random.uniform(0, whole.seconds * 0.6))
        landed = worker(run)
        run.wait()
        score.landed, score.missed = score.landed + landed, score.missed + (not landed)
        if landed and run.returncode == 0 and whole.read(out) == whole.expected:
            score.identical += 1
        elif landed:
            score.wrong.append(f"status {run.returncode}: {told.read_text()[-300:]}")
        print(f"  {score.landed} of {times} workers lost, {score.identical} identical", flush=True)
    return score


def slide_folder(folder: Path, count: int) -> Path:
    """Labelled slides, and a recipe that trains in seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = [("benign", "lesion")[number % 2] for number in range(count)]
    for number, label in enumerate(labels):
        write_slide(folder / f"s{number:02}.svs", SlideSpec((1024, 1024), seed=number, label=label, lesion_scale=8))
    rows = [f"s{number:02},{label}" for number, label in enumerate(labels)]
    (folder / "labels.csv").write_text("\n".join(["slide,label", *rows]) + "\n")
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


def _without_seconds(value: dict[str, Any]) -> dict[str, Any]:
    return {key: part for key, part in value.items() if key != "seconds"}


def figures(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run what was asked for and print a line for each."""
    random.seed(options.seed)
    many, few = slide_folder(folder / "many", 12), slide_folder(folder / "few", 6)
    scores: dict[str, Score] = {}
    batch = Whole.run(lambda out: classify(many, out), results, folder / "classify")
    scores["classify"] = disturbed(batch, options.classify, (group, parent))
    scores["a worker alone"] = without_a_worker(batch, options.workers)
    training = Whole.run(lambda out: train(few, out), weights, folder / "train")
    scores["train"] = disturbed(training, options.train, (group,))
    for name, score in scores.items():
        print(f"{name}: {score.landed} kills landed, {score.identical} identical; {score.missed} came too late")
        print(*score.wrong, sep="\n", end="\n" * bool(score.wrong))
    return {name: vars(score) for name, score in scores.items()}


def main() -> None:
    """Print how many kills landed, and how many runs ended with identical results."""
    parser = options_parser(__doc__, "kills", repeats=1)
    parser.add_argument("--classify", type=int, default=60, help="killed runs of classify [60]")
    parser.add_argument("--workers", type=int, default=10, help="runs of classify that lose one worker [10]")
    parser.add_argument("--train", type=int, default=20, help="killed runs of train [20]")
    parser.add_argument("--seed", type=int, default=0, help="of the moments [0]")
    parser.add_argument("--work", type=Path, help="folder for slides and results")
    run_and_save(parser, figures)


if __name__ == "__main__":
    main()
