"""Megapixel MNIST: accuracy against canvases and CPU seconds, one run, ten tiles a canvas.

    python tests/benchmarks/megapixel_mnist.py train --digits FOLDER --work FOLDER [--recipe grow-mnist]
    python tests/benchmarks/megapixel_mnist.py measure --digits FOLDER --work FOLDER
    python tests/benchmarks/megapixel_mnist.py report --work FOLDER

`train` learns from a stream that never shows a canvas twice (`megapixel_canvases.py`), with model, loss, optimiser and
rates as a recipe of the package says; an "epoch" is 1,000 canvases. After each the state is written: started again, it
goes on to the same weights. It ends with a model folder, and with figures of each epoch on canvases that are judged
before they are learnt. `measure` classifies canvases of test digits with patterns of their own, `report` draws.
FOLDER of digits holds MNIST's idx files.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from common import machine
from megapixel_canvases import CanvasSource, Stream, load_digits
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from wsi_attention.checkpoint import load_model, save_model
from wsi_attention.config import Recipe, as_recipe, changed
from wsi_attention.evaluation.page import drawing
from wsi_attention.evaluation.plots import Line, Plot
from wsi_attention.methods.method import build_model
from wsi_attention.model_card import ModelCard
from wsi_attention.protocols import EpochAware
from wsi_attention.training.loop import learning_rate
from wsi_attention.training.state import copied, optimiser_tensors, restore_optimiser, seed_of

CLASSES = tuple("0123456789")
EPOCH = 1_000
SEEDS = {"train": 1, "test": 2}
"""Of the streams; the seed of a run decides weights and draws only."""


@dataclass(frozen=True)
class Epoch:
    """What is known of the canvases of an epoch, each judged before the step that learns from it."""

    canvases: int
    draws: int
    loss: float
    accuracy: float
    cpu_seconds: float
    seconds: float


class Run:
    """A training that is on its way.

    Args:
        recipe: all numbers.
        folder: of state and model.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder, self.state = recipe, folder, folder / "run.safetensors"
        torch.manual_seed(seed_of(recipe.seed, "weights"))
        self.model = build_model(recipe.method, len(CLASSES), **recipe.model)
        settings = recipe.optimiser
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.epochs: list[Epoch] = []
        if self.state.is_file():
            self._restore()

    def _restore(self) -> None:
        with safe_open(self.state, framework="pt") as file:
            told = json.loads(file.metadata()["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if told["recipe"] != self.recipe.as_dict():
            raise SystemExit(f"{self.state} is of another recipe; give another --work, or remove it")
        self.epochs = [Epoch(**one) for one in told["epochs"]]
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "optimiser": {}}
        for name, value in tensors.items():
            groups[name.partition("/")[0]][name.partition("/")[2]] = value
        self.model.load_state_dict(groups["model"])
        restore_optimiser(self.optimiser, groups["optimiser"])
        for weight, kept in self.optimiser.state.items():  # the fused optimiser wants the memory format of the weights
            kept |= {name: torch.empty_like(weight).copy_(kept[name]) for name in ("exp_avg", "exp_avg_sq")}

    def save(self) -> None:
        """Write the state whole, then put it in the place of the one before."""
        groups = {"model": self.model.state_dict(), "optimiser": optimiser_tensors(self.optimiser)}
        tensors = {f"{group}/{name}": copied(one) for group, own in groups.items() for name, one in own.items()}
        told = {"recipe": self.recipe.as_dict(), "epochs": [asdict(one) for one in self.epochs]}
        fresh = self.state.with_suffix(".new")
        save_file(tensors, fresh, {"run": json.dumps(told)})
        fresh.replace(self.state)

    def epoch(self, source: CanvasSource) -> Epoch:
        """Learn from the next canvases."""
        number, batch, recipe = len(self.epochs) + 1, source.batch, self.recipe
        self.model.train()
        if isinstance(self.model, EpochAware):
            self.model.start_epoch(number, recipe.epochs, [1 / len(CLASSES)] * len(CLASSES))
        cpu, wall, steps = time.process_time(), time.perf_counter(), EPOCH // batch
        losses, right = [], []
        for step in range(steps):
            for group in self.optimiser.param_groups:
                group["lr"] = learning_rate(recipe, number - 1 + (step + 0.5) / steps)
            first = (number - 1) * EPOCH + step * batch
            target = torch.from_numpy(source.show(np.arange(first, first + batch)))
            output = self.model(source, Generator().manual_seed(seed_of(recipe.seed, "draws", first)))
            loss = self.model.loss(output, target)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.optimiser.clip)
            self.optimiser.step()
            losses.append(float(loss.detach()))
            right += (output.logits.argmax(-1) == target).tolist()
        spent = time.process_time() - cpu, time.perf_counter() - wall
        return Epoch(steps * batch, int(self.model.draws), float(np.mean(losses)), float(np.mean(right)), *spent)


def train(digits: Path, work: Path, recipe: Recipe) -> None:
    """Train until the recipe's epochs are done, and write the model folder."""
    work.mkdir(parents=True, exist_ok=True)
    run = Run(recipe, work)
    source = CanvasSource(Stream(load_digits(digits, "train"), SEEDS["train"]), recipe.batch)
    while len(run.epochs) < recipe.epochs:
        run.epochs.append(run.epoch(source))
        run.save()
        print(f"epoch {len(run.epochs)} of {recipe.epochs}:", json.dumps(asdict(run.epochs[-1])), flush=True)
    told = {"canvases": sum(one.canvases for one in run.epochs), "last epoch's accuracy": run.epochs[-1].accuracy}
    card = ModelCard(recipe.method, recipe.model, CLASSES, recipe.as_dict(), told, purpose="benchmark")
    save_model(work / "model", run.model.eval(), card)
    (work / "training.json").write_text(json.dumps({"epochs": [asdict(one) for one in run.epochs]}, indent=1))


@torch.no_grad()
def accuracy(model: nn.Module, source: CanvasSource, count: int, draws: int = 0) -> tuple[float, float]:
    """Share of the first canvases whose class is right, and its standard error; `draws` in place of the model's."""
    model.eval()
    if draws:
        model.draws = draws
    right: list[bool] = []
    for first in range(0, count, source.batch):
        target = torch.from_numpy(source.show(np.arange(first, first + source.batch)))
        output = model(source, Generator().manual_seed(seed_of("measure", first)))
        right += (output.logits.argmax(-1) == target).tolist()
    share = float(np.mean(right))
    return share, float(np.sqrt(share * (1 - share) / len(right)))


def measure(digits: Path, work: Path, count: int) -> None:
    """Classify test canvases with 10 tiles, and with more."""
    model = load_model(work / "model").model
    source = CanvasSource(Stream(load_digits(digits, "test"), SEEDS["test"]), 20)
    found = {}
    for draws in (10, 20, 50):
        cpu = time.process_time()
        share, error = accuracy(model, source, count, draws)
        found[f"N = {draws}"] = {"accuracy": share, "standard error": error, "cpu seconds": time.process_time() - cpu}
        print(f"N = {draws}: accuracy {share:.4f} ± {error:.4f} on {count} test canvases", flush=True)
    (work / "test.json").write_text(json.dumps({"canvases": count, "machine": machine(), **found}, indent=1))


PUBLISHED = {
    "ATS as released (its paper's networks, N = 10)": ((5e3, 0.10), (1.05e6, 0.10), (2.5e6, 0.80)),
}
"""Canvases seen and test accuracy: chance until about epoch 210 of 500, an error of about 0.20 at the end, 5,000
canvases an epoch (docs/methods/ats.md). IPS (Bergner et al., ICLR 2023) is released with 150 epochs of 5,000."""


def report(work: Path) -> None:
    """Print a table and draw two curves: accuracy against canvases, and against CPU seconds."""
    epochs = json.loads((work / "training.json").read_text())["epochs"]
    canvases, cpu = (np.cumsum([one[key] for one in epochs]) for key in ("canvases", "cpu_seconds"))
    accuracy = [float(np.mean([one["accuracy"] for one in epochs[max(0, i - 4) : i + 1]])) for i in range(len(epochs))]
    print("| canvases | CPU seconds | draws | accuracy of 5,000 canvases before they are learnt |\n|---|---|---|---|")
    for i in np.unique(np.geomspace(1, len(epochs), 12).round().astype(int)) - 1:
        print(f"| {canvases[i]:,} | {cpu[i]:.0f} | {epochs[i]['draws']} | {accuracy[i]:.3f} |")
    if (work / "test.json").is_file():
        print((work / "test.json").read_text())
    ours = "here, N = " + ", ".join(str(draws) for draws in dict.fromkeys(one["draws"] for one in epochs))
    against = {"canvases": (canvases, PUBLISHED), "CPU seconds": (cpu, {})}
    for name, (along, others) in against.items():
        lines = {ours: tuple(zip(np.log10(along), accuracy, strict=True))}
        lines |= {other: tuple((np.log10(x), y) for x, y in points) for other, points in others.items()}
        drawn = tuple(Line(one, f"curve c{i}", points) for i, (one, points) in enumerate(lines.items()))
        ends = float(np.floor(np.log10(along[0]))), float(np.ceil(max(x for one in drawn for x, _ in one.points)))
        axes = f"{name}, power of ten", "accuracy"
        plot = Plot(name, "Megapixel MNIST, majority", "1500² canvases", *axes, drawn, x_range=ends)
        (work / f"{name.replace(' ', '_')}.svg").write_text(drawing(plot), encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("train", "measure", "report"))
    parser.add_argument("--digits", type=Path, help="folder with the idx files of MNIST")
    parser.add_argument("--work", type=Path, default=Path("megapixel-work"))
    parser.add_argument("--recipe", default="grow-mnist", help="shipped name, or a TOML file")
    parser.add_argument("--canvases", type=int, default=500_000, help="to learn from, in steps of 1,000")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--count", type=int, default=3000, help="test canvases")
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if given.step != "report" and given.digits is None:
        parser.error("--digits is needed: the folder with MNIST's idx files")
    if given.step == "train":
        train(
            given.digits, given.work, changed(as_recipe(given.recipe), epochs=given.canvases // EPOCH, seed=given.seed)
        )
    elif given.step == "measure":
        measure(given.digits, given.work, given.count)
    else:
        report(given.work)


if __name__ == "__main__":
    main()
