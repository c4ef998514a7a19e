"""What each tile brings to the expected loss: the leave-one-out gradient of attention (docs/methods/grow.md §3.1).

The score-function estimator (Williams, "Simple statistical gradient-following algorithms", Machine Learning, 1992) with
the loss of all other tiles as each tile's baseline, as Mnih & Rezende, "Variational inference for Monte Carlo
objectives", ICML 2016, https://arxiv.org/abs/1602.06725, have for samples.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wsi_attention.methods.rounds import mean_of

ALONE = 1e-6
"""Weight that the other tiles have together at least; with less of it a tile is not left out."""


def brought(losses: Callable[[Tensor], Tensor], features: Tensor, weights: Tensor, chance: Tensor) -> Tensor:
    """Return ∂ E[loss] / ∂ log a of each tile that was read, estimated, (b, n), without gradient.

    A tile that is there for certain moves the loss by its weight, with derivative w·⟨∇loss(F), x − F⟩. One that was
    drawn moves it by being there or not: loss(F) − loss(F without it). A tile drawn with a chance of π < 1 does both.

    Args:
        losses: what is classified (b, m, d) -> the loss of each, (b, m).
        features: (b, n, d), x.
        weights: (b, n), w, rows sum to 1; 0 where a tile failed.
        chance: (b, n), 1 − π; 0 of tiles that were not left to chance.
    """
    x, w = features.detach(), weights.detach()
    mean = mean_of(x, w).unsqueeze(1).requires_grad_()
    with torch.enable_grad():
        whole = losses(mean)
        (slope,) = torch.autograd.grad(whole.sum(), mean)
    with torch.no_grad():
        certain = w * ((x - mean) * slope).sum(dim=-1)
        rest = (1.0 - w).unsqueeze(-1)
        others = (mean - w.unsqueeze(-1) * x) / rest.clamp(min=ALONE)
        drawn = whole - losses(others)
        return torch.lerp(certain, drawn, torch.where(rest.squeeze(-1) > ALONE, chance.to(w), 0.0))
