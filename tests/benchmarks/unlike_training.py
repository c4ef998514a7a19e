"""How well `unlike_training` tells slides in another stain, out of focus or of another scale from fresh ones.

    python tests/benchmarks/unlike_training.py [--train 40] [--fresh 40] [--epochs 3] [--keep FOLDER]

Paints slides, trains a small model on some, predicts fresh ones and the same ones shifted, and prints for each shift
the AUROC of the distance, how many slides it calls unlike the training, and what the last look at the training slides
cost.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
from painted import KINDS, MODEL, Told, write_labels, write_set

FRESH = 300_000


def main() -> None:
    """Paint, train, predict, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=40, help="slides to train and to validate")
    parser.add_argument("--fresh", type=int, default=40, help="slides of each kind")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        run(options.keep or Path(temporary), options.train, options.fresh, options.epochs)


def run(folder: Path, train: int, fresh: int, epochs: int) -> None:
    """Print the figures."""
    from sklearn.metrics import roc_auc_score

    import wsi_attention
    from wsi_attention.config import Recipe
    from wsi_attention.training import certainty
    from wsi_attention.training import run as training

    write_set(folder / "slides", "plain", range(train), lesions=12.0)
    labels = write_labels(folder / "slides", range(train // 2), range(train // 2, train))
    spent = {"look": 0.0}

    def timed(*given: object) -> object:
        began = time.perf_counter()
        try:
            return certainty.judged(*given)
        finally:
            spent["look"] = time.perf_counter() - began

    recipe, began = Recipe(method="ats", model=MODEL, epochs=epochs, precision="32"), time.perf_counter()
    with patch.object(training, "judged", timed):
        wsi_attention.train(labels, folder / "slides", folder / "model", recipe, device="cpu", listener=Told())
    whole = time.perf_counter() - began
    print(f"training {whole:.1f} s with {epochs} epochs, of which the last look at the slides {spent['look']:.1f} s")
    model = wsi_attention.load_model(folder / "model")
    found = {}
    for kind in KINDS:
        paths = write_set(folder / kind, kind, range(FRESH, FRESH + fresh), lesions=12.0)
        began = time.perf_counter()
        predictions = [wsi_attention.predict(path, model, device="cpu", precision="32") for path in paths]
        found[kind] = np.array([one.unlike for one in predictions], np.float64)
        seconds = (time.perf_counter() - began) / fresh
        alarms = int((found[kind] > 1).sum())
        print(f"{kind:<6} median {np.median(found[kind]):.2f}, {alarms} of {fresh} above 1, {seconds:.3f} s a slide")
    for kind in ("stain", "blur", "scale"):
        truth = np.repeat([0, 1], fresh)
        print(f"AUROC {kind:<6} {roc_auc_score(truth, np.concatenate([found['plain'], found[kind]])):.4f}")


if __name__ == "__main__":
    main()
