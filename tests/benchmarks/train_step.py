"""Seconds of a training step of every method with its default recipe, split into reading and computing.

    python tests/benchmarks/train_step.py [--methods ats zoom-in …] [--size 16384]

Trains two epochs of two steps on generated slides by the public `train`. A step is as many slides as the recipe's
batch says. Reading is what the step waits for pixels: the next slide and its overview, tiles, finer views; the rest is
computing. The second step of an epoch is told, for the first one also pays for what surrounds an epoch. In the first
epoch overviews are read, from the second on they come from memory.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import machine, options_parser, save, table
from slide_mosaic import write_large_slide

from wsi_attention.config import Recipe, default_recipe
from wsi_attention.testing.slides import CLASSES, SlideSpec
from wsi_attention.timing import Clock, spent_on, timed
from wsi_attention.training import loop
from wsi_attention.training.run import train

METHODS = ("ats", "zoom-in", "tnet", "rams-trans", "oaa", "oaa-plus", "trt")
READING = ("open", "overview", "read")
EPOCHS, STEPS, VALIDATION = 2, 2, 4
Figures = dict[str, Any]


class Stopwatch:
    """A listener that notes the clock's state at the end of every step."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.steps: list[Figures] = []

    def line(self, text: str) -> None:
        """Nothing."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """One step, or one slide of a validation, is done."""
        self._clock.turn_to(self._clock.turn_to("waiting"))  # charges what passed so far
        seconds, now = dict(self._clock.seconds), time.process_time()
        self.steps.append({"stage": stage, "done": done, "processor": now, "seconds": seconds})

    def second_steps(self) -> dict[str, Figures]:
        """By epoch: seconds of its second step by kind of work, and of processor time."""
        found = {}
        for before, after in zip(self.steps, self.steps[1:], strict=False):
            if before["stage"] == after["stage"] and after["stage"].startswith("epoch"):
                kinds = {kind: spent - before["seconds"][kind] for kind, spent in after["seconds"].items()}
                found[after["stage"]] = kinds | {"processor": after["processor"] - before["processor"]}
        return found


def waited_for(examples: Sequence[loop.Example]) -> Generator[Any]:
    """As the loop's own reading ahead, but waiting for the next slide counts as opening."""
    coming = _ahead(examples)
    try:
        for _ in examples:
            with spent_on("open"):
                opened = next(coming)
            yield opened
    finally:
        coming.close()


_ahead = loop.ahead
loop.ahead = waited_for


def make_slides(folder: Path, count: int, size: int) -> list[Path]:
    """Large slides of both classes in turns."""
    paths = []
    for index in range(count):
        path = folder / f"slide_{index:02d}_{size}.svs"
        if not path.exists():
            write_large_slide(path, SlideSpec((size, size), mpp=0.25, seed=index, label=CLASSES[index % 2]))
        paths.append(path)
    return paths


def write_labels(path: Path, slides: Sequence[Path], training: int) -> None:
    """Labels of so many training slides, and of the last ones for validation."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("slide", "label", "split"))
        for index, slide in enumerate(slides):
            if index < training or index >= len(slides) - VALIDATION:
                rows.writerow((slide.name, CLASSES[index % 2], "train" if index < training else "val"))


def measure(recipe: Recipe, slides: Sequence[Path], work: Path) -> dict[str, Figures]:
    """Train a method; its second steps."""
    labels = work / f"{recipe.method}.csv"
    write_labels(labels, slides, STEPS * recipe.batch)
    with timed() as clock:
        watch = Stopwatch(clock)
        train(labels, [slides[0].parent], work / recipe.method, recipe, earlier="replace", device="cpu", listener=watch)
    return watch.second_steps()


def split(step: Figures) -> tuple[float, float]:
    """Seconds of reading and of computing of a step."""
    reading = sum(step[kind] for kind in READING)
    return reading, sum(value for kind, value in step.items() if kind != "processor") - reading


def run(options: argparse.Namespace, work: Path) -> Figures:
    """All methods, repeated in turns."""
    recipes = {name: replace(default_recipe(name), epochs=EPOCHS) for name in options.methods}
    if "oaa-plus" in recipes:
        recipes["oaa-plus"] = replace(recipes["oaa-plus"], maps=str(work / "oaa"))
    (work / "slides").mkdir(parents=True, exist_ok=True)
    most = max(recipe.batch for recipe in recipes.values())
    slides = make_slides(work / "slides", STEPS * most + VALIDATION, options.size)
    found: Figures = {name: {"batch": recipe.batch, "runs": []} for name, recipe in recipes.items()}
    for _ in range(options.repeats):
        for name, recipe in recipes.items():
            found[name]["runs"].append(measure(recipe, slides, work))
            print(f"{name}: {found[name]['runs'][-1]['epoch 2']['processor']:.1f} s of processor time", flush=True)
    return found


def report(found: Figures) -> None:
    """Print a line a method."""
    rows = []
    for name, each in found.items():
        row: list[object] = [name, each["batch"]]
        for epoch in ("epoch 1", "epoch 2"):
            parts = [split(one[epoch]) for one in each["runs"]]
            reading, computing = (statistics.median(values) for values in zip(*parts, strict=True))
            row += [f"{reading:.2f}", f"{computing:.2f}", f"{reading / (reading + computing):.2f}"]
        rows.append((*row, f"{statistics.median(one['epoch 2']['processor'] for one in each['runs']):.2f}"))
    epochs = [f"{part} {epoch}" for epoch in (1, 2) for part in ("read", "compute", "share read")]
    print(table(("method", "slides a step", *epochs, "cpu s 2"), rows))
    shares = [row[7] for row in rows]
    print(f"ratio of a later step spent waiting for pixels: {min(shares)} to {max(shares)}")


def main() -> None:
    """The command line."""
    parser = options_parser(__doc__, "train_step", repeats=1)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--size", type=int, default=16_384, help="side of the slides in pixels")
    parser.add_argument("--work", type=Path, help="keeps the slides here for the next run")
    options = parser.parse_args()
    if "oaa-plus" in options.methods and "oaa" not in options.methods[: options.methods.index("oaa-plus")]:
        parser.error("oaa-plus learns the maps of oaa: name oaa before it")
    began = machine()
    with TemporaryDirectory() as folder:
        found = run(options, options.work or Path(folder))
    report(found)
    save(options.json, options, found, began)


if __name__ == "__main__":
    main()
