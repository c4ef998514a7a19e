"""Zoom-In's contrastive pass: on positive images, tissue that attention passes over must look negative.

Kong & Henao, CVPR 2022, https://arxiv.org/abs/2106.02694; docs/methods/zoom_in.md §5. The released code draws with
1 − α and 1 − β but weighs what it drew with α and β: its contrastive feature is no expectation of anything it sampled,
and its 1/α explodes. Here the draw and the estimator (`estimator.nested_expectation`) have the same distribution.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def contrastive_attention(attention: Tensor, among: Tensor) -> Tensor:
    """Return the reversed attention α̃ = (1 − α) / (K − 1) over the K cells that may be drawn, (t, K).

    It carries the gradient of α. With hundreds of cells it is nearly uniform: the pass then says "random tissue is
    negative", which is wrong where most tissue is tumour. So it is confined to the `least_attended` cells and
    normalised over them.

    Args:
        attention: (t, K), α or β, rows sum to 1.
        among: (t, K) bool, the cells that may be drawn: tissue, or its least attended part. The others get 0.

    Returns:
        (t, K), rows sum to 1; rows of zeros where no attention is left to reverse, as in a row with one cell: leave
        such a row out, nothing can be contrasted in it.
    """
    reverse = (1.0 - attention).clamp(min=0.0) * among
    total = reverse.sum(dim=-1, keepdim=True)
    rounding = 16 * torch.finfo(attention.dtype).eps
    return torch.where(total > rounding, reverse / total.clamp(min=rounding), 0.0)


def least_attended(attention: Tensor, among: Tensor, share: float) -> Tensor:
    """Return the given share of some cells, those with the lowest attention; at least one in each row that has any.

    Args:
        attention: (t, K).
        among: (t, K) bool, the cells to choose from.
        share: in (0, 1].

    Returns:
        (t, K) bool; among cells with equal attention the first ones.
    """
    wanted = (among.sum(dim=-1, keepdim=True) * share).long().clamp(min=1)
    order = attention.detach().masked_fill(~among, torch.inf).sort(dim=-1, stable=True).indices
    return among & (order.argsort(dim=-1) < wanted)


def contrastive_loss(logits: Tensor, background: int) -> Tensor:
    """Return L_con, the mean of −log Ψ(x)_background over the positive images, a scalar; 0 where there are none.

    With two classes that is −log(1 − Ψ(x)_positive).

    Args:
        logits: (p, classes) of the contrastive features of the batch's positive images only; p may be 0.
        background: index of the class that tissue without a finding belongs to.
    """
    if not len(logits):
        return logits.sum()
    target = torch.full((len(logits),), background, device=logits.device)
    return functional.cross_entropy(logits, target)


def weighted_loss(positive: Tensor, negative: Tensor, contrastive: Tensor, share: float) -> Tensor:
    """Return π·L_pos + (1 − π)·(ν·L_neg + (1 − ν)·L_con), ν = 1 − π, as the released code weighs the three.

    The released code takes π from each batch, so that a batch of one slide never sees the contrastive loss, as π is 0
    or 1. Here π is the share in the whole epoch.

    Args:
        positive: mean loss of the positive images; 0 where there are none.
        negative: mean loss of the negative images; 0 where there are none.
        contrastive: from `contrastive_loss`.
        share: π, the share of positive images.
    """
    rest = (1 - share) * negative + share * contrastive
    return share * positive + (1 - share) * rest
