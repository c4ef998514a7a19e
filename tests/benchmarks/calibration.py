"""The calibration error of a trained model on fresh slides, with and without what training fits at its end.

    python tests/benchmarks/calibration.py [--train 32] [--validation 80] [--fresh 300] [--epochs 30] [--keep FOLDER]

Paints slides whose lesions are small, trains a small model until it has learnt its slides by heart, predicts fresh ones
and prints, before and after calibration: ECE in ten bins, Brier score, log loss; and for the conformal sets their share
that holds the right class, and how many labels are withheld.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from painted import MODEL, Told, write_labels, write_set

FRESH = 200_000
LESIONS = 2.0


def ece(shares: NDArray[np.float64], truth: NDArray[np.int64], bins: int = 10) -> float:
    """The expected calibration error of the highest probability (Guo et al., 2017), in bins of equal width."""
    sure, right = shares.max(axis=1), shares.argmax(axis=1) == truth
    place = np.minimum((sure * bins).astype(int), bins - 1)
    parts = [(place == one) for one in range(bins) if (place == one).any()]
    return float(sum(own.mean() * abs(sure[own].mean() - right[own].mean()) for own in parts))


def figures(shares: NDArray[np.float64], truth: NDArray[np.int64]) -> str:
    """What is printed of probabilities (n, 2)."""
    own = shares[np.arange(len(truth)), truth]
    brier = float(((shares - np.eye(2)[truth]) ** 2).sum(axis=1).mean())
    return f"ECE {ece(shares, truth):.4f}  Brier {brier:.4f}  log loss {-np.log(own.clip(1e-12)).mean():.4f}"


def main() -> None:
    """Paint, train, predict, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=32)
    parser.add_argument("--validation", type=int, default=80)
    parser.add_argument("--fresh", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        run(options.keep or Path(temporary), options)


def run(folder: Path, options: argparse.Namespace) -> None:
    """Print the figures."""
    import wsi_attention
    from wsi_attention.config import Augmentation, Optimiser, Recipe

    train, last = range(options.train), options.train + options.validation
    write_set(folder / "slides", "plain", range(last), LESIONS)
    labels = write_labels(folder / "slides", train, range(options.train, last))
    recipe = Recipe(
        method="ats",
        model=MODEL,
        epochs=options.epochs,
        patience=options.epochs,
        precision="32",
        optimiser=Optimiser(learning_rate=3e-3),
        augmentation=Augmentation(symmetry="none", stain=0.0, brightness=0.0),
    )
    wsi_attention.train(labels, folder / "slides", folder / "model", recipe, device="cpu", listener=Told())
    model = wsi_attention.load_model(folder / "model")
    seeds = range(FRESH, FRESH + options.fresh)
    paths = write_set(folder / "fresh", "plain", seeds, LESIONS)
    found = [wsi_attention.predict(path, model, device="cpu", precision="32") for path in paths]
    truth = np.array([seed % 2 for seed in seeds])
    before = np.array([one.provenance["uncalibrated"]["probabilities"] for one in found])
    after = np.array([one.probabilities for one in found])
    print(f"before  {figures(before, truth)}\nafter   {figures(after, truth)}")
    print(f"ECE after / before {ece(after, truth) / ece(before, truth):.3f}")
    inside = [one.among is not None and one.classes[t] in one.among for one, t in zip(found, truth, strict=True)]
    open_ones = sum(not one.decided for one in found)
    right = [one.label == one.classes[t] for one, t in zip(found, truth, strict=True) if one.decided]
    print(f"sets hold the right class {np.mean(inside):.3f}; {open_ones} of {len(found)} labels are withheld;")
    print(f"right labels: {np.mean(after.argmax(1) == truth):.3f} of all, {np.mean(right):.3f} of those that are told")


if __name__ == "__main__":
    main()
