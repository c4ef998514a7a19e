"""The calibration error on fresh painted slides of a model that has learnt its few training slides by heart.

    python tests/benchmarks/calibration_slides.py [--train 40] [--validation 100] [--fresh 400] [--epochs 40]

Paints slides whose lesions are small and pale against the tissue's own variation, trains ATS without augmentation by
the ordinary `train`, which fits the calibration on the validation slides, and predicts fresh slides. Prints the error,
Brier score and log loss before and after calibration.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from calibration import ece, figures
from painted import CLASSES, MODEL, Told, write_labels, write_set

from wsi_attention.checkpoint import Classifier

FRESH = 500_000


def main() -> None:
    """Paint, train, predict, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=40)
    parser.add_argument("--validation", type=int, default=100)
    parser.add_argument("--fresh", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--lesions", type=float, default=0.3, help="size of the lesions; 1 is usual")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        run(options.keep or Path(temporary), options)


def run(folder: Path, options: argparse.Namespace) -> None:
    """Print the figures."""
    import wsi_attention

    model = trained(folder, options)
    print(f"calibration: {model.certainty.calibration.kind}")
    paths = write_set(folder / "fresh", "plain", range(FRESH, FRESH + options.fresh), options.lesions)
    truth = np.array([seed % 2 for seed in range(FRESH, FRESH + options.fresh)])
    found = [wsi_attention.predict(path, model, device="cpu", precision="32") for path in paths]
    after = np.array([one.probabilities for one in found], np.float64)
    told = [one.provenance["uncalibrated"] for one in found]
    before = np.array([[one[name] for name in CLASSES] if isinstance(one, dict) else one for one in told], np.float64)
    right = [(shares.argmax(axis=1) == truth).mean() for shares in (before, after)]
    print(f"right {right[0]:.3f} before, {right[1]:.3f} after")
    print(f"before {figures(before, truth)}")
    print(f"after  {figures(after, truth)}  ECE after / before {ece(after, truth) / ece(before, truth):.3f}")


def trained(folder: Path, options: argparse.Namespace) -> Classifier:
    """The model that knows its training slides by heart, with its calibration."""
    import wsi_attention
    from wsi_attention.config import Augmentation, Optimiser, Recipe

    whole = options.train + options.validation
    if not (folder / "slides/labels.csv").is_file():
        write_set(folder / "slides", "plain", range(whole), options.lesions)
    labels = write_labels(folder / "slides", range(options.train), range(options.train, whole))
    plain = Augmentation(symmetry="none", stain=0.0, brightness=0.0)
    recipe = Recipe(
        method="ats",
        model=MODEL,
        epochs=options.epochs,
        patience=options.epochs,
        augmentation=plain,
        optimiser=Optimiser(learning_rate=5e-3, weight_decay=0.0),
        seed=options.seed,
        precision="32",
    )
    wsi_attention.train(labels, folder / "slides", folder / "model", recipe, device="cpu", listener=Told())
    return wsi_attention.load_model(folder / "model")


if __name__ == "__main__":
    main()
