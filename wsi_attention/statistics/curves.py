"""ROC and precision-recall curves of one class against the rest, and the areas under them.

A curve has a point for each score that occurs, as a threshold: what scores as much or more is called positive. Points
and areas are those of scikit-learn's `roc_curve` (with every point kept), `precision_recall_curve`, `roc_auc_score` and
`average_precision_score`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Roc:
    """A ROC curve from (0, 0) to (1, 1).

    Attributes:
        false_alarms: (k,) false-positive rate, one minus specificity, rising.
        sensitivity: (k,) true-positive rate, rising.
        thresholds: (k,) falling; the first is infinite: nothing is called positive.
    """

    false_alarms: Floats
    sensitivity: Floats
    thresholds: Floats


@dataclass(frozen=True)
class PrecisionRecall:
    """A precision-recall curve.

    Attributes:
        precision: (k + 1,) share of those called positive that are; 1 at the end, where nothing is called positive.
        recall: (k + 1,) share of the positives that are called so, falling to 0.
        thresholds: (k,) rising; the last point has none.
    """

    precision: Floats
    recall: Floats
    thresholds: Floats


def roc(scores: Floats, truth: Bools) -> Roc | None:
    """Return the ROC curve; None where one side is empty.

    Args:
        scores: (n,), higher for the class.
        truth: (n,), whether each is of the class.
    """
    if not 0 < truth.sum() < len(truth):
        return None
    thresholds, hits, alarms = cumulative(scores, truth)
    first = np.zeros(1)
    return Roc(
        np.concatenate([first, alarms / alarms[-1]]),
        np.concatenate([first, hits / hits[-1]]),
        np.concatenate([[np.inf], thresholds]),
    )


def precision_recall(scores: Floats, truth: Bools) -> PrecisionRecall | None:
    """Return the precision-recall curve; None where nothing is of the class.

    Args:
        scores: (n,), higher for the class.
        truth: (n,), whether each is of the class.
    """
    if not truth.any():
        return None
    thresholds, hits, alarms = cumulative(scores, truth)
    precision, recall = hits / (hits + alarms), hits / hits[-1]
    return PrecisionRecall(
        np.concatenate([precision[::-1], [1.0]]), np.concatenate([recall[::-1], [0.0]]), thresholds[::-1]
    )


def area_under_roc(scores: Floats, truth: Bools) -> float:
    """Return the share of pairs that are ranked correctly, ties half (Mann and Whitney); NaN where one side is empty.

    Args:
        scores: (n,), higher for the class.
        truth: (n,), whether each is of the class.
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return math.nan
    above = float(ranks(scores)[truth].sum()) - positives * (positives + 1) / 2
    return above / (positives * negatives)


def average_precision(scores: Floats, truth: Bools) -> float:
    """Return the mean precision over the positives, each at its own score; NaN where nothing is of the class.

    Args:
        scores: (n,), higher for the class.
        truth: (n,), whether each is of the class.
    """
    found = precision_recall(scores, truth)
    return math.nan if found is None else float(-np.sum(np.diff(found.recall) * found.precision[:-1]))


def ranks(values: Floats) -> Floats:
    """Return the rank of each of (n,) values from 1, the lowest; equal ones share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    found: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return found


def cumulative(scores: Floats, truth: Bools) -> tuple[Floats, Floats, Floats]:
    """Return each threshold, falling, and how many positives and negatives score as much or more."""
    order = np.argsort(-scores, kind="stable")
    ranked, right = scores[order], truth[order].astype(np.float64)
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    hits = np.cumsum(right)[last]
    return ranked[last], hits, 1.0 + last - hits
