"""The calibration error on fresh generated slides, from their pixels: models by `train`, labels by `predict`.

    python tests/benchmarks/calibration_slides.py --work FOLDER [--known 1000] [--fresh 1200] [--only usual]

Generates slides to train, to validate and for the last look, and trains by the command, from the weights of the
shipped demo model, for a few passes and until every slide is known by heart. Each model is asked about the fresh
slides as `classify` asks it. A row a recipe, means over the seeds, as in `calibration.py`;
figures/calibration_slides.json. What lies in FOLDER is not made again.

A second table says what more patients bring: the ECE of 600 fresh slides that so many others of them calibrate, by each
map and as "auto" chooses, means over 20 draws and the seeds. Among so few slides chance alone has about 0.02.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from calibration import HEAD, Floats, Labels, faultless, figures_of, row_of
from common import FIGURES
from slide_sets import write_set

from wsi_attention.certainty.calibration import fit_calibration
from wsi_attention.checkpoint import load_model
from wsi_attention.inference.predict import predict
from wsi_attention.statistics.curves import area_under_roc
from wsi_attention.structures import Prediction
from wsi_attention.testing.slides import CLASSES, SlideSpec

SIZE, SCALE = 1600, 6.0
TRAINED = 60
"""Slides that a model is trained on; others validate and calibrate it."""
SEEN, JUDGED, TIMES = (40, 100, 240, 600), 600, 20
"""Of the second table: slides that calibrate, slides that judge, and how often they are drawn."""
MAPS = ("platt", "isotonic", "auto")
BASE = """
method = "ats"
start = "demo"
batch = 4
[model]
tile_size = 128
tile_mpp = 1.0
draws = 16
[optimiser]
warmup_epochs = 0.5
"""
"""The numbers of the shipped model `demo`, from whose weights training goes on."""
RECIPES = {
    "usual": (
        "epochs = 6",
        "learning_rate = 1e-3\nweight_decay = 1e-3\n[augmentation]\nstain = 0.05\nbrightness = 0.05",
    ),
    "by heart": (
        'epochs = 25\npatience = 25\nbest = "auroc"',
        "learning_rate = 3e-3\nweight_decay = 0.0\n[augmentation]\nstain = 0.0\nbrightness = 0.0",
    ),
}
"""What comes before and after that."""


def slide_set(folder: Path, first: int, count: int) -> list[tuple[str, int]]:
    """Generated slides, every second with a lesion, and the class of each."""
    specs = [
        SlideSpec((SIZE, SIZE), seed=first + number, label=CLASSES[number % 2], lesion_scale=SCALE)
        for number in range(count)
    ]
    named = [(f"slide_{first + number:07}.svs", spec) for number, spec in enumerate(specs)]
    if not (folder / "labels.csv").is_file():
        write_set(folder, named, 2)
    return [(name, CLASSES.index(spec.label)) for name, spec in named]


def trained(work: Path, recipe: str, seed: int, known: int) -> Path:
    """The folder of a model that the command has trained on slides of its own; `known` more calibrate it."""
    folder = work / f"{recipe.replace(' ', '-')}-{seed}"
    if (folder / "model" / "config.json").is_file():
        return folder / "model"
    rows, slides = ["slide,label,split"], work / f"slides-{seed}"
    for number, (name, label) in enumerate(slide_set(slides, 10_000 * (seed + 1), TRAINED + known)):
        rows.append(f"{name},{CLASSES[label]},{'train' if number < TRAINED else 'val'}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "recipe.toml").write_text(f"seed = {seed}\n{RECIPES[recipe][0]}{BASE}{RECIPES[recipe][1]}\n")
    command = [sys.executable, "-m", "wsi_attention.cli", "train", "-l", str(folder / "labels.csv"), "-i", str(slides)]
    command += ["-o", str(folder / "model"), "--config", str(folder / "recipe.toml"), "--device", "cpu"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "model"


def said_of(folder: Path, slides: Path, fresh: list[tuple[str, int]]) -> tuple[Floats, Floats]:
    """Probabilities (n, 2) of the fresh slides before calibration and after; kept beside the model."""
    path = folder.parent / "fresh.csv"
    if not path.is_file():
        classifier = load_model(folder)
        with path.open("w", newline="") as file:
            csv.writer(file).writerows((name, *_both(predict(slides / name, classifier))) for name, _ in fresh)
    with path.open(newline="") as file:
        found = {name: np.array(numbers, float).reshape(2, 2) for name, *numbers in csv.reader(file)}
    plain, shown = np.stack([found[name] for name, _ in fresh], axis=1)
    return plain, shown


def _both(prediction: Prediction) -> tuple[float, ...]:
    before: Any = prediction.provenance["uncalibrated"]
    return (*before["probabilities"], *prediction.probabilities.tolist())


def one_model(work: Path, recipe: str, seed: int, known: int, fresh: list[tuple[str, int]]) -> dict[str, Any]:
    """Train, ask about fresh slides, compare."""
    folder = trained(work, recipe, seed, known)
    (plain, shown), truth = said_of(folder, work / "fresh", fresh), np.array([label for _, label in fresh])
    applied = load_model(folder).certainty.calibration
    if applied is None:
        raise SystemExit(f"{folder}: no calibration was fitted")
    return {
        "auroc": round(area_under_roc(plain[:, 1], truth == 1), 4),
        "calibration": applied.kind,
        "scale": round(applied.scale, 3),
        "before": figures_of(plain, truth),
        "shown": figures_of(shown, truth),
        "faultless": faultless(shown),
        "by number": {n: {kind: by_number(plain, truth, n, kind) for kind in MAPS} for n in SEEN},
    }


def by_number(plain: Floats, truth: Labels, n: int, kind: str) -> float:
    """The mean ECE of some fresh slides that n others of them calibrate."""
    logits, random, found = np.log(plain.clip(1e-300)), np.random.default_rng(n), []
    for _ in range(TIMES):
        known, judged = np.split(random.permutation(len(truth))[: n + JUDGED], [n])
        fitted, why = fit_calibration(logits[known], truth[known], [str(one) for one in known], kind)
        assert fitted is not None, why
        found.append(figures_of(fitted.probabilities(logits[judged]), truth[judged])["ece"])
    return round(float(np.mean(found)), 4)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--known", type=int, default=40, help="slides that calibrate [40]")
    parser.add_argument("--fresh", type=int, default=1200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=list(RECIPES), nargs="+", default=list(RECIPES))
    parser.add_argument("--figures", type=Path, default=FIGURES / "calibration_slides.json")
    given = parser.parse_args()
    fresh, rows = slide_set(given.work / "fresh", 900_000, given.fresh), dict[str, Any]()
    print(f"{HEAD}\n{'|---' * 7}|", flush=True)
    for name in given.only:
        runs = [one_model(given.work, name, seed, given.known, fresh) for seed in given.seeds]
        print(json.dumps(runs), file=sys.stderr, flush=True)
        rows[name] = {"recipe": RECIPES[name], "runs": runs}
        print(row_of(name, runs), flush=True)
    heads = [f"{n} patients" for n in SEEN]
    print(f"\n| recipe, map | {' | '.join(heads)} |\n{'|---' * (1 + len(heads))}|")
    for name, kind in [(name, kind) for name in rows for kind in MAPS]:
        means = [np.mean([run["by number"][n][kind] for run in rows[name]["runs"]]) for n in SEEN]
        print(f"| {name}, {kind} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    slides = {"train": TRAINED, "val": given.known}
    told = {"fresh": given.fresh, "size": SIZE, "lesion_scale": SCALE, "slides": slides, "recipes": rows}
    given.figures.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
