"""Do grades, labels, numbers and survival come out right on fresh slides whose truth is known?

Generated slides have lesions of a known size; each target's truth follows from the size, survival times with chance and
censoring. A model a target learns from some slides, and is judged on others, beside what the true size itself reaches.

    python tests/benchmarks/targets.py [--slides 60] [--epochs 40] [--method mil] [--only labels regression]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from wsi_attention.config import Recipe, default_recipe, parse_recipe
from wsi_attention.evaluation.targets import evaluate_target, target_in
from wsi_attention.inference.batch.classify import classify
from wsi_attention.statistics.bayesian_bootstrap import whole
from wsi_attention.statistics.concordance import concordance
from wsi_attention.testing.slides import SlideSpec, write_slide
from wsi_attention.training.run import train

LARGEST = 150.0
"""Radius of the largest lesion in level-0 pixels of 0.5 µm."""
ASKED: dict[str, dict[str, object]] = {
    "ordinal": {"target": "ordinal", "order": ["none", "small", "large"], "columns": ["grade"]},
    "labels": {"target": "labels", "columns": ["lesion", "large"]},
    "regression": {"target": "regression", "columns": ["size"]},
    "survival": {"target": "survival"},
}
MODEL = {"tile_size": 64, "tile_mpp": 1.0, "encoder_widths": [16, 32], "features": 32}


def slides(folder: Path, count: int) -> float:
    """Write slides and labels.csv, a third of them to judge by; return the C-index of the true size on these."""
    rng, rows, kept = np.random.default_rng(0), ["slide,split,grade,lesion,large,size,time,event"], []
    for i in range(count):
        severity = max(0.0, float(rng.uniform(-0.5, 1.0)))
        radius = LARGEST * np.sqrt(severity)
        lesions = ((350.0, 300.0, radius),) if severity else ()
        label = "lesion" if severity else "benign"
        write_slide(
            folder / f"s{i}.svs", SlideSpec(size=(700, 600), seed=i, label=label, lesions=lesions, coverage=0.4)
        )
        came, heard = rng.exponential(60 * np.exp(-3 * severity)), rng.exponential(60)
        part = "test" if i % 3 == 0 else "val" if i % 3 == 1 and i % 2 else "train"
        grade = "none" if not severity else "small" if severity < 0.5 else "large"
        told = f"{grade},{int(severity > 0)},{int(severity >= 0.5)},{100 * severity:.3f}"
        rows.append(f"s{i},{part},{told},{min(came, heard) + 0.01:.3f},{int(came <= heard)}")
        if part == "test":
            kept.append((min(came, heard), came <= heard, severity))
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    times, events, risks = (np.array(values) for values in zip(*kept, strict=True))
    return whole(concordance(times, events.astype(bool), risks), len(kept))


def recipe_for(method: str, kind: str, epochs: int) -> Recipe:
    """Return the recipe of a target."""
    more = {"epochs": epochs, "patience": epochs, "best": "loss", "model": MODEL, "optimiser": {"learning_rate": 3e-3}}
    return parse_recipe(default_recipe(method).as_dict() | ASKED[kind] | more, "the benchmark")


def main() -> None:
    """Print the figures of each target."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--slides", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--method", default="mil")
    parser.add_argument("--only", nargs="+", choices=list(ASKED), default=list(ASKED))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "slides"
        folder.mkdir()
        best = slides(folder, asked.slides)
        print(f"the true size has a C-index of {best:.3f} on the slides that judge")
        for kind in asked.only:
            start, model, results = time.perf_counter(), Path(place) / kind, Path(place) / f"results-{kind}"
            train(folder / "labels.csv", folder, model, recipe_for(asked.method, kind, asked.epochs), device="cpu")
            classify(folder, results, model, device="cpu", in_process=True, what="tiles")
            target = target_in(results, None, None)
            assert target is not None
            found = evaluate_target(results, folder / "labels.csv", target, split="test")
            figures = ", ".join(
                f"{one.name} {one.value:.3f} ({one.interval[0]:.3f} to {one.interval[1]:.3f})"
                for one in found.judgement.figures
            )
            print(f"{kind}: {figures}; {found.judgement.n} slides, {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
