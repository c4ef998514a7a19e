"""A study in two commands: crossvalidate, then evaluate; once undisturbed, once killed in the middle and resumed.

    OMP_NUM_THREADS=1 python tests/benchmarks/two_command_study.py [--patients 30] [--folds 5] [--processes 2]

Generated slides, two of each patient. The study that is killed (SIGKILL, all its processes) must end with the same
files as the undisturbed one, byte for byte: models, folds, predictions out of fold, ensemble, record. Of the results
that each fold keeps of its own, times are left out of the comparison.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import options_parser, run_and_save
from kills import group, killed, results
from slide_sets import write_set

from wsi_attention.testing.slides import SlideSpec

COMMAND = [sys.executable, "-c", "from wsi_attention.cli import main; main()"]
RECIPE = """
method = "ats"
epochs = 8
patience = 8
batch = 4
best = "loss"
[model]
draws = 16
tile_size = 128
tile_mpp = 0.5
overview_mpp = 8.0
encoder_widths = [16, 32, 64]
features = 64
attention_widths = [16, 16, 16]
[optimiser]
learning_rate = 0.002
"""


def slide_folder(folder: Path, patients: int, size: int) -> Path:
    """Two slides of each patient, half of them with lesions; labels and recipe beside them."""
    labels = [("benign", "lesion")[patient % 2] for patient in range(patients) for _ in range(2)]
    names = [f"p{number // 2:02}_{number % 2}.svs" for number in range(2 * patients)]
    specs = [SlideSpec((size, size), seed=number, label=label, lesion_scale=6) for number, label in enumerate(labels)]
    write_set(folder / "slides", list(zip(names, specs, strict=True)), 2)
    rows = [f"{name},{label},P{name[1:3]}" for name, label in zip(names, labels, strict=True)]
    (folder / "labels.csv").write_text("\n".join(["slide,label,patient", *rows]) + "\n")
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


def study(folder: Path, options: argparse.Namespace) -> list[str]:
    """The first command."""
    given = ["-l", str(folder / "labels.csv"), "-i", str(folder / "slides"), "--config", str(folder / "recipe.toml")]
    how = ["--folds", str(options.folds), "-n", str(options.processes), "--device", "cpu"]
    return [*COMMAND, "crossvalidate", *given, *how, "-o", str(folder / "study")]


def evaluation(folder: Path) -> list[str]:
    """The second command."""
    return [*COMMAND, "evaluate", "-p", str(folder / "study" / "out_of_fold"), "-l", str(folder / "labels.csv")]


def contents(folder: Path) -> dict[str, Any]:
    """All files of a study; of the folds' own results without times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != ".lock" and "held_out" not in path.parts:
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found | {str(path.relative_to(folder)): results(path) for path in sorted(folder.glob("folds/*/held_out"))}


def processor() -> float:
    """Seconds of processor time that ended processes took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(command: list[str]) -> tuple[float, str]:
    """Seconds that a command takes, and what it says."""
    start = time.monotonic()
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"{command} ended with status {ran.returncode}: {ran.stderr[-2000:]}")
    return time.monotonic() - start, ran.stdout


@dataclass
class Whole:
    """An undisturbed study: what its commands took, in seconds, and said."""

    crossvalidate: float
    processors: float
    evaluate: float
    said: str


def undisturbed(folder: Path, options: argparse.Namespace) -> Whole:
    """Make a study, and move it to `whole/`."""
    before = processor()
    seconds, said = timed(study(folder, options))
    used = processor() - before
    judged, page = timed(evaluation(folder))
    print(
        said, page, f"undisturbed: crossvalidate {seconds:.0f} s, {used:.0f} s of processors, evaluate {judged:.0f} s"
    )
    (folder / "study").rename(folder / "whole")
    return Whole(seconds, used, judged, said + page)


def disturbed(folder: Path, options: argparse.Namespace, moment: float) -> tuple[float, str]:
    """Make the same study, killed once; return its seconds, all commands together, and what it said in the end."""
    start = time.monotonic()
    if not killed(study(folder, options), moment, group):
        raise RuntimeError(f"the study had ended before {moment:.0f} s; nothing was killed")
    said = "".join(timed(command)[1] for command in (study(folder, options), evaluation(folder)))
    return time.monotonic() - start, said


def figures(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run both studies and print what they took."""
    random.seed(options.seed)
    if not (folder / "labels.csv").is_file():
        slide_folder(folder, options.patients, options.size)
    whole = undisturbed(folder, options)
    moment = random.uniform(0.3, 0.6) * whole.crossvalidate
    seconds, said = disturbed(folder, options, moment)
    expected, found = contents(folder / "whole"), contents(folder / "study")
    other = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    print(f"killed after {moment:.0f} s and resumed: {seconds:.0f} s in all; says the same: {said == whole.said}")
    print(f"{len(found)} files compared, different: {', '.join(other) or 'none'}")
    shutil.rmtree(folder / "whole")
    told = {"seconds": seconds, "killed after": moment, "files": len(found), "different": other}
    return {"slides": 2 * options.patients, "undisturbed": vars(whole), "killed": {**told, "same": said == whole.said}}


def main() -> None:
    """Print how long both took, and which files differ."""
    parser = options_parser(__doc__, "two_command_study", repeats=1)
    parser.add_argument("--patients", type=int, default=30, help="patients, two slides each [30]")
    parser.add_argument("--folds", type=int, default=5, help="folds [5]")
    parser.add_argument("--processes", type=int, default=2, help="folds side by side [2]")
    parser.add_argument("--size", type=int, default=1024, help="side of a slide in pixels [1024]")
    parser.add_argument("--seed", type=int, default=0, help="of the moment of the kill [0]")
    parser.add_argument("--work", type=Path, help="folder for slides and studies")
    run_and_save(parser, figures)


if __name__ == "__main__":
    main()
