"""What the mean over a tile's turns brings (`encoder_turns`, docs/how-to/encoders.md): to tiles, and to slides.

    python tests/benchmarks/tile_turns.py --work needle-work --variant matched [--models MODEL ...]

On remembered features (`needle_remembered.py`): how well a linear classifier, fitted to the tiles of the training
slides in one turn each, tells tumour on tiles of test slides, seen in 1, 4 and 8 turns; and what model folders of
`needle.py train grow` make of slides whose tiles are seen in `--turns`, the same number of tiles read.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import options_parser, run_and_save, table
from grow_ablations import InPixels, judge, told
from needle_remembered import in_turns, recall
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression

from wsi_attention import load_model
from wsi_attention.statistics.curves import area_under_roc

TURNS = (1, 4, 8)


def of_tiles(folder: Path, encoder: str) -> list[dict[str, Any]]:
    """AUROC of the linear classifier by number of turns."""
    fitted, other = (load_file(folder / f"tiles-{part}-{encoder}.safetensors") for part in ("train", "test"))
    fit = LogisticRegression(max_iter=500).fit(fitted["features"][:, 0].astype(np.float32), fitted["labels"])
    tumour, rows = other["labels"] == 1, []
    for turns in TURNS:
        scores = fit.decision_function(in_turns(other["features"], turns)[:, 0])
        alone = np.mean(scores[tumour] > np.quantile(scores[~tumour], 0.98))
        rows.append({"turns": turns, "auroc": area_under_roc(scores, tumour), "stand out": float(alone)})
    return rows


def of_slides(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """What every model makes of every set by number of turns."""
    rows = []
    for name in options.sets if options.models else ():
        slides = recall(folder, name, options.encoder)
        for turns in options.turns:
            shown = replace(slides, features=in_turns(slides.features, turns))
            for number, one in enumerate(options.models):
                found, _ = judge(load_model(one).model.eval(), shown, source=InPixels)
                rows.append({"set": name, "model": number, "turns": turns, **found.__dict__})
    return rows


def run(options: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Both tables."""
    torch.set_num_threads(1)
    folder = work / options.variant / "features"
    tiles, slides = of_tiles(folder, options.encoder), of_slides(options, folder)
    cells = [(str(row["turns"]), f"{row['auroc']:.4f}", f"{row['stand out']:.3f}") for row in tiles]
    print(table(("turns", "AUROC of tiles", "tumour above 98 % of the others"), cells))
    if slides:
        print(told(slides, "turns"))
    return [*tiles, *slides]


if __name__ == "__main__":
    parser = options_parser(__doc__, "tile_turns", repeats=1)
    parser.add_argument("--models", type=Path, nargs="*", default=[], help="model folders, of several seeds")
    parser.add_argument("--work", type=Path, default=Path("needle-work"))
    parser.add_argument("--variant", default="matched")
    parser.add_argument("--encoder", default="lite0")
    parser.add_argument("--sets", nargs="+", default=["unseen-0.01", "sealed-0.01", "closing-0.01"])
    parser.add_argument("--turns", nargs="+", type=int, default=[1, 8], choices=TURNS)
    run_and_save(parser, run)
