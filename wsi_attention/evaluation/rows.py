"""Every figure of an evaluation as a row of evaluation.csv."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from wsi_attention.evaluation.figures import ClassFigures
from wsi_attention.evaluation.operating import OperatingPoint
from wsi_attention.statistics.intervals import NONE
from wsi_attention.statistics.metrics import Scores
from wsi_attention.statistics.thresholds import Share

if TYPE_CHECKING:
    from wsi_attention.evaluation.evaluation import Evaluation

COLUMNS = ("measure", "class", "column", "group", "at", "value", "low", "high", "slides", "patients")
"""`at`: the threshold, or the mean probability of a bin; `low` and `high`: the 95 % interval; empty where none is."""
TEXTS = 4
"""Of the columns, those that hold texts that others chose."""
Row = tuple[str, ...]
EVERY = 5
"""Of the points of a decision curve, every so many."""


def figure_rows(found: Evaluation) -> Iterator[Row]:
    """Yield the rows: overall, of each class, of the operating points, of the groups, of the comparison."""
    yield from _score_rows(found.scores, found.classes)
    whole = found.scores.n, found.scores.patients
    if found.calibration is not None:
        yield _row("ECE of the label", "", found.calibration.ece, NONE, whole)
        yield _row("Brier score, all classes", "", found.calibration.brier, NONE, whole)
    for one in found.figures:
        yield from _class_rows(one, whole)
    for point in found.points:
        yield from _point_rows(point)
    for group in found.groups:
        yield from _score_rows(group.scores, found.classes, group.column, group.value)
    if (other := found.comparison) is not None:
        paired = other.slides, other.patients
        yield _row("AUROC, paired", "", other.auroc.first, NONE, paired)
        yield _row("AUROC of the other model", "", other.auroc.second, NONE, paired, group=other.other)
        yield _row("AUROC difference", "", other.auroc.value, other.auroc.interval, paired, group=other.other)
        yield _row(
            "AUROC difference, bootstrap", "", other.auroc.value, other.bootstrap_interval, paired, group=other.other
        )
        yield _row("AUROC difference, p-value", "", other.auroc.p, NONE, paired, group=other.other)
    if found.localisation is not None:
        at = found.localisation
        yield _row("top tile on a lesion", "", at.share, at.interval, (at.positives, at.positives))


def _score_rows(scores: Scores, classes: tuple[str, ...], column: str = "", group: str = "") -> Iterator[Row]:
    whole = scores.n, scores.patients
    for name, value, ends in (
        ("AUROC", scores.auroc, scores.auroc_interval),
        ("accuracy", scores.accuracy, scores.accuracy_interval),
        ("F1", scores.f1, scores.f1_interval),
        ("log loss", scores.loss, NONE),
    ):
        yield _row(name, "", value, ends, whole, column, group)
    for name, one in zip(classes, scores.recalls, strict=True):
        if one.slides:
            share = one.right / one.slides
            yield _row("called right", name, share, one.interval, (one.slides, one.patients), column, group)
    for name, cells in zip(classes, scores.confusion, strict=True):
        for called, count in zip(classes, cells, strict=True):
            yield _row(f"slides called {called}", name, count, NONE, (sum(cells), None), column, group)


def _class_rows(one: ClassFigures, whole: tuple[int, int]) -> Iterator[Row]:
    yield _row("AUROC against the rest", one.name, one.auroc, one.auroc_interval, whole)
    yield _row("average precision", one.name, one.average_precision, one.average_precision_interval, whole)
    yield _row("ECE", one.name, one.ece, NONE, whole)
    yield _row("Brier score", one.name, one.brier.score, one.brier.interval, whole)
    for part in ("reliability", "resolution", "uncertainty", "within"):
        yield _row(f"Brier score: {part}", one.name, getattr(one.brier, part), NONE, whole)
    for bin in one.bins:
        sizes = bin.slides, bin.patients
        yield _row("share that came true", one.name, bin.share, bin.interval, sizes, at=bin.probability)
    curve = one.net_benefit
    for at, model, everybody in list(zip(curve.thresholds, curve.model, curve.all, strict=True))[EVERY - 1 :: EVERY]:
        yield _row("net benefit", one.name, float(model), NONE, whole, at=float(at))
        yield _row("net benefit, treat everybody", one.name, float(everybody), NONE, whole, at=float(at))


def _point_rows(point: OperatingPoint) -> Iterator[Row]:
    at = point.found
    shares: tuple[tuple[str, Share], ...] = (
        ("sensitivity", at.sensitivity),
        ("specificity", at.specificity),
        ("PPV", at.ppv),
        ("NPV", at.npv),
    )
    for name, share in shares:
        yield _row(
            name, point.name, share.value, share.interval, (share.slides, share.patients), group=point.origin,
            at=at.threshold,
        )  # fmt: skip


def _row(
    measure: str,
    name: str,
    value: float,
    ends: tuple[float, float],
    sizes: tuple[int, int | None],
    column: str = "",
    group: str = "",
    at: float | None = None,
) -> Row:
    numbers = [_number(number) for number in (at, value, *ends)]
    return measure, name, column, group, *numbers, str(sizes[0]), "" if sizes[1] is None else str(sizes[1])


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
