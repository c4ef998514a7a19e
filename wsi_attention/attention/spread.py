"""The standard error that a draw of tiles leaves, by the jackknife; and a loss that spreads attention."""

from __future__ import annotations

import torch
from torch import Tensor


def leave_one_out(features: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted means of the features without tile j, for each j: (b, n, d).

    F_(j) = F + w_j·(F − f_j) / (W − w_j) with W = Σ w, in double precision. Where tile j has all the weight, nothing is
    left to average, and its entry is the mean of all tiles.

    Args:
        features: (b, n, d).
        weights: (b, n), 0 or more, above 0 somewhere in each row.
    """
    w, f = weights.double(), features.double()
    total = w.sum(dim=-1, keepdim=True)
    mean = (w / total).unsqueeze(1) @ f
    left = total - w
    shift = torch.where(left > 1e-6 * total, w / left, torch.zeros_like(w))
    return (mean + shift.unsqueeze(-1) * (mean - f)).to(features.dtype)


def jackknife_error(without: Tensor, full: Tensor, chance: Tensor) -> Tensor:
    """Return (b,), the standard error of a scalar from its leave-one-out values.

    sqrt((n − 1)/n · Σ_j chance_j·(θ_(j) − θ)²). `chance` corrects for a finite population: a cell that was certain to
    be drawn adds no uncertainty. NaN where all chances are 0, because nothing was drawn at random.

    Args:
        without: (b, n), θ_(j), the value without tile j.
        full: (b,), θ, the value with all tiles.
        chance: (b, n) in [0, 1]: 1 − q_j for threshold draws, 1 where q_j is not known, 0 for a tile that failed.
    """
    counted = (chance > 0).sum(dim=-1)
    total = (chance * (without - full.unsqueeze(-1)).square()).sum(dim=-1)
    error = ((counted - 1).clamp(min=0) / counted.clamp(min=1) * total).sqrt()
    return error.masked_fill(counted == 0, torch.nan)


ENTROPY_EPSILON = 1e-6
"""Added inside the logarithm, so that cells without attention count 0."""


def negative_entropy(attention: Tensor) -> Tensor:
    """Return (1/b) Σ_b Σ_i a_i·log(a_i + 1e-6), a scalar: minus the mean entropy of the maps.

    In a loss with a positive factor it pushes attention towards uniform, which prevents an early collapse
    (docs/methods/ats.md §4). It is about −log K for a uniform map and about 0 for a one-hot one.

    Args:
        attention: (b, K), rows sum to 1.
    """
    return (attention * (attention + ENTROPY_EPSILON).log()).sum(dim=-1).mean()
