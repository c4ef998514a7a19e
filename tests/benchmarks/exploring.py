"""What growing finds once it also goes where nothing was read (`explore`, docs/methods/grow.md §2.3).

    python tests/benchmarks/exploring.py --models MODEL ... --work needle-work [--explore 0 2 5 10]

Judges model folders of `needle.py train grow` on remembered slides (`needle_remembered.py`) as they are but for
`explore`; all read the same number of tiles. Prints AUROC, the share of positives of which a tumour tile was read, and
of which the heaviest tile shows tumour, means over models and sets.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import options_parser, run_and_save
from grow_ablations import InPixels, judge, told
from needle_remembered import recall

from wsi_attention import load_model


def run(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Judge every model with every `explore` on every set."""
    torch.set_num_threads(1)
    rows = []
    for name in options.sets:
        slides = recall(folder / options.variant / "features", name, options.encoder)
        for number, one in enumerate(options.models):
            model = load_model(one).model.eval()
            for explore in options.explore:
                model.options = replace(model.options, explore=explore)
                found, _ = judge(model, slides, source=InPixels)
                rows.append({"set": name, "model": number, "explore": explore, **found.__dict__})
    print(told(rows, "explore"))
    return rows


if __name__ == "__main__":
    parser = options_parser(__doc__, "exploring", repeats=1)
    parser.add_argument("--models", type=Path, nargs="+", help="model folders, of several seeds")
    parser.add_argument("--work", type=Path, default=Path("needle-work"))
    parser.add_argument("--variant", default="stained")
    parser.add_argument("--encoder", default="lite0")
    parser.add_argument("--sets", nargs="+", default=["fresh-0.01", "last-0.01", "newest-0.01"])
    parser.add_argument("--explore", nargs="+", type=float, default=[0.0, 2.0, 5.0, 10.0])
    run_and_save(parser, run)
