"""Harrell's C-index: how often, of two patients, the one with the higher risk has the event first.

Harrell, Califf, Pryor, Lee & Rosati, "Evaluating the yield of medical tests", JAMA 1982. A pair can be judged where the
earlier of the two times is an event, or both times are the same and one of them is an event and the other is censored.
Equal risks count half.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_attention.statistics.bayesian_bootstrap import Weighted


def concordance(times: NDArray[np.float64], events: NDArray[np.bool_], risks: NDArray[np.float64]) -> Weighted:
    """Return the C-index as a function of weights; NaN where no pair can be judged.

    Args:
        times: (n,) of the event, or until which nothing had happened.
        events: (n,), whether the time is that of an event.
        risks: (n,), the higher, the sooner an event is expected.
    """
    first, second = times[:, None], times[None, :]
    judged = events[:, None] & ((first < second) | ((first == second) & ~events[None, :]))
    right = (risks[:, None] > risks[None, :]) + 0.5 * (risks[:, None] == risks[None, :])
    pairs, agreeing = judged.astype(np.float64), judged * right

    def weighted(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        total = ((weights @ pairs) * weights).sum(-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found: NDArray[np.float64] = ((weights @ agreeing) * weights).sum(-1) / total
        return found

    return weighted
