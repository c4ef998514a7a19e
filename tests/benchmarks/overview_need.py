"""How coarse an overview the demo model can do with on a large slide: its labels by the scale that attention sees.

    OMP_NUM_THREADS=1 python tests/benchmarks/overview_need.py [--size 100000] [--seeds 11 18]

Generates one large slide after another, every second with a lesion of the usual share of its tissue, and asks the model
with overviews of fewer and fewer pixels. The time of a large slide is that of its overview, so what a model needs to
see there decides how its cost grows (`slide_growth.py`). Writes figures/overview_need.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import machine, options_parser, save, table
from slide_mosaic import write_large_slide

from wsi_attention import load_model, predict
from wsi_attention.testing.slides import CLASSES, SlideSpec

PIXELS = (4_000_000, 2_000_000, 1_000_000, 500_000, 250_000)
"""The most that an overview may have; the first is the model's own number."""
MPP = 0.25


def looked_at(path: Path, model: str) -> dict[int, dict[str, float]]:
    """Probability of a lesion, pixels and scale of the overview, by the most pixels that were allowed."""
    classifier, found = load_model(model), {}
    for most in PIXELS:
        classifier.model.overview_pixels = most
        seen = predict(str(path), classifier, device="cpu")
        scale = MPP * (seen.extent[0] * seen.extent[1] / seen.overview_pixels) ** 0.5
        found[most] = {"lesion": float(seen.probabilities[1]), "pixels": seen.overview_pixels, "mpp": round(scale, 1)}
    return found


def one_slide(folder: Path, size: int, seed: int, model: str) -> dict[str, Any]:
    """Generate a slide, look at it, take it away."""
    path, label = folder / f"{seed}.svs", CLASSES[seed % 2]
    spec = SlideSpec((size, size), mpp=MPP, seed=seed, label=label, coverage=0.4, quality=80)
    truth = write_large_slide(path, spec)
    found = {"seed": seed, "label": label, "lesion_px": truth.lesion_area, "by_pixels": looked_at(path, model)}
    path.unlink()
    return found


def main() -> None:
    """The command line."""
    parser = options_parser(__doc__, "overview_need", repeats=1)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, nargs=2, default=[11, 18], help="the first and the last")
    parser.add_argument("--model", default="demo")
    given, began, slides = parser.parse_args(), machine(), []
    with TemporaryDirectory() as folder:
        for seed in range(given.seeds[0], given.seeds[1] + 1):
            slides.append(one_slide(Path(folder), given.size, seed, given.model))
            print(json.dumps(slides[-1]), flush=True)
    rows = []
    for most in PIXELS:
        of = {label: [one["by_pixels"][most] for one in slides if one["label"] == label] for label in CLASSES}
        called = {label: sum(one["lesion"] > 0.5 for one in seen) for label, seen in of.items()}
        mpp = of[CLASSES[1]][0]["mpp"]
        rows.append([f"{most:,}", mpp, *(f"{called[label]} of {len(of[label])}" for label in reversed(CLASSES))])
    print(table(("at most", "µm/px", "with a lesion, called so", "without, called so"), rows))
    save(given.json, given, {"slides": slides}, began)


if __name__ == "__main__":
    main()
