"""The interval of any figure that can be computed with weights, by the Bayesian bootstrap over patients.

Rubin, "The Bayesian bootstrap", Annals of Statistics 1981: each patient's weight is drawn from an exponential
distribution. The quantiles are taken further out where patients are few, because the spread of a mean over n patients
is judged by Student's t (Hesterberg, "What teachers should know about the bootstrap", The American Statistician 2015,
section 5.3).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wsi_attention.statistics.bootstrap import DRAWS, SEED
from wsi_attention.statistics.intervals import LEVEL, NONE

Weighted = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Weights (draws, n) of the slides -> the figure (draws,) with these weights."""


def whole(figure: Weighted, n: int) -> float:
    """Return the figure with the same weight for each of n slides."""
    return float(figure(np.ones((1, n)))[0])


def bootstrap_interval(figure: Weighted, own: NDArray[np.int64], level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of a figure; NaN where it does not exist, or there is one patient.

    Args:
        figure: what it is of.
        own: (n,), whose slide each is, as numbers from 0.
        level: of confidence.
    """
    patients = int(own.max()) + 1 if len(own) else 0
    if patients < 2:
        return NONE
    value = whole(figure, len(own))
    drawn = np.random.default_rng(SEED).standard_exponential((DRAWS, patients))[:, own]
    found = figure(drawn)
    found = found[np.isfinite(found)]
    if not math.isfinite(value) or not len(found):
        return NONE
    tail = _tail(patients, level)
    low, high = np.quantile(found, (tail, 1 - tail))
    return min(float(low), value), max(float(high), value)


def _tail(patients: int, level: float) -> float:
    """Return the share of draws beyond each end of the interval."""
    from scipy.special import ndtr, stdtrit

    return float(ndtr(math.sqrt(patients / (patients - 1)) * stdtrit(patients - 1, (1 - level) / 2)))
