"""Zoom-In's contrastive pass: on positive images, tissue that attention passes over must look negative.

Kong & Henao, CVPR 2022, https://arxiv.org/abs/2106.02694. The released code draws with 1 − α and 1 − β but weighs what
it drew with α and β: its contrastive feature is no expectation of anything it sampled, and its 1/α explodes. Here one
distribution serves both the draw and the estimator (`nested`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

WARM_UP = 10
"""Epochs before the contrastive pass is switched on."""


def contrastive_attention(attention: Tensor, among: Tensor) -> Tensor:
    """α̃ = (1 − α) / (K − 1) over the K cells in question, (t, K); carries the gradient of α.

    With hundreds of cells this is nearly uniform: the pass says "random tissue is negative", wrong where most tissue is
    tumour. Confine it to `least_attended` there; α̃ is then normalised over those cells.

    Args:
        attention: (t, K), α or β, rows sum to 1.
        among: (t, K) bool, the cells that may be drawn: tissue, or the least attended of it. Others get 0.

    Returns:
        (t, K), rows sum to 1; 0 throughout where no attention is left to reverse, as in a row of one cell. Nothing can
        be contrasted there: leave the row out.
    """
    reverse = (1.0 - attention).clamp(min=0.0) * among
    total = reverse.sum(dim=-1, keepdim=True)
    rounding = 16 * torch.finfo(attention.dtype).eps
    return torch.where(total > rounding, reverse / total.clamp(min=rounding), 0.0)


def least_attended(attention: Tensor, among: Tensor, share: float) -> Tensor:
    """The given share of the cells in question that has the lowest attention, at least one of each row that has any.

    Args:
        attention: (t, K).
        among: (t, K) bool.
        share: in (0, 1].

    Returns:
        (t, K) bool; of equals the first cells.
    """
    wanted = (among.sum(dim=-1, keepdim=True) * share).long().clamp(min=1)
    order = attention.detach().masked_fill(~among, torch.inf).sort(dim=-1, stable=True).indices
    return among & (order.argsort(dim=-1) < wanted)


def contrastive_loss(logits: Tensor, background: int) -> Tensor:
    """Mean of −log Ψ(x)_background over the positive images, a scalar (§5); with two classes −log(1 − Ψ(x)_positive).

    Args:
        logits: (p, classes) of the contrastive features of the batch's positive images only; p may be 0.
        background: the class that tissue without a finding belongs to.
    """
    if not len(logits):
        return logits.sum()
    target = torch.full((len(logits),), background, device=logits.device)
    return functional.cross_entropy(logits, target)


def weighted_loss(positive: Tensor, negative: Tensor, contrastive: Tensor, share: float) -> Tensor:
    """π·L_pos + (1 − π)·(ν·L_neg + (1 − ν)·L_con), ν = 1 − π, as the released code weighs the three (§5).

    The code takes π from each batch. A batch of one slide then never sees the contrastive loss, as π is 0 or 1; take π
    over as many slides as an epoch has.

    Args:
        positive: mean loss of the positive images; 0 where there are none.
        negative: mean loss of the negative images; 0 where there are none.
        contrastive: from `contrastive_loss`.
        share: π, share of positive images.
    """
    rest = (1 - share) * negative + share * contrastive
    return share * positive + (1 - share) * rest
