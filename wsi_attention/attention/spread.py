"""What a draw of tiles leaves open, the jackknife's standard error; and a term that spreads attention."""

from __future__ import annotations

import torch
from torch import Tensor


def leave_one_out(features: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean of the features without tile j, for each j: (b, n, d).

    F_(j) = F + w_j·(F − f_j) / (W − w_j) with W = Σ w, in double precision. Where tile j carries all the weight nothing
    remains to average; its entry is the mean of all tiles.

    Args:
        features: (b, n, d).
        weights: (b, n), non-negative, above 0 somewhere in each row.
    """
    w, f = weights.double(), features.double()
    total = w.sum(dim=-1, keepdim=True)
    mean = (w / total).unsqueeze(1) @ f
    left = total - w
    shift = torch.where(left > 1e-6 * total, w / left, torch.zeros_like(w))
    return (mean + shift.unsqueeze(-1) * (mean - f)).to(features.dtype)


def jackknife_error(without: Tensor, full: Tensor, chance: Tensor) -> Tensor:
    """Standard error of a scalar from its leave-one-out values: sqrt((n − 1)/n · Σ_j chance_j·(θ_(j) − θ)²), (b,).

    `chance` is the finite-population factor: a cell that was bound to be drawn adds no uncertainty. NaN where no cell
    has any chance, so that nothing was drawn at random.

    Args:
        without: (b, n) θ_(j), the value without tile j.
        full: (b,) θ, the value with all tiles.
        chance: (b, n) in [0, 1]: 1 − q_j for threshold draws, 1 where nothing is known, 0 for a failed tile.
    """
    counted = (chance > 0).sum(dim=-1)
    total = (chance * (without - full.unsqueeze(-1)).square()).sum(dim=-1)
    error = ((counted - 1).clamp(min=0) / counted.clamp(min=1) * total).sqrt()
    return error.masked_fill(counted == 0, torch.nan)


ENTROPY_EPSILON = 1e-6
"""Inside the logarithm, so that cells without attention count 0."""


def negative_entropy(attention: Tensor) -> Tensor:
    """(1/b) Σ_b Σ_i a_i·log(a_i + 1e-6), a scalar: minus the mean entropy of the maps.

    Added to a loss with a positive factor it pushes attention towards uniform and so prevents an early collapse
    (ATS, ICML 2019, §3.4 and the released code). About −log K for a uniform map, about 0 for a one-hot one.

    Args:
        attention: (b, K), rows sum to 1.
    """
    return (attention * (attention + ENTROPY_EPSILON).log()).sum(dim=-1).mean()
