"""What certificate, conformal sets and calibration of trained models are worth on needles.

    python tests/benchmarks/grow_certificate.py --work needle-work [--seeds 0 1 2] [--rows grow free ats] [--check 2]

Row "grow" is a model folder that `needle.py train grow` has written, with calibration and sets as its training fitted
them; a folder from before tiles were held is held here, to what its tiles say on the training slides, as training does.
Row "free" is the same model, not held. Row "ats" is the package's ATS, trained here on remembered features in a minute,
calibration and sets fitted to the set "valid-0.01". Features of tiles and overviews are those that `needle.py remember`
keeps; `--check` reads so many slides of each set as the product does, with --exact, and compares.

Prints for each set: how many labels of the ordinary prediction and of `--certify proof` and `--certify 0.99`, without a
budget, are those of all tiles (`exact`), how many are certified, and the share of the tiles read, for each label of
`exact`, on the first slides as users get them, and for `--runs` runs with other seeds from the scores of all tiles,
which the method itself has given; `turns`: the share of the attention that would turn the label of `exact` if the tiles
there said for the other class what some tile of the set does say: a proof may leave no more unread; how many conformal
sets hold the right class, how many labels are withheld; calibration error, Brier score and log loss as they are and as
shown. Writes
figures/grow_certificate.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from calibration import figures_of
from grow_ablations import Recalled, coarse, model_of, train
from needle_remembered import Slides, recall
from needle_slides import CELLS
from numpy.random import default_rng
from numpy.typing import NDArray
from populations import Given
from torch import Generator

from wsi_attention.certainty.fitted import Certainty
from wsi_attention.certificate.reading import Goal, settle
from wsi_attention.checkpoint import load_model
from wsi_attention.config import Recipe
from wsi_attention.inference.predict import predict
from wsi_attention.methods.certifying import Prepared, prepared
from wsi_attention.methods.grow.certifying import prepared as prepared_grow
from wsi_attention.methods.grow.neighbours import blocks
from wsi_attention.structures import Certificate
from wsi_attention.training.certainty import fitted

LEVELS = {"proof": 1.0, "0.99": 0.99}
UNLIMITED, EPOCHS = 10**9, 8
CLASSES = ("normal", "tumour")


class Remembered(Recalled):
    """A remembered slide with its overview as the product reads it."""

    def __init__(self, slides: Slides, index: int) -> None:
        super().__init__(slides, [index])
        self._view = torch.from_numpy(slides.overview[[index]]).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Row:
    """A trained model.

    Attributes:
        model: in eval mode.
        certainty: what was fitted for it.
        slides: a set by its name.
        source: of one slide of a set.
    """

    model: Any
    certainty: Certainty
    slides: Callable[[str], Slides]
    source: Callable[[Slides, int], Recalled]

    @property
    def calibration(self) -> tuple[list[float], list[float]] | None:
        """Factors and shifts of the logits, as `certified` takes them."""
        found = self.certainty.calibration
        if found is None or (deciding := found.deciding) is None:
            return None
        scale, bias = deciding
        return [scale] * len(bias), bias.tolist()

    def logits(self, slides: Slides, exact: bool = False) -> NDArray[np.float64]:
        """What the model says of each slide, (n, 2)."""
        every = []
        for i in range(len(slides)):
            source = self.source(slides, i)
            every.append((self.model.exact(source) if exact else self.model(source)).logits[0].double().numpy())
        return np.stack(every)

    def shares(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities (n, 2) as people are shown them."""
        plain = softmax(logits)
        found = self.certainty.calibration
        return plain if found is None else found.probabilities(logits)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of logits."""
    return np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))


def folder_of(given: argparse.Namespace, seed: int) -> Path:
    """Where the model of row "grow" lies."""
    return Path(given.model or given.work / given.variant / given.encoder / "models" / f"grow-{seed}")


def free_of(given: argparse.Namespace, seed: int) -> Row:
    """The model of the product's training, its tiles not held unless the folder says so."""
    classifier = load_model(folder_of(given, seed))
    features = given.work / given.variant / "features"
    return Row(classifier.model, classifier.certainty, lambda name: recall(features, name, given.encoder), Remembered)


@torch.no_grad()
def grow_of(given: argparse.Namespace, seed: int) -> Row:
    """The same, held to what its tiles say on the training slides."""
    row = free_of(given, seed)
    slides = row.slides("train")
    said = torch.cat([row.model.said(row.model(row.source(slides, i))) for i in range(len(slides))])
    row.model.hold(said.amax(dim=0).tolist())
    print(f"a tile says at most {row.model.options.most} for {CLASSES}", flush=True)
    return row


@torch.no_grad()
def ats_of(given: argparse.Namespace, seed: int) -> Row:
    """ATS, trained on what is remembered."""
    folder = given.work / given.variant
    torch.manual_seed(seed)
    slides = coarse(folder, "train", given.encoder)
    model = model_of("ats", {"draws": 94}, slides.features.shape[-1])
    with torch.enable_grad():
        train(model, slides, seed, EPOCHS)
    row = Row(
        model,
        Certainty(),
        lambda name: coarse(folder, name, given.encoder),
        lambda slides, i: Recalled(slides, [i]),
    )
    judges = row.slides("valid-0.01")
    found = fitted(row.logits(judges), judges.label.tolist(), list(judges.names), Recipe(), CLASSES)
    return Row(model, found, row.slides, row.source)


ROWS = {"grow": grow_of, "free": free_of, "ats": ats_of}


@torch.no_grad()
def certificates(row: Row, slides: Slides) -> dict[str, Any]:
    """Labels of the ordinary prediction and of both certificates against those of all tiles."""
    exact = exactly(row, slides).label
    plain = row.shares(row.logits(slides)).argmax(axis=1)
    found: dict[str, Any] = {"slides": len(slides), "ordinary agrees": int((exact == plain).sum())}
    for name, level in LEVELS.items():
        kinds: Counter[str] = Counter()
        agree, read, start = 0, [], time.process_time()
        for i in range(len(slides)):
            chance = Generator().manual_seed(i)
            output = row.model.certified(row.source(slides, i), level, UNLIMITED, chance, row.calibration)
            certificate: Certificate = output.certificate
            kinds[f"{CLASSES[exact[i]]}, {certificate.kind}"] += 1
            agree += int(certificate.classes[0] == exact[i])
            read.append(len(output.glimpses[0][-1].weights) / len(slides.cells(i)))
        shares = {f"read {CLASSES[one]}": median(read, exact == one) for one in (0, 1)}
        seconds = (time.process_time() - start) / len(slides)
        found[name] = {"kinds": dict(sorted(kinds.items())), "agrees": agree, "read": median(read), **shares}
        found[name]["seconds"] = round(seconds, 3)
    return found


@dataclass(frozen=True)
class Exact:
    """All tiles of each slide of a set.

    Attributes:
        cells: of each slide (m,).
        mass: attention of each slide's tiles (m,), sum 1.
        scores: what each tile says for both classes, gate and calibration included, (m, 2).
        label: (n,) of all tiles.
        turns: (n,) the attention that would turn the label if the tiles there said what others do say.
    """

    cells: list[NDArray[np.int64]]
    mass: list[NDArray[np.float64]]
    scores: list[NDArray[np.float64]]
    label: NDArray[np.int64]
    turns: NDArray[np.float64]


@torch.no_grad()
def exactly(row: Row, slides: Slides) -> Exact:
    """Read everything; `turns` is the label's lead over the most that a tile of the set says for the other class."""
    cells, mass, scores = [], [], []
    scale, shift = row.calibration or ([1.0, 1.0], [0.0, 0.0])
    for i in range(len(slides)):
        terms = row.model.exact(row.source(slides, i)).terms
        own = terms["cells"][0]
        logits = row.model.classifier(terms["features"])[0].double().numpy()
        gate = terms["log_gate"][0].double().exp().numpy() if "log_gate" in terms else np.ones(len(logits))
        attention = terms["attention"][0][own].double().numpy()
        cells.append(own.numpy())
        mass.append(attention / attention.sum())
        scores.append(gate[:, None] * (np.array(scale) * logits + np.array(shift)))
    leads = np.array([float(a @ (s[:, 1] - s[:, 0])) for a, s in zip(mass, scores, strict=True)])
    said = np.stack([one[:, 1] - one[:, 0] for one in map(extremes, scores)])
    label = (leads > 0).astype(np.int64)
    most = np.array([-said[:, 0].min(), said[:, 1].max()])
    return Exact(cells, mass, scores, label, np.minimum(np.abs(leads) / most[1 - label], 1.0))


def extremes(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scores (2, 2) of the tiles that say most for the first and for the second class."""
    lead = scores[:, 1] - scores[:, 0]
    return scores[[int(lead.argmin()), int(lead.argmax())]]


def repeated(row: Row, slides: Slides, runs: int) -> list[dict[str, Any]]:
    """Certificates from the scores of all tiles: by proof once a slide, and with confidence so many runs in turn."""
    every = exactly(row, slides)
    options = row.model.options
    side = options.side if getattr(options, "around", False) else 1
    model = bounds_for(row)
    rows = []
    for name, level in LEVELS.items():
        found: dict[int, list[tuple[str, bool, float]]] = {0: [], 1: []}
        for run in range(runs if level < 1 else len(slides)):
            i = run % len(slides)
            population = Given(every.mass[i], every.scores[i])
            settled = settle(population, model.bounds, Goal(level, UNLIMITED, model.rounding), default_rng(run))
            assert settled.verdict is not None
            reached = settled.verdict.level
            kind = "no" if reached is None else "proof" if reached == 1 else f"{reached:g}"
            read = surroundings(every.cells[i][settled.tiles], every.cells[i], side) / len(every.cells[i])
            found[int(every.label[i])].append((kind, settled.verdict.winner == int(every.label[i]), read))
        for label, own in found.items():
            rows.append({"level": name, "exact": CLASSES[label], **summary(own)})
            rows[-1]["turns"] = median(list(every.turns), every.label == label)
        rows.append({"level": name, "exact": "any", **summary([*found[0], *found[1]])})
    return rows


def summary(runs: list[tuple[str, bool, float]]) -> dict[str, Any]:
    """How many runs were settled in each way, how many of these wrongly, and the share of the tiles that they read."""
    found: dict[str, Any] = {"runs": len(runs)}
    for kind in sorted({kind for kind, _, _ in runs}):
        own = [right for other, right, _ in runs if other == kind]
        found[kind] = {"runs": len(own), "wrong": len(own) - sum(own)}
    read = [share for _, _, share in runs]
    return found | {"read": median(read), "read, 90 %": round(float(np.quantile(read, 0.9)), 3) if read else None}


def surroundings(chosen: NDArray[np.int64], cells: NDArray[np.int64], side: int) -> int:
    """How many tiles are read for those cells: the blocks around them, as far as there is tissue."""
    if side == 1:
        return len(chosen)
    around = blocks(torch.from_numpy(chosen)[None], (CELLS, CELLS), side).unique().numpy()
    return len(np.intersect1d(around, cells))


def bounds_for(row: Row) -> Prepared:
    """What certifying takes of a model of either method."""
    model = row.model
    if hasattr(model, "gate"):
        least = 0.0 if model.options.most else model.gate.least
        return prepared_grow(model.classifier, row.calibration, least, model.options.most)
    return prepared(model.encoder, model.classifier, row.calibration)


def median(values: list[float], where: NDArray[np.bool_] | None = None) -> float:
    """The median to three digits, of those that are asked for; NaN where there are none."""
    chosen = np.array(values)[np.ones(len(values), bool) if where is None else where]
    return round(float(np.median(chosen)), 3) if len(chosen) else float("nan")


@torch.no_grad()
def believed(row: Row, slides: Slides) -> dict[str, Any]:
    """Coverage of the sets, labels withheld, and the calibration error before and after."""
    logits, truth = row.logits(slides), slides.label
    found: dict[str, Any] = {"sentences": list(row.certainty.sentences[:2])}
    if row.certainty.conformal is not None:
        sets = row.certainty.conformal.sets(logits)
        single = sets.sum(axis=1) == 1
        found["covered"] = float(sets[np.arange(len(truth)), truth].mean())
        found["withheld"] = int((~single).sum())
        found["right of those told"] = float((logits.argmax(axis=1) == truth)[single].mean())
    return found | {"as it is": figures_of(softmax(logits), truth), "shown": figures_of(row.shares(logits), truth)}


def worst(row: Row, given: argparse.Namespace, name: str) -> float:
    """The largest difference of a probability between what is remembered and the slide's file, every tile read."""
    classifier, slides = load_model(folder_of(given, given.seeds[0])), row.slides(name)
    ours = row.shares(row.logits(slides, exact=True))
    off = []
    for i in range(given.check):
        path = given.work / given.variant / "slides" / name / f"{slides.names[i]}.tiff"
        theirs = predict(path, classifier, device="cpu", precision="32", exact=True).probabilities
        off.append(float(np.abs(ours[i] - theirs).max()))
    return max(off)


def first_of(slides: Slides, count: int) -> Slides:
    """The first slides of a set; positives and negatives take turns."""
    arrays = ("label", "fraction", "tissue", "tumour", "found", "index", "turn", "overview")
    return replace(slides, names=slides.names[:count], **{name: getattr(slides, name)[:count] for name in arrays})


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("needle-work"))
    parser.add_argument("--variant", default="stained")
    parser.add_argument("--encoder", default="small")
    parser.add_argument("--model", type=Path, help="folder of the model of row grow [that of needle.py]")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--sets", nargs="+", default=["valid-0.01", "test-0.01"])
    parser.add_argument("--slides", type=int, default=100, help="of each set that are certified as users do [100]")
    parser.add_argument("--runs", type=int, default=300, help="with confidence, of each set, from scores [300]")
    parser.add_argument("--check", type=int, default=0, help="slides of each set to read and compare [0]")
    parser.add_argument("--figures", type=Path, default=Path(__file__).parent / "figures" / "grow_certificate.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    every: list[dict[str, Any]] = []
    for seed, name in product(given.seeds, given.rows):
        row = ROWS[name](given, seed)
        for chosen in given.sets:
            slides = first_of(row.slides(chosen), given.slides)
            told = {"row": name, "seed": seed, "set": chosen, "runs": repeated(row, row.slides(chosen), given.runs)}
            if len(slides):
                told |= certificates(row, slides) | believed(row, slides)
            every.append(told)
            print(json.dumps(every[-1]), flush=True)
            if given.check and name == "free":
                print(f"{chosen}: probabilities of files differ by {worst(row, given, chosen):.1e} at most", flush=True)
    given.figures.write_text(
        json.dumps({"variant": given.variant, "encoder": given.encoder, "rows": every}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
