"""How trained needle models bear slides whose stains differ from those of training, as another laboratory's do.

    python tests/benchmarks/other_stains.py --plain MODEL ... --varied MODEL ... --work needle-work [--shifts 0 0.2 0.4]

Judges model folders of `needle.py train grow` on remembered slides (`needle_remembered.py`). The strength of each stain
in a slide's overview is changed by up to the given share, other for each slide and the same for all models; tiles keep
the features that they have, so that what is measured is attention. Prints AUROC, and the share of positives of which a
tumour tile was read, means over the models of a kind.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import options_parser, run_and_save, table
from grow_ablations import InPixels, judge
from needle_remembered import Slides, recall

from wsi_attention import load_model
from wsi_attention.config import Augmentation
from wsi_attention.training.augment import draw_change


def restained(slides: Slides, share: float) -> Slides:
    """The same slides with stains that are stronger or weaker by up to a share."""
    if not share:
        return slides
    strengths = Augmentation(symmetry="none", stain=share, brightness=0.0)
    views = []
    for number, view in enumerate(slides.overview):
        colour = draw_change(strengths, torch.Generator().manual_seed(number)).colour
        assert colour is not None
        views.append(colour(torch.from_numpy(view).permute(2, 0, 1)).permute(1, 2, 0).numpy())
    return replace(slides, overview=np.stack(views))


def run(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Judge all models on all shifts of all sets."""
    torch.set_num_threads(1)
    rows = []
    for name in options.sets:
        known = recall(folder / options.variant / "features", name, options.encoder)
        for share in options.shifts:
            slides = restained(known, share)
            for called, folders in (("plain", options.plain), ("varied", options.varied)):
                for number, one in enumerate(folders):
                    found, _ = judge(load_model(one).model.eval(), slides, source=InPixels)
                    rows.append({"set": name, "shift": share, "models": called, "number": number, **found.__dict__})
    told = []
    for name, share, called in dict.fromkeys((row["set"], row["shift"], row["models"]) for row in rows):
        own = [row for row in rows if (row["set"], row["shift"], row["models"]) == (name, share, called)]
        auroc = [row["auroc"] for row in own]
        span = f"{np.mean(auroc):.3f} ({min(auroc):.3f} to {max(auroc):.3f})"
        told.append((f"{name}, ±{share:.0%}", called, span, f"{np.mean([row['found'] for row in own]):.3f}"))
    print(table(("slides", "models", "AUROC", "found"), told))
    return rows


if __name__ == "__main__":
    parser = options_parser(__doc__, "other_stains", repeats=1)
    parser.add_argument("--plain", type=Path, nargs="+", help="models whose overviews were seen as they are")
    parser.add_argument("--varied", type=Path, nargs="+", help="models of other stains in overviews")
    parser.add_argument("--work", type=Path, default=Path("needle-work"))
    parser.add_argument("--variant", default="stained")
    parser.add_argument("--encoder", default="lite0")
    parser.add_argument("--sets", nargs="+", default=["fresh-0.01", "last-0.01"])
    parser.add_argument("--shifts", nargs="+", type=float, default=[0.0, 0.2, 0.4])
    run_and_save(parser, run)
