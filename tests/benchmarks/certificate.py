"""How often a certified label is that of the exact sum, and how little is read for it.

    python tests/benchmarks/certificate.py [--slides 24] [--runs 2000] [--model demo] [--work FOLDER]

Half of the runs are on generated slides with the demo model: every tile is read and encoded once, then `--certify 0.99`
is repeated with other seeds, from the same attention and features. The other half are populations of tiles in numbers:
lesions that attention has found, tissue without any, flat attention, results that nearly tie, and one decisive tile
that attention does not see. Each is certified by proof too.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from common import options_parser, run_and_save, table
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from populations import Given, two_classes, within
from slide_sets import set_of_slides, write_set

from wsi_attention.certificate.bounds import Bounds
from wsi_attention.certificate.reading import Goal, Settled, settle
from wsi_attention.certificate.verdict import PROOF
from wsi_attention.checkpoint import load_model
from wsi_attention.inference.predict import prepare
from wsi_attention.methods.certifying import prepared
from wsi_attention.slide.slide import open_slide

LEVEL, EVERYTHING, ROUNDING = 0.99, 10**9, 1e-5
Floats = NDArray[np.float64]


class Tiles(NamedTuple):
    """A whole slide in numbers: attention (n,), logits of each tile (n, classes), their bounds, the exact label."""

    mass: Floats
    scores: Floats
    bounds: Bounds
    label: int


class Run(NamedTuple):
    """What one certified reading came to."""

    kind: str
    label: str
    certified: str
    right: bool
    tiles: int
    share: float


def certify(kind: str, tiles: Tiles, level: float, seed: int) -> Run:
    """Read until the label is settled, and compare it with the exact one."""
    found: Settled = settle(
        Given(tiles.mass, tiles.scores), tiles.bounds, Goal(level, EVERYTHING, ROUNDING), default_rng(seed)
    )
    assert found.verdict is not None
    reached = found.verdict.level
    name = "no" if reached is None else "proof" if reached == PROOF else f"{reached:g}"
    label = ("first class", "second class")[tiles.label]
    return Run(kind, label, name, found.verdict.winner == tiles.label, found.asked, found.asked / len(tiles.mass))


def slides_in_numbers(options: argparse.Namespace, folder: Path) -> list[tuple[str, Tiles]]:
    """Generate slides, read every tile of each with the model, and check the command's own way on each."""
    specs = list(set_of_slides(options.slides, options.seed, options.size, ("svs",), (1.0, 2.0)))
    missing = [(name, spec) for name, spec in specs if not (folder / name).exists()]
    if missing:
        write_set(folder, missing, 1)
    classifier, found = load_model(options.model), []
    for name, spec in specs:
        with open_slide(folder / name) as slide, torch.inference_mode():
            source = prepare(slide, classifier, snap=False)
            exact = classifier.model.exact(source)  # type: ignore[operator]
            model = prepared(classifier.model.encoder, classifier.model.classifier, None)  # type: ignore[arg-type]
            mass = exact.terms["attention"][0][exact.terms["cells"][0]].double().numpy()
            scores = model.head.scores(exact.terms["features"][0].double().numpy())
            label = int(exact.logits[0].argmax())
            for level in (PROOF, LEVEL):
                output = classifier.model.certified(source, level, EVERYTHING, torch.Generator().manual_seed(1))  # type: ignore[operator]
                agrees = int(output.logits[0].argmax()) == label
                told = f"{output.certificate.kind} after {output.certificate.tiles} of {len(mass)} tiles"
                same = "agrees" if agrees else "DISAGREES"
                print(f"{name} ({spec.label}): {told}; {same} with exact", flush=True)
            found.append((spec.label, Tiles(mass / mass.sum(), scores, model.bounds, label)))
    return found


def attended(random: Generator, n: int, lesion: bool) -> tuple[Floats, Floats]:
    """A trained model: most attention on a few lesion tiles, which speak for it; without a lesion it is spread."""
    mass = random.dirichlet(np.full(n, 0.5))
    margin = np.clip(random.normal(-2.5, 1.0, n), -5, 5)
    if lesion:
        few = random.choice(n, max(1, n // 200), replace=False)
        mass *= 0.15
        mass[few] += 0.85 * random.dirichlet(np.ones(len(few)))
        margin[few] = np.clip(random.normal(4.0, 0.5, len(few)), -5, 5)
    return mass, margin


def flat(random: Generator, n: int) -> tuple[Floats, Floats]:
    """Attention that says nothing, tiles that are usually of one mind."""
    return np.full(n, 1 / n), np.clip(random.normal(-1.5, 1.5, n), -5, 5)


def close(random: Generator, n: int) -> tuple[Floats, Floats]:
    """A sum that is as near to 0 as 1 % of what a tile can say."""
    mass, margin = random.dirichlet(np.full(n, 1.0)), random.uniform(-4, 4, n)
    return mass, margin - float(mass @ margin) + random.choice([-0.05, 0.05])


def hidden(random: Generator, n: int) -> tuple[Floats, Floats]:
    """One tile in n decides, attention does not see it, and all the others say the opposite, each a little."""
    margin = np.full(n, -4.9 / n)
    margin[random.integers(n)] = 5.0
    return np.full(n, 1 / n), margin


KINDS: dict[str, Callable[[Generator, int], tuple[Floats, Floats]]] = {
    "attended, lesion": lambda random, n: attended(random, n, True),
    "attended, none": lambda random, n: attended(random, n, False),
    "flat": flat,
    "near tie": close,
    "hidden tile": hidden,
}


def populations(runs: int) -> list[tuple[str, Tiles]]:
    """So many populations of all kinds in turn, of 150 to 3,000 tiles."""
    found, bounds = [], within(-5.0, 5.0)
    for run in range(runs):
        kind = [*KINDS][run % len(KINDS)]
        random = default_rng(run)
        mass, margin = KINDS[kind](random, (150, 600, 3000)[run // len(KINDS) % 3])
        mass = np.maximum(mass, 1e-12) / np.maximum(mass, 1e-12).sum()
        found.append((kind, Tiles(mass, two_classes(margin), bounds, int(float(mass @ margin) < 0))))
    return found


def summary(runs: list[Run], by: Callable[[Run], str]) -> list[list[object]]:
    """A row for each kind: runs, how they were certified, how many of these wrongly, and what was read."""
    grouped: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        grouped[by(run)].append(run)
    rows: list[list[object]] = []
    for name, some in grouped.items():
        row: list[object] = [name, len(some)]
        for kind in ("proof", f"{LEVEL:g}"):
            mine = [run for run in some if run.certified == kind]
            row += [len(mine), sum(not run.right for run in mine)]
        shares, tiles = [run.share for run in some], [run.tiles for run in some]
        rows.append([*row, f"{median(tiles):.0f}", f"{median(shares):.1%}", f"{np.quantile(shares, 0.9):.1%}"])
    return rows


HEAD = ("", "runs", "proof", "wrong", f"{LEVEL:g}", "wrong", "median tiles", "median share", "90 % share")


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All runs; returns the rows of both tables."""
    slides, half = slides_in_numbers(options, folder), options.runs // 2
    bags = populations(options.runs - half)
    repeated = [slides[i % len(slides)] for i in range(half)]
    every = [(f"slides, {name}", one) for name, one in repeated] + bags
    likely = [certify(name, one, LEVEL, seed) for seed, (name, one) in enumerate(every)]
    single = [(f"slides, {name}", one) for name, one in slides] + bags
    proofs = [certify(name, one, PROOF, 0) for name, one in single]
    tables = {}
    for what, found in ((f"--certify {LEVEL:g}", likely), ("--certify (proof)", proofs)):
        rows = summary(found, lambda one: one.kind) + summary(found, lambda one: "all")
        print(f"\n{what}\n\n{table(HEAD, rows)}")
        tables[what] = rows
    trained = [one for one in likely if one.kind.startswith(("slides", "attended"))]
    print(f"\nwhere attention is trained: median share of the tiles read {median(one.share for one in trained):.1%}")
    return {"tables": tables, "head": HEAD, "median_share_trained": median(one.share for one in trained)}


def main() -> None:
    """Parse, run, print."""
    parser = options_parser(__doc__, "certificate")
    parser.add_argument("--slides", type=int, default=24, help="generated slides [24]")
    parser.add_argument("--runs", type=int, default=2000, help="runs with confidence, half of them on slides [2000]")
    parser.add_argument("--size", type=int, default=6144, help="side of the slides in pixels [6144]")
    parser.add_argument("--seed", type=int, default=700_000)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--work", type=Path, help="folder for the slides, kept")
    run_and_save(parser, run)


if __name__ == "__main__":
    main()
