"""What is worth knowing on a GPU, in one run of at most eight minutes: same answers as the CPU, tiles a second, memory.

    python tests/gpu/check.py [--slides 32] [--size 40000] [--tiles 1024] [--json FILE]
    python tests/gpu/check.py --device cpu --slides 2 --size 8192 --tiles 16 --depth 2  # tries the script without a GPU

1. The demo model on the sample slides: labels as on the CPU, probabilities within 1e-4 in float32; labels by default.
2. Training on the sample slides: what it says on the GPU and on the CPU afterwards, and whether one that was stopped in
   its second epoch and taken up again ends with the same bytes.
3. ATS with a ViT-L/16 (random weights) classifies generated slides in this process, in float32 and in bfloat16, one and
   two slides side by side: tiles a second, the share of the time in which the GPU computes (CUDA events around the
   encoder), peak memory, and what a slide's time goes to.
4. The same in processes side by side, as `classify` does it where nothing else is asked: tiles a second from the first
   slides on, against what the GPU encodes where the tiles lie on it already (target 90 %).

It needs this package alone; every number is printed with the name of the card.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from common import large_slide, machine, table
from vit_large import VitLarge, classifier_of, limit

from wsi_attention import Classifier, classify, load_model, predict, train
from wsi_attention.config import as_recipe
from wsi_attention.training.listener import Silent

ROOT = Path(__file__).resolve().parents[2]
CLOSE = 1e-4
FEW = 6
"""Slides of a run in this process."""


def same_answers(device: str) -> float:
    """The largest difference of a probability between the CPU and the device; 1 where a label differs."""
    demo, most = load_model("demo"), 0.0
    for path in sorted((ROOT / "sample_slides").glob("sample_*")):
        here = predict(path, demo, device="cpu", precision="32")
        there = predict(path, demo, device=device, precision="32")
        most = max(most, float(abs(here.probabilities - there.probabilities).max()), float(here.label != there.label))
    return most


def same_labels(device: str) -> bool:
    """Whether the demo model says what it should of the samples on the device, in the precision it takes there."""
    samples = ROOT / "sample_slides"
    labels = csv.DictReader((samples / "labels.csv").read_text(encoding="utf-8").splitlines())
    return all(predict(samples / row["slide"], "demo", device=device).label == row["label"] for row in labels)


class Stopping(Silent):
    """Ends a training in its second epoch, as Ctrl-C would."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Raise."""
        if stage == "epoch 2":
            raise KeyboardInterrupt


def trained(device: str, folder: Path) -> dict[str, Any]:
    """Train by the default recipe of ATS for three epochs, once in one piece and once in two."""
    samples, recipe = ROOT / "sample_slides", replace(as_recipe("ats"), epochs=3)
    fit = partial(train, samples / "labels.csv", samples, recipe=recipe, device=device)
    start = time.perf_counter()
    fit(folder / "whole")
    seconds = time.perf_counter() - start
    with suppress(KeyboardInterrupt):
        fit(folder / "stopped", listener=Stopping())
    again = fit(folder / "stopped")
    assert again.epochs_now == 2, again
    weights = [load_file(folder / name / "model.safetensors") for name in ("whole", "stopped")]
    apart = max(float((one - weights[1][name]).abs().max()) for name, one in weights[0].items())
    one = samples / "sample_01.svs"
    there, here = (predict(one, folder / "whole", device=place, precision="32") for place in (device, "cpu"))
    difference = float(abs(here.probabilities - there.probabilities).max())
    return {"seconds": seconds, "taken up again differs by": apart, "then on the CPU": difference}


def slides(folder: Path, count: int, size: int) -> Path:
    """So many generated slides: two are painted, the others are the same under other names."""
    painted = [large_slide(folder, size, seed=seed) for seed in (1, 2)]
    given = folder / "slides"
    given.mkdir()
    for number in range(count):
        os.link(painted[number % 2], given / f"slide_{number:02d}.svs")
    return given


@contextmanager
def counted(device: str) -> Iterator[dict[str, float]]:
    """Seconds by the clock and peak GPU memory in MB of what is done inside."""
    told: dict[str, float] = {}
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    yield told
    told["seconds"] = time.perf_counter() - start
    told["peak_mb"] = torch.cuda.max_memory_allocated(device) / 2**20 if device.startswith("cuda") else 0.0


def batch(given: Path, out: Path, model: tuple[Classifier, VitLarge], asked: dict[str, Any]) -> dict[str, Any]:
    """One run over all slides."""
    classifier, encoder = model
    few = sorted(given.iterdir())[:FEW]
    with counted(asked["device"]) as told:
        report = classify(few, out, classifier, what=(), in_process=True, profile=True, **asked)
    assert report.statuses["done"] == report.total, report.statuses
    rows = (out / "predictions.csv").read_text(encoding="utf-8").splitlines()
    column = rows[0].split(",").index("tiles_read")
    read = sum(int(row.split(",")[column]) for row in rows[1:])
    busy = encoder.seconds() / told["seconds"] if asked["device"].startswith("cuda") else float("nan")
    assert report.profile is not None
    print("\n".join(report.profile.lines()))
    figures = {"tiles": read, "tiles_per_second": read / told["seconds"], "busy": busy}
    return {**asked, **told, **figures, "profile": report.profile.facts()}


def side_by_side(given: Path, out: Path, model: Classifier, tiles: int, asked: dict[str, Any]) -> dict[str, Any]:
    """One run in processes; tiles a second between the first round of slides and the last slide."""
    ended: list[float] = []
    report = classify([given], out, model, what=(), watch=lambda *_: ended.append(time.perf_counter()), **asked)
    assert report.statuses["done"] == report.total, report.statuses
    first = min(2 * asked["workers"], report.total - 1)
    rate = (report.total - first) * tiles / (ended[-1] - ended[first - 1])
    return {**asked, "tiles_per_second": rate, "seconds": report.seconds}


def main() -> int:
    """Run all checks; 1 where an answer differs from the CPU's."""
    asked = _arguments()
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        print("no GPU here; --device cpu tries the script without one")
        return 0
    card = torch.cuda.get_device_name(asked.device) if asked.device.startswith("cuda") else "CPU"
    difference, alike = same_answers(asked.device), same_labels(asked.device)
    print(
        f"{card}: demo model on the sample slides, largest difference from the CPU {difference:.1e} (limit {CLOSE:g});"
        f" labels by default {'right' if alike else 'WRONG'}"
    )
    with TemporaryDirectory() as folder:
        place = Path(folder)
        training = trained(asked.device, place)
        print(", ".join(f"{name} {value:.2g}" for name, value in training.items()), flush=True)
        given, model = slides(place, asked.slides, asked.size), classifier_of(asked.depth, asked.tiles, place / "model")
        wanted = [("32", 1), ("bf16", 1), ("bf16", 2)]
        runs, apart = [], list[dict[str, Any]]()
        for number, (precision, workers) in enumerate([wanted[1], *wanted]):  # the first warms up and is not told
            run = {"device": asked.device, "precision": precision, "workers": workers}
            runs.append(batch(given, place / f"out-{number}", model, run))
            print(f"{precision}, {workers} side by side: {runs[-1]['seconds']:.1f} s", flush=True)
        most = limit(model[1], asked.device) if card != "CPU" else float("nan")
        for workers in asked.workers:
            run = {"device": asked.device, "precision": "bf16", "workers": workers}
            out = place / f"processes-{workers}"
            found = side_by_side(given, out, model[0], asked.tiles, run) | {"limit": most}
            told = f"{found['tiles_per_second']:.0f} tiles/s, {found['tiles_per_second'] / most:.0%} of {most:.0f}"
            print(f"{workers} processes: {told}", flush=True)
            apart.append(found)
    head = ("precision", "side by side", "tiles", "tiles/s", "GPU computes", "peak MB")
    told = [_row(run) for run in runs[1:]]
    print(f"{card}: ATS with ViT-L/16, slides of {asked.size}²\n{table(head, told)}")
    if asked.json:
        figures = {"card": card, "machine": machine(), "difference": difference, "training": training}
        figures |= {"runs": runs, "processes": apart}
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")
    return int(difference > CLOSE or not alike or training["then on the CPU"] > CLOSE)


def _row(run: dict[str, Any]) -> list[str]:
    seconds, busy, peak = f"{run['tiles_per_second']:.0f}", f"{run['busy']:.0%}", f"{run['peak_mb']:.0f}"
    return [*(str(run[name]) for name in ("precision", "workers", "tiles")), seconds, busy, peak]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--slides", type=int, default=32)
    parser.add_argument("--size", type=int, default=40_000)
    parser.add_argument("--tiles", type=int, default=1024, help="read of each slide")
    parser.add_argument("--depth", type=int, default=24, help="blocks of the encoder; 24 is ViT-L")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8], help="processes side by side")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
