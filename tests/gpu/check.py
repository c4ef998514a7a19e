"""What is worth knowing on a GPU, in one run of at most eight minutes: same answers as the CPU, tiles a second, memory.

    python tests/gpu/check.py [--slides 10] [--size 40000] [--tiles 1024] [--json FILE]
    python tests/gpu/check.py --device cpu --slides 2 --size 8192 --tiles 16 --depth 2  # tries the script without a GPU

1. The demo model on the sample slides: labels as on the CPU, probabilities within 1e-4 in float32; labels by default.
2. Training on the sample slides: what it says on the GPU and on the CPU afterwards, and whether one that was stopped in
   its second epoch and taken up again ends with the same bytes.
3. ATS with a ViT-L/16 (random weights) classifies generated slides, in float32 and in bfloat16: tiles a second, the
   share of the time in which the GPU computes (CUDA events around the encoder; target 90 % in bfloat16), peak memory,
   and what a slide's time goes to.
4. Two slides side by side (`workers=2`) in bfloat16.

It needs this package alone; every number is printed with the name of the card.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
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
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from common import large_slide, machine, table

from wsi_attention import Classifier, classify, load_model, predict, train
from wsi_attention.checkpoint import build_model, save_model
from wsi_attention.config import as_recipe
from wsi_attention.methods.ats import AtsOptions, AttentionSampling
from wsi_attention.model_card import ModelCard
from wsi_attention.nn.attention_nets import TissueAttentionNet
from wsi_attention.nn.blocks import Encoder, UnitNorm
from wsi_attention.nn.encoders import Frozen
from wsi_attention.nn.heads import ScaledLinear
from wsi_attention.nn.vit import VisionTransformer
from wsi_attention.training.listener import Silent

ROOT = Path(__file__).resolve().parents[2]
CLOSE = 1e-4
WIDTH, HEADS = 1024, 16


class VitLarge(Encoder):
    """ViT-L/16 at 224 px with random weights, timed on the GPU by events around each call."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.network, self.unit, self.dim = VisionTransformer(3, 16, (14, 14), WIDTH, depth, HEADS), UnitNorm(), WIDTH
        self.spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def forward(self, tiles: Tensor) -> Tensor:
        """Map (m, 3, 224, 224) to (m, 1024)."""
        if not tiles.is_cuda:
            return self.unit(self.network(tiles))
        span = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        span[0].record()
        features: Tensor = self.unit(self.network(tiles))
        span[1].record()
        self.spans.append(span)
        return features

    def seconds(self) -> float:
        """Seconds that the GPU computed since the last call."""
        torch.cuda.synchronize()
        spent = sum(begin.elapsed_time(end) for begin, end in self.spans) / 1000
        self.spans.clear()
        return spent


def classifier_of(depth: int, tiles: int, folder: Path) -> tuple[Classifier, VitLarge]:
    """ATS as it would be built for such an encoder; the model is in memory only."""
    options = AtsOptions(tile_size=224, tile_mpp=0.5, draws=tiles)
    arguments: dict[str, Any] = {"tile_size": 224, "tile_mpp": 0.5, "draws": tiles}
    card = ModelCard(method="ats", classes=("benign", "lesion"), arguments=arguments)
    save_model(folder, build_model("ats", 2, **arguments), card)
    torch.manual_seed(0)
    attention = TissueAttentionNet(options.channels, options.attention_widths, options.context)
    encoder, head = VitLarge(depth), nn.Conv2d(attention.dim, 2, 1)
    parts = attention, Frozen(encoder), ScaledLinear(WIDTH, 2), options.preprocess(), options, head
    return replace(load_model(folder), model=AttentionSampling(*parts).eval(), folder=None), encoder


def same_answers(device: str) -> float:
    """The largest difference of a probability between the CPU and the device; 1 where a label differs."""
    demo, most = load_model("demo"), 0.0
    for path in sorted((ROOT / "sample_slides").glob("sample_*")):
        here = predict(path, demo, device="cpu", precision="32")
        there = predict(path, demo, device=device, precision="32")
        most = max(most, float(abs(here.probabilities - there.probabilities).max()), float(here.label != there.label))
    return most


def same_labels(device: str) -> bool:
    """Whether the demo model says of the sample slides on the device, in the precision it takes there, what it should."""
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
    """So many generated slides: two are painted, the others are copies under other names."""
    painted = [large_slide(folder, size, seed=seed) for seed in (1, 2)]
    given = folder / "slides"
    given.mkdir()
    for number in range(count):
        shutil.copy(painted[number % 2], given / f"slide_{number:02d}.svs")
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
    with counted(asked["device"]) as told:
        report = classify([given], out, classifier, what=(), in_process=True, profile=True, **asked)
    assert report.statuses["done"] == report.total, report.statuses
    rows = (out / "predictions.csv").read_text(encoding="utf-8").splitlines()
    column = rows[0].split(",").index("tiles_read")
    read = sum(int(row.split(",")[column]) for row in rows[1:])
    busy = encoder.seconds() / told["seconds"] if asked["device"].startswith("cuda") else float("nan")
    assert report.profile is not None
    print("\n".join(report.profile.lines()))
    figures = {"tiles": read, "tiles_per_second": read / told["seconds"], "busy": busy}
    return {**asked, **told, **figures, "profile": report.profile.facts()}


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
        runs = []
        for number, (precision, workers) in enumerate([wanted[1], *wanted]):  # the first warms up and is not told
            run = {"device": asked.device, "precision": precision, "workers": workers}
            runs.append(batch(given, place / f"out-{number}", model, run))
            print(f"{precision}, {workers} side by side: {runs[-1]['seconds']:.1f} s", flush=True)
    head = ("precision", "side by side", "tiles", "tiles/s", "GPU computes", "peak MB")
    told = [_row(run) for run in runs[1:]]
    print(f"{card}: ATS with ViT-L/16, {asked.slides} slides of {asked.size}²\n{table(head, told)}")
    if asked.json:
        found = {"card": card, "machine": machine(), "difference": difference, "training": training, "runs": runs}
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(difference > CLOSE or not alike or training["then on the CPU"] > CLOSE)


def _row(run: dict[str, Any]) -> list[str]:
    seconds, busy, peak = f"{run['tiles_per_second']:.0f}", f"{run['busy']:.0%}", f"{run['peak_mb']:.0f}"
    return [*(str(run[name]) for name in ("precision", "workers", "tiles")), seconds, busy, peak]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--slides", type=int, default=10)
    parser.add_argument("--size", type=int, default=40_000)
    parser.add_argument("--tiles", type=int, default=1024, help="read of each slide")
    parser.add_argument("--depth", type=int, default=24, help="blocks of the encoder; 24 is ViT-L")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
