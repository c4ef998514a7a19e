"""The bootstrap over patients: AUROC of models on the same cohorts, each drawn with patients put back.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13: the percentile interval. A patient is drawn
with all slides. With few patients, or a model that is nearly perfect, such intervals are too narrow; those of
`statistics.intervals` and `statistics.comparison` are not, and these stand beside them because people ask for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_attention.statistics.intervals import LEVEL, NONE, judged_classes, numbered

DRAWS, SEED = 2000, 0
AT_ONCE = 2**21
"""Weights in memory, about."""


def bootstrap_aurocs(
    models: Sequence[NDArray[np.float64]],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64] | None = None,
    draws: int = DRAWS,
    seed: int = SEED,
) -> NDArray[np.float64]:
    """Return (draws, models) AUROC, as `metrics.auroc` defines it; NaN where a draw leaves a class empty.

    Args:
        models: (n, classes) probabilities of each.
        labels: (n,) class indices.
        groups: (n,), whose slide it is; each slide its own where None.
        draws: cohorts that are drawn.
        seed: the same one gives the same cohorts.
    """
    own, rng = numbered(groups, len(labels)), np.random.default_rng(seed)
    patients, found = int(own.max()) + 1, []
    step = max(1, AT_ONCE // len(labels))
    for first in range(0, draws, step):
        drawn = rng.multinomial(patients, np.full(patients, 1 / patients), min(step, draws - first))
        weights = drawn[:, own].astype(np.float64)
        found.append(np.stack([_mean_areas(shares, labels, weights) for shares in models], 1))
    return np.concatenate(found)


def percentile_interval(values: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of drawn values, (draws,); NaN of those that do not exist is left out."""
    there = values[np.isfinite(values)]
    if not len(there):
        return NONE
    low, high = np.quantile(there, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _mean_areas(
    shares: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (draws,) the mean area over the classes that occur in the labels."""
    each = [_areas(shares[:, c], labels == c, weights) for c in judged_classes(shares.shape[1]) if (labels == c).any()]
    return np.mean(each, axis=0) if each else np.full(len(weights), np.nan)


def _areas(scores: NDArray[np.float64], truth: NDArray[np.bool_], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (draws,) weighted shares of pairs in the right order, ties half."""
    order = np.argsort(scores, kind="stable")
    ranked, positive, weight = scores[order], truth[order], weights[:, order]
    starts, ends = (np.searchsorted(ranked, ranked[positive], side=side) for side in ("left", "right"))
    below = np.concatenate([np.zeros((len(weight), 1)), np.cumsum(weight * ~positive, axis=1)], axis=1)
    wins = (weight[:, positive] * (below[:, starts] + below[:, ends]) / 2).sum(1)
    pairs = weight[:, positive].sum(1) * below[:, -1]
    areas = np.full(len(wins), np.nan)
    np.divide(wins, pairs, out=areas, where=pairs > 0)
    return areas
