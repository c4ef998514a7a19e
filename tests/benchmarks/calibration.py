"""The calibration error on fresh slides of models that training has made wrong in different ways, before and after.

    python tests/benchmarks/calibration.py [--work needle-work] [--seeds 3] [--fresh 3000] [--only usual] [--cohorts 25]

Generates slides as the features of their tiles: with --work, those of real tissue that `needle.py remember` keeps, each
slide 24 tiles of which a few show tumour; without it, tiles in numbers, of which the tumour's differ a little. Tiles of
training slides are in no other slide. Trains attention MIL by the command `wsi-attention train --features`, which fits
a calibration, and asks each model about fresh slides. A row a setting, means over the seeds: AUROC; ECE of the label in
ten bins before and as people are shown it; the ECE that probabilities without any fault would have on so many slides;
log loss before and as shown; in how many seeds the error fell to a third. With --cohorts, the same on so many cohorts a
kind of log-odds that are right, too sure, shifted or saturated. Writes figures/calibration.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_attention.bags import Bag, write_bag
from wsi_attention.bags.source import BagSource, StoredTiles
from wsi_attention.certainty.calibration import fit_calibration
from wsi_attention.checkpoint import Classifier, load_model
from wsi_attention.statistics.curves import area_under_roc
from wsi_attention.statistics.reliability import label_calibration_error

TILES, ACROSS, SIDE, MPP = 24, 6, 96, 0.97
CLASSES = ("normal", "tumour")
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Setting:
    """How a model comes to be wrong, or right.

    Attributes:
        train, validation: how many slides.
        tumour: the most tiles of tumour in a slide that has some; the fewest is one.
        share, clinic: of slides with tumour, in training and wherever the model is judged.
        flipped: share of the training labels that are wrong.
        recipe: what differs from the defaults of `train`.
    """

    train: int = 40
    validation: int = 60
    tumour: int = 3
    share: float = 0.5
    clinic: float = 0.5
    flipped: float = 0.0
    recipe: tuple[str, ...] = ()


USUAL = ("epochs = 10", "[optimiser]", "learning_rate = 1e-2")
HEART = ("epochs = 14", "patience = 14", "[optimiser]", "learning_rate = 3e-2", "weight_decay = 0.0")
"""Training goes on until every slide is known."""
SETTINGS = {
    "few slides, by heart": Setting(recipe=HEART),
    "one in eight, weighed": Setting(train=72, share=0.125, clinic=0.125, validation=80, recipe=USUAL),
    "usual": Setting(recipe=USUAL),
    "much evidence": Setting(tumour=12, recipe=USUAL),
    "half, one in ten later": Setting(clinic=0.1, validation=80, recipe=HEART),
    "a quarter mislabelled": Setting(flipped=0.25, recipe=HEART),
    "by heart, 24 validate": Setting(validation=24, recipe=HEART),
}


@dataclass(frozen=True)
class Stock:
    """Tiles to make slides of: features (n, 8, d), labels (n,)."""

    features: NDArray[np.float32]
    labels: Labels

    def part(self, number: int) -> Stock:
        """Every second tile, from the first or the second."""
        return Stock(self.features[number::2], self.labels[number::2])


def stock_of(work: Path | None) -> Stock:
    """Remembered tiles of the needle benchmark's training part, or tiles in numbers."""
    if work is not None:
        from safetensors import safe_open

        with safe_open(work / "stained" / "features" / "tiles-train-small.safetensors", "np") as file:
            return Stock(file.get_tensor("features").astype(np.float32), file.get_tensor("labels"))
    random, labels = np.random.default_rng(5), (np.arange(2400) % 5 < 2).astype(np.int64)
    features = random.normal(0, 1, (len(labels), 8, 32)).astype(np.float32)
    features[..., 0] += labels[:, None] * 4.0
    return Stock(features / np.linalg.norm(features, axis=-1, keepdims=True), labels)


def slide(stock: Stock, seed: int, positive: bool, most: int) -> Bag:
    """A slide as the features of its tiles, which lie in rows."""
    random = np.random.default_rng([seed, 11])
    few = int(random.integers(1, most + 1)) if positive else 0
    chosen = [random.choice(np.flatnonzero(stock.labels == k), n) for k, n in ((0, TILES - few), (1, few))]
    features = stock.features[np.concatenate(chosen), random.integers(8, size=TILES)][random.permutation(TILES)]
    places = np.stack([np.arange(TILES) % ACROSS, np.arange(TILES) // ACROSS], 1) * SIDE
    extent = ACROSS * SIDE, TILES // ACROSS * SIDE
    return Bag(f"s{seed}", places, SIDE, SIDE, extent, MPP, features, encoder="benchmark")


def classes(first: int, count: int, share: float) -> Labels:
    """Labels of slides with that share of tumour, in an order by chance."""
    labels = (np.arange(count) < round(count * share)).astype(np.int64)
    return np.random.default_rng([first, 7]).permutation(labels)


def trained(folder: Path, setting: Setting, stock: Stock, seed: int) -> Classifier:
    """The model that the command has trained."""
    from typer.testing import CliRunner

    from wsi_attention.cli.app import app

    first, rows = 10_000 * (seed + 1), ["slide,label,split"]
    truth = classes(first, setting.train, setting.share), classes(first + 1, setting.validation, setting.clinic)
    wrong = np.random.default_rng([first, 3]).random(setting.train) < setting.flipped
    for part, labels, told, own in (("train", truth[0], truth[0] ^ wrong, 0), ("val", truth[1], truth[1], 1)):
        start = first + 5_000 * own
        bags = [slide(stock.part(own), start + i, bool(one), setting.tumour) for i, one in enumerate(labels)]
        rows += [f"{bag.name},{CLASSES[one]},{part}" for bag, one in zip(bags, told, strict=True)]
        for bag in bags:
            write_bag(bag, folder / "features", "trident")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    plain = [line for line in setting.recipe if "[" not in line and not line.startswith(("learning", "weight"))]
    rest = [line for line in setting.recipe if line not in plain]
    recipe = ['method = "mil"', f"seed = {seed}", *plain, "[model]", f"tile_size = {SIDE}", f"tile_mpp = {MPP}", *rest]
    (folder / "recipe.toml").write_text("\n".join(recipe) + "\n")
    command = ["train", "-l", "labels.csv", "--features", "features", "-o", "model", "--config", "recipe.toml"]
    told = [
        str(folder / word) if word in ("labels.csv", "features", "model", "recipe.toml") else word for word in command
    ]
    ran = CliRunner().invoke(app, [*told, "--device", "cpu"])
    if ran.exit_code:
        raise SystemExit(ran.output)
    return load_model(folder / "model")


@torch.inference_mode()
def logits_of(classifier: Classifier, bags: Sequence[Bag]) -> Floats:
    """What the model says of each slide, (n, 2)."""
    sources = [BagSource(bag, StoredTiles(bag, SIDE), MPP) for bag in bags]
    return np.stack([classifier.model(source).logits[0].double().numpy() for source in sources])


def softmax(logits: Floats) -> Floats:
    """Probabilities of logits."""
    return np.asarray(np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)), np.float64)


def figures_of(shares: Floats, truth: Labels) -> dict[str, float]:
    """Calibration error of the label, Brier score and log loss of probabilities (n, 2)."""
    own = shares[np.arange(len(truth)), truth]
    score = float(((shares - np.eye(shares.shape[1])[truth]) ** 2).sum(axis=1).mean())
    loss = float(-np.log(own.clip(1e-12)).mean())
    return {"ece": round(label_calibration_error(shares, truth), 4), "brier": round(score, 4), "loss": round(loss, 4)}


def faultless(shares: Floats, draws: int = 200) -> float:
    """The mean error that these probabilities would have if labels were drawn from them."""
    random = np.random.default_rng(0)
    drawn = (random.random((draws, len(shares))) < shares[:, 1]).astype(np.int64)
    return round(float(np.mean([label_calibration_error(shares, labels) for labels in drawn])), 4)


def one_model(setting: Setting, stock: Stock, seed: int, fresh: int) -> dict[str, Any]:
    """Train, ask about fresh slides, compare."""
    with TemporaryDirectory() as place:
        classifier = trained(Path(place), setting, stock, seed)
    truth = classes(900_000, fresh, setting.clinic)
    bags = [slide(stock.part(1), 1_000_000 + i, bool(one), setting.tumour) for i, one in enumerate(truth)]
    logits, applied = logits_of(classifier, bags), classifier.certainty.calibration
    assert applied is not None
    plain, shown = softmax(logits), applied.probabilities(logits)
    return {
        "auroc": round(area_under_roc(logits[:, 1] - logits[:, 0], truth == 1), 4),
        "scale": round(applied.scale, 3),
        "before": figures_of(plain, truth),
        "shown": figures_of(shown, truth),
        "faultless": faultless(shown),
    }


def row_of(name: str, runs: Sequence[dict[str, Any]]) -> str:
    """A row of the table: means over the seeds."""

    def mean(key: str) -> str:
        return f"{np.mean([run[key]['ece'] for run in runs]):.3f}"

    third = sum(run["shown"]["ece"] <= run["before"]["ece"] / 3 for run in runs)
    auroc, least = (np.mean([run[key] for run in runs]) for key in ("auroc", "faultless"))
    losses = " / ".join(f"{np.mean([run[key]['loss'] for run in runs]):.3f}" for key in ("before", "shown"))
    told = [name, f"{auroc:.3f}", mean("before"), mean("shown"), f"{least:.3f}", losses]
    return f"| {' | '.join(told)} | {third} of {len(runs)} |"


HEAD = "| setting | AUROC | ECE before | shown | without fault | log loss before / shown | a third |"
KINDS: dict[str, Callable[[Floats], Floats]] = {
    "right": lambda odds: odds,
    "twice as sure": lambda odds: 2 * odds,
    "four times": lambda odds: 4 * odds,
    "shifted by 1.5": lambda odds: odds + 1.5,
    "saturated": lambda odds: 4 * np.tanh(odds),
}
"""What a model makes of the right log-odds."""


def in_numbers(kind: str, apart: float, patients: int, cohorts: int) -> dict[str, Any]:
    """Mean log loss and ECE of fresh cohorts, as they are, calibrated by each map, and as "auto" chooses ("shown")."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ("before", "platt", "isotonic", "shown")}

    def drawn(random: np.random.Generator, n: int) -> tuple[Floats, Labels]:
        labels = np.arange(n) % 2
        odds = KINDS[kind](2 * apart * (random.normal(0, 1, n) + apart * (2 * labels - 1)))
        return np.stack([-odds / 2, odds / 2], 1), labels

    for seed in range(cohorts):
        random = np.random.default_rng([seed, patients])
        logits, labels = drawn(random, patients)
        fresh, truth = drawn(random, 3_000)
        names = [str(i) for i in range(patients)]
        for name in found:
            fit = {"before": "none", "shown": "auto"}.get(name, name)
            one = fit_calibration(logits, labels, names, fit)[0]
            shares = softmax(fresh) if one is None else one.probabilities(fresh)
            figures = figures_of(shares, truth)
            found[name].append((figures["loss"], figures["ece"]))
    means = {name: [round(float(value), 4) for value in np.mean(values, axis=0)] for name, values in found.items()}
    return {"cohort": kind, "apart": apart, "patients": patients, **means}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder of the needle benchmark; tiles in numbers without it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fresh", type=int, default=3_000)
    parser.add_argument("--only", choices=list(SETTINGS), nargs="*", default=list(SETTINGS))
    parser.add_argument("--cohorts", type=int, default=0, help="of each kind in numbers [0]")
    parser.add_argument("--figures", type=Path, default=Path(__file__).parent / "figures" / "calibration.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    stock, rows = stock_of(given.work), {}
    print(f"{HEAD}\n{'|---' * 7}|", flush=True)
    for name in given.only:
        runs = [one_model(SETTINGS[name], stock, seed, given.fresh) for seed in range(given.seeds)]
        print(name, json.dumps(runs), file=sys.stderr, flush=True)
        rows[name] = {"setting": asdict(SETTINGS[name]), "runs": runs}
        print(row_of(name, runs), flush=True)
    cohorts = []
    for patients in (24, 48, 100, 300) if given.cohorts else ():
        for apart in (0.6, 1.65):
            for kind in KINDS:
                cohorts.append(in_numbers(kind, apart, patients, given.cohorts))
                print(json.dumps(cohorts[-1]), flush=True)
    told = {"tiles": "needle" if given.work else "numbers", "fresh": given.fresh, "settings": rows, "cohorts": cohorts}
    given.figures.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
