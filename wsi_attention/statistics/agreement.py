"""How far predictions agree with the truth: grades, numbers, several labels. Each figure is a function of weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_attention.statistics.bayesian_bootstrap import Weighted

Floats = NDArray[np.float64]


def quadratic_kappa(truth: NDArray[np.int64], predicted: NDArray[np.int64], grades: int) -> Weighted:
    """Return Cohen's kappa with quadratic weights: 1 where all agree, 0 where they agree as chance would.

    Cohen, "Weighted kappa", Psychological Bulletin 1968. NaN where truth and prediction are one and the same grade.

    Args:
        truth: (n,) grades from 0.
        predicted: (n,).
        grades: how many there are.
    """
    at = np.arange(grades)
    cost = ((at[:, None] - at[None, :]) ** 2).astype(np.float64)
    rows, columns = np.eye(grades)[truth], np.eye(grades)[predicted]
    own = cost[truth, predicted]

    def weighted(weights: Floats) -> Floats:
        expected = ((weights @ rows) @ cost * (weights @ columns)).sum(-1) / weights.sum(-1)
        return 1 - _ratio(weights @ own, expected)

    return weighted


def mean_of(values: Floats) -> Weighted:
    """Return the mean of (n,) values, such as absolute errors or hits."""
    return lambda weights: _ratio(weights @ values, weights.sum(-1))


def r_squared(truth: Floats, predicted: Floats) -> Weighted:
    """Return R², 1 − Σ(y − ŷ)² / Σ(y − ȳ)², the mean over the columns of (n, c) values; NaN where one is constant."""

    def weighted(weights: Floats) -> Floats:
        total = weights.sum(-1, keepdims=True)
        mean = weights @ truth / total
        spread = weights @ truth**2 - total * mean**2
        scale = weights @ np.abs(truth) ** 2
        spread = np.where(spread > 1e-12 * scale, spread, 0.0)
        return np.asarray((1 - _ratio(weights @ (truth - predicted) ** 2, spread)).mean(-1))

    return weighted


def macro_auroc(truth: NDArray[np.bool_], scores: Floats) -> Weighted:
    """Return the mean area under the ROC curve over the labels (n, c) that some slides have and others have not."""
    sides = [(truth[:, c], _above(truth[:, c], scores[:, c])) for c in range(truth.shape[1])]
    sides = [(has, above) for has, above in sides if above.size]

    def weighted(weights: Floats) -> Floats:
        if not sides:
            return np.full(len(weights), np.nan)
        areas = []
        for has, above in sides:
            yes, no = weights[:, has], weights[:, ~has]
            areas.append(_ratio(((yes @ above) * no).sum(-1), yes.sum(-1) * no.sum(-1)))
        return np.asarray(np.mean(areas, axis=0))

    return weighted


def _above(has: NDArray[np.bool_], scores: Floats) -> Floats:
    """Return 1 where a slide with the label has a higher score than one without, ½ where equal, for each such pair."""
    one, other = scores[has][:, None], scores[~has][None, :]
    return np.asarray((one > other) + 0.5 * (one == other))


def _ratio(above: Floats, below: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, np.nan)
