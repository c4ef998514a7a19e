"""wsi-attention: what `wsi-attention classify` does, with all its exports; WEIGHTS is a model folder.

`--float32` computes as the peers do by default, instead of in what the processor is best at.
"""

from __future__ import annotations

import csv
import sys

from driver import CLASSES, Clock, options, tell


def main() -> None:
    """Classify one slide."""
    precision = "32" if "--float32" in sys.argv else "auto"
    sys.argv = [argument for argument in sys.argv if argument != "--float32"]
    given, clock = options(), Clock()
    from wsi_attention.checkpoint import load_model
    from wsi_attention.inference.batch.classify import classify

    clock.mark("import")
    classifier = load_model(given.weights)
    clock.mark("model")
    report = classify([given.slide], given.out, classifier, workers=1, precision=precision, profile=True)
    clock.mark("encode")
    for line in report.profile.lines() if report.profile else ():
        print(line)
    with (given.out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        row = next(iter(csv.DictReader(file)))
    tell("wsi-attention", clock, int(row["tiles_read"]), [float(row[f"prob_{name}"]) for name in CLASSES])


if __name__ == "__main__":
    main()
