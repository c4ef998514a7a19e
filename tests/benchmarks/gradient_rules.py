"""What the released gradient of ATS costs: the same slides, seeds and draws trained with each rule.

    python tests/benchmarks/gradient_rules.py --encoder encoder.safetensors --work FOLDER [--processes 2]

Slides of real tiles with 3-10 % tumour (`needle_slides.py`); ATS with the sequential estimator, 10 draws, no loss on
the overview, so that attention learns through the estimator's gradient alone. Prints the validation loss and AUROC
after each epoch, mean and range over the seeds.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

RULES = ("unbiased", "as-released")
SEEDS = (0, 1, 2)
FRACTION = (0.03, 0.1)
RECIPE = """
method = "ats"
epochs = {epochs}
patience = {epochs}
batch = 4
precision = "32"
validation_passes = 2
validation_share = 0.3
[model]
tile_size = 96
tile_mpp = 0.97
overview_mpp = 11.64
draws = 10
encoder_widths = [32, 64, 128, 160]
encoder_frozen = true
attention_widths = [32, 48, 64]
context = 3
overview_weight = 0.0
estimator = "sequential"
gradient = "{rule}"
[optimiser]
learning_rate = 1e-3
[augmentation]
stain = 0.0
brightness = 0.0
"""


def train(work: Path, encoder: Path, rule: str, seed: int, epochs: int) -> Path:
    """One run by the public command; gives its table of epochs."""
    recipe, model = work / f"{rule}.toml", work / f"{rule}-{seed}"
    recipe.write_text(RECIPE.format(rule=rule, epochs=epochs), encoding="utf-8")
    slides = work / "slides"
    command = [sys.executable, "-m", "wsi_attention.cli", "train", "-l", str(slides / "labels.csv"), "-i", str(slides)]
    command += ["-o", str(model), "--config", str(recipe), "--seed", str(seed), "--encoder-start", str(encoder)]
    with (work / f"{rule}-{seed}.log").open("a") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return model / "training" / "metrics.csv"


def column(tables: list[Path], name: str) -> np.ndarray:
    """(runs, epochs) of one column."""
    rows = [list(csv.DictReader(table.open(encoding="utf-8"))) for table in tables]
    return np.array([[float(row[name]) for row in one] for one in rows])


def main() -> None:
    """Train every rule with every seed, print the curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("gradient-work"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--count", type=int, default=80)
    given = parser.parse_args()
    from needle_slides import specs, write_set

    given.work.mkdir(parents=True, exist_ok=True)
    if not (given.work / "slides" / "labels.csv").is_file():
        write_set(given.work / "slides", specs("train", given.count, 300_000, FRACTION), given.processes)
    runs = [(rule, seed) for seed in SEEDS for rule in RULES]
    with ThreadPoolExecutor(given.processes) as pool:
        tables = list(pool.map(lambda run: train(given.work, given.encoder, *run, given.epochs), runs))
    print("| rule | epoch | validation loss (range) | AUROC (range) |\n|---|---|---|---|")
    for rule in RULES:
        own = [table for (name, _), table in zip(runs, tables, strict=True) if name == rule]
        loss, auroc = column(own, "val_loss"), column(own, "val_auroc")
        for epoch in range(given.epochs):
            spans = [
                f"{x[:, epoch].mean():.3f} ({x[:, epoch].min():.3f}-{x[:, epoch].max():.3f})" for x in (loss, auroc)
            ]
            print(f"| {rule} | {epoch + 1} | {spans[0]} | {spans[1]} |")


if __name__ == "__main__":
    main()
