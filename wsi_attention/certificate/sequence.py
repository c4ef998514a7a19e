"""A confidence sequence for a weighted sum from draws without replacement (docs/certificate.md, "By confidence").

Waudby-Smith & Ramdas, "Confidence sequences for sampling without replacement", NeurIPS 2020,
https://arxiv.org/abs/2006.04347; by betting: Waudby-Smith, Stark & Ramdas, "RiLACS: risk limiting audits via confidence
sequences", E-Vote-ID 2021, https://arxiv.org/abs/2107.11323; with draws in proportion to known weights: Shekhar, Xu,
Lipton, Liang & Ramdas, "Risk-limiting financial audits via weighted sampling without replacement", UAI 2023,
https://arxiv.org/abs/2305.06884. Here tiles that were chosen without chance may stand anywhere between the draws.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_attention.certificate.bounds import Floats

STAKES = np.array([1.0, 0.9, 0.75, 0.5, 0.3, 0.15, 0.05])
SHARES = np.array([0.4, 0.2, 0.12, 0.12, 0.08, 0.05, 0.03])
"""The wealth is that of several gamblers, who have these shares of it at first and bet these stakes each time.

Where the tiles agree the boldest wins soonest; where one tile takes all of its wealth, the others are still there.
"""
STEPS = 60
"""Halvings in the search for the lower confidence bound."""
_LEAST = np.finfo(np.float64).tiny


def log_wealth(mass: Floats, score: Floats, drawn: NDArray[np.bool_], low: float, claim: float) -> float:
    """Return the largest logarithm that the wealth of a bet against "the sum is at most `claim`" has reached.

    Where the claim is true it ever reaches log(1/δ), whenever reading stops, with a chance of δ at most, by Ville's
    inequality. Arguments as in `log_wealth_path`.
    """
    path = log_wealth_path(mass, score, drawn, low, claim)
    return max(0.0, float(path.max(initial=0.0)))


def log_wealth_path(mass: Floats, score: Floats, drawn: NDArray[np.bool_], low: float, claim: float) -> Floats:
    """Return the logarithm of the wealth of a bet against "the sum is at most `claim`" after each reading, (n,).

    The wealth starts at 1 and changes with draws alone. It is a non-negative supermartingale where the claim is true,
    and a martingale where the sum is just that. From the reading on after which the sum cannot be so low any more,
    whatever is unread, it is infinite.

    Args:
        mass: (n,) weights of what was read, in the order of reading; those of all there is sum to 1.
        score: (n,), `low` or more.
        drawn: (n,) bool, which were drawn by their weights from all that was left; the others were chosen without
            chance, by anything that was known by then.
        low: the least that any score can be.
        claim: what is bet against.
    """
    known, left = np.cumsum(mass * score), np.maximum(1.0 - np.cumsum(mass), _LEAST)
    with np.errstate(over="ignore"):
        rest = (claim - known) / left - low  # how far above `low` the unread tiles' mean is, were the claim just true
    before = np.concatenate([[claim - low], rest[:-1]])
    possible = np.where(drawn & (before > 0), before, 1.0)
    ratio = np.where(drawn, np.maximum(score - low, 0.0) / possible, 1.0)
    with np.errstate(divide="ignore"):
        bets = np.log((1.0 - STAKES)[:, None] + STAKES[:, None] * ratio) if len(mass) else np.zeros((len(STAKES), 0))
    path = np.logaddexp.reduce(np.cumsum(bets, axis=1) + np.log(SHARES / SHARES.sum())[:, None], axis=0)
    refuted = np.maximum.accumulate((rest < 0) | (before < 0)) if len(mass) else np.zeros(0, np.bool_)
    return np.asarray(np.where(refuted, np.inf, path), np.float64)


def lower_bound(mass: Floats, score: Floats, drawn: NDArray[np.bool_], low: float, threshold: float) -> float:
    """Return the largest claim that is refuted: the sum is above it with confidence 1 − exp(−threshold).

    The wealth falls as the claim grows, so that halving finds it.

    Args:
        mass, score, drawn, low: as in `log_wealth`.
        threshold: log(1/δ).
    """
    certain = float((mass * score).sum()) + max(0.0, 1.0 - float(mass.sum())) * low
    refuted, standing = certain, certain + float(np.abs(score).max(initial=abs(low))) * 2 + 1.0
    for _ in range(STEPS):
        middle = (refuted + standing) / 2
        if log_wealth(mass, score, drawn, low, middle) >= threshold:
            refuted = middle
        else:
            standing = middle
    return refuted
