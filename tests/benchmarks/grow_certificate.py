"""What the certificate and the calibration of `grow` are worth on needles.

    python tests/benchmarks/grow_certificate.py --work needle-work [--judge valid] [--budget 450]

Takes the models of the row "all" of `grow_ablations.py`, trains those that are not there, and prints for slides of each
fraction: how many labels of the prediction, and of `--certify proof` and `--certify 0.99` with a budget of tiles, are
those of all tiles (`exact`), how many are certified, wrongly or not, and the share of the tissue that was read; Brier
score and calibration error before and after Platt's scaling, fitted on every second pair of slides and judged on the
others. Writes figures/grow_certificate.json.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from grow_ablations import Recalled, arguments, coarse, trained
from needle_remembered import Slides
from torch import Generator

from wsi_attention.certainty.calibration import fit_calibration
from wsi_attention.statistics.reliability import brier, label_calibration_error
from wsi_attention.structures import Certificate

LEVELS = {"proof": 1.0, "0.99": 0.99}


@torch.no_grad()
def certificates(model: Any, slides: Slides, budget: int) -> dict[str, Any]:
    """Labels of the prediction and of both certificates against those of all tiles."""
    exact = [int(model.exact(Recalled(slides, [i])).logits.argmax()) for i in range(len(slides))]
    plain = [int(model(Recalled(slides, [i])).logits.argmax()) for i in range(len(slides))]
    found: dict[str, Any] = {"agree": float(np.mean(np.equal(exact, plain)))}
    for name, level in LEVELS.items():
        kinds: Counter[str] = Counter()
        read, wrong = [], 0
        for i in range(len(slides)):
            output = model.certified(Recalled(slides, [i]), level, budget, Generator().manual_seed(i))
            certificate: Certificate = output.certificate
            kinds[f"{'positive' if slides.label[i] else 'negative'} {certificate.kind}"] += 1
            wrong += certificate.level is not None and certificate.classes[0] != exact[i]
            read.append(len(output.glimpses[0][0].weights) / int(slides.tissue[i].sum()))
        found[name] = {"kinds": dict(sorted(kinds.items())), "wrong": wrong, "read": float(np.median(read))}
    return found


@torch.no_grad()
def calibration(model: Any, slides: Slides) -> dict[str, float]:
    """Brier score and calibration error on one half of the slides, as they are and calibrated on the other half."""
    logits = np.concatenate([model(Recalled(slides, [i])).logits.double().numpy() for i in range(len(slides))])
    fits, names = np.arange(len(slides)) // 2 % 2 == 0, np.array(slides.names)
    fitted, why = fit_calibration(logits[fits], slides.label[fits], names[fits].tolist())
    if fitted is None:
        raise SystemExit(why)
    raw = torch.from_numpy(logits[~fits]).softmax(dim=-1).numpy()
    found = {}
    for name, shares in (("as is", raw), ("calibrated", fitted.probabilities(logits[~fits]))):
        found[f"brier {name}"] = brier(shares[:, 1], slides.label[~fits] == 1).score
        found[f"ece {name}"] = label_calibration_error(shares, slides.label[~fits])
    return found


def main() -> None:
    """The command line."""
    parser = arguments(__doc__)
    parser.add_argument("--budget", type=int, default=450)
    parser.add_argument("--figures", type=Path, default=Path(__file__).parent / "figures" / "grow_certificate.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder, every = given.work / given.variant, []
    for seed in given.seeds:
        model = trained(folder, "all", seed, given)
        for share in given.fractions:
            slides = coarse(folder, f"{given.judge}-{share:g}", given.encoder)
            told = {"seed": seed, "fraction": share, **certificates(model, slides, given.budget)}
            every.append(told | calibration(model, slides))
            print(json.dumps(every[-1]), flush=True)
    about = {"variant": given.variant, "encoder": given.encoder, "judge": given.judge, "budget": given.budget}
    given.figures.write_text(json.dumps({**about, "runs": every}, indent=2) + "\n")


if __name__ == "__main__":
    main()
