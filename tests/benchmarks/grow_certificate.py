"""What certificate, conformal sets and calibration of trained models are worth on needles.

    python tests/benchmarks/grow_certificate.py --work needle-work [--model FOLDER] [--rows grow ats] [--check 2]

Row "grow" is a model folder that `needle.py train grow` has written, with calibration and sets as its training fitted
them; row "ats" is the package's ATS, trained here on remembered features in a minute, calibration and sets fitted to
the set "valid-0.01". Features of tiles and overviews are those that `needle.py remember` keeps; `--check` reads so many
slides of each set as the product does, with --exact, and compares. Prints for each set: how many labels of the ordinary
prediction and of `--certify proof` and `--certify 0.99`, without a budget, are those of all tiles (`exact`), how many
are certified, and the share of the tiles read; how many conformal sets hold the right class, how many labels are
withheld; calibration error, Brier score and log loss as they are and as shown. Writes figures/grow_certificate.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from calibration import figures_of
from grow_ablations import Recalled, coarse, model_of, train
from needle_remembered import Slides, recall
from numpy.typing import NDArray
from torch import Generator

from wsi_attention.certainty.fitted import Certainty
from wsi_attention.checkpoint import load_model
from wsi_attention.config import Recipe
from wsi_attention.inference.predict import predict
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
        if found is None or found.affine is None:
            return None
        scale, bias = found.affine
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


def folder_of(given: argparse.Namespace) -> Path:
    """Where the model of row "grow" lies."""
    return Path(given.model or given.work / given.variant / given.encoder / "models" / "grow-0")


def grow_of(given: argparse.Namespace) -> Row:
    """The model of the product's training."""
    classifier = load_model(folder_of(given))
    features = given.work / given.variant / "features"
    return Row(classifier.model, classifier.certainty, lambda name: recall(features, name, given.encoder), Remembered)


@torch.no_grad()
def ats_of(given: argparse.Namespace) -> Row:
    """ATS, trained on what is remembered."""
    folder = given.work / given.variant
    torch.manual_seed(0)
    slides = coarse(folder, "train", given.encoder)
    model = model_of("ats", {"draws": 94}, slides.features.shape[-1])
    with torch.enable_grad():
        train(model, slides, 0, EPOCHS)
    row = Row(
        model,
        Certainty(),
        lambda name: coarse(folder, name, given.encoder),
        lambda slides, i: Recalled(slides, [i]),
    )
    judges = row.slides("valid-0.01")
    found = fitted(row.logits(judges), judges.label.tolist(), list(judges.names), Recipe(), CLASSES)
    return Row(model, found, row.slides, row.source)


ROWS = {"grow": grow_of, "ats": ats_of}


@torch.no_grad()
def certificates(row: Row, slides: Slides) -> dict[str, Any]:
    """Labels of the ordinary prediction and of both certificates against those of all tiles."""
    exact = row.shares(row.logits(slides, exact=True)).argmax(axis=1)
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
            read.append(certificate.tiles / len(slides.cells(i)))
        shares = {f"read {CLASSES[one]}": median(read, exact == one) for one in (0, 1)}
        seconds = (time.process_time() - start) / len(slides)
        found[name] = {"kinds": dict(sorted(kinds.items())), "agrees": agree, "read": median(read), **shares}
        found[name]["seconds"] = round(seconds, 3)
    return found


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
    classifier, slides = (
        load_model(given.model or given.work / given.variant / given.encoder / "models" / "grow-0"),
        row.slides(name),
    )
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
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--sets", nargs="+", default=["valid-0.01", "test-0.01"])
    parser.add_argument("--slides", type=int, default=100, help="of each set, at most [100]")
    parser.add_argument("--check", type=int, default=0, help="slides of each set to read and compare [0]")
    parser.add_argument("--figures", type=Path, default=Path(__file__).parent / "figures" / "grow_certificate.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    every: list[dict[str, Any]] = []
    for name in given.rows:
        row = ROWS[name](given)
        for chosen in given.sets:
            slides = first_of(row.slides(chosen), given.slides)
            every.append({"row": name, "set": chosen, **certificates(row, slides), **believed(row, slides)})
            print(json.dumps(every[-1]), flush=True)
            if given.check and name == "grow":
                print(f"{chosen}: probabilities of files differ by {worst(row, given, chosen):.1e} at most", flush=True)
    given.figures.write_text(
        json.dumps({"variant": given.variant, "encoder": given.encoder, "rows": every}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
