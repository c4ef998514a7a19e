"""Token priority and re-attention: keep the patches that carry most attention, weigh them among themselves once more.

TRT: Su et al., "Re-Attention Transformer for Weakly Supervised Object Localization", BMVC 2022,
https://arxiv.org/abs/2208.01838, released as su-hui-zz/ReAttentionTransformer. Axes: b images, n patches row by row.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

LEAK = 1e-6
"""ε of the masked softmax: what a dropped patch still gets, over n."""


def preliminary_attention(rows: Iterable[Tensor]) -> Tensor:
    """m: the class token's attention to each patch, mean over heads, summed over layers, normalised (TRT §2.1).

    The released code takes the first L − 1 blocks, as the last sees only two tokens; the paper says all layers.

    Args:
        rows: one a layer, (b, heads, n), the class token's row without the class tokens (`rollout.class_row`).

    Returns:
        (b, n), non-negative, rows sum to 1.

    Raises:
        ValueError: there is no layer.
    """
    layers = [row.mean(dim=1) for row in rows]
    if not layers:
        raise ValueError("preliminary attention needs the class rows of at least one layer, found none")
    total = torch.stack(layers).sum(dim=0)
    return total / total.sum(dim=-1, keepdim=True)


def kept_as_released(priority: Tensor, mass: float) -> Tensor:
    """b: patches whose sorted cumulative sum is below the mass, strictly; none where the first alone reaches it.

    Args:
        priority: (b, n), m, rows sum to 1.
        mass: θ; above 1 keeps all. Published: 0.6 (CUB, 224), 0.65 (CUB, 384), 0.95 (ILSVRC). Not comparable between
            grids, as mass spreads with n.

    Returns:
        (b, n) bool, a constant: the selection carries no gradient.
    """
    order = priority.detach().double().sort(dim=-1, descending=True, stable=True)
    below = order.values.cumsum(dim=-1) < mass
    return torch.zeros_like(below).scatter(-1, order.indices, below)


def kept(priority: Tensor, mass: float, budget: int | None = None) -> Tensor:
    """b: the patches that together carry the first share of attention, at least one and at most a budget.

    As `kept_as_released`, but the first patch always stays: the released rule keeps nothing when one patch holds the
    whole mass, and its map then divides 0 by 0.

    Args:
        priority: (b, n), m, rows sum to 1.
        mass: θ in (0, 1]; above 1 keeps all.
        budget: most patches to keep, e.g. because each is read again at a finer level.

    Returns:
        (b, n) bool, a constant.
    """
    rank = priority.detach().sort(dim=-1, descending=True, stable=True).indices.argsort(dim=-1)
    chosen = kept_as_released(priority, mass) | (rank == 0)
    return chosen if budget is None else chosen & (rank < budget)


def visible(chosen: Tensor) -> Tensor:
    """mask_ij = b_j + (1 − b_j)·δ_ij, (b, n, n) bool: every token sees the kept tokens and itself (TRT §2.2)."""
    n = chosen.shape[-1]
    return chosen.unsqueeze(-2) | torch.eye(n, dtype=torch.bool, device=chosen.device)


def masked_attention(scores: Tensor, chosen: Tensor) -> Tensor:
    """attn_ij = (e_ij + ε/n) / (Σ_j e_ij + ε), e_ij = exp(s_ij − max s_i)·mask_ij: rows sum to 1 (TRT §2.2).

    Computed in float32 at least. The maximum is taken over the visible tokens; the released code takes it over all,
    so one large score of a dropped patch lets every kept weight underflow.

    Args:
        scores: (b, heads, n, n), QKᵀ/√d.
        chosen: (b, n) bool, b.

    Returns:
        (b, heads, n, n); a dropped patch gets at most ε/n from another token.
    """
    wide = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    seen = wide.masked_fill(~visible(chosen).unsqueeze(1), -torch.inf)
    e = (seen - seen.amax(dim=-1, keepdim=True).detach()).exp()
    attention = (e + LEAK / scores.shape[-1]) / (e.sum(dim=-1, keepdim=True) + LEAK)
    return attention.to(scores.dtype)


def reattention_weights(scores: Tensor, chosen: Tensor) -> Tensor:
    """λ: the softmax of the re-attention scores over the kept patches, 0 elsewhere (TRT §2.2).

    A masked softmax: the released exp(r) overflows in half precision, and its ε keeps the sum just below 1.

    Args:
        scores: (b, n), r, from the linear layer on the extra block's output.
        chosen: (b, n) bool, b; where a row keeps nothing (only `kept_as_released`), λ is 0 throughout.

    Returns:
        (b, n), rows sum to 1.
    """
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~chosen, lowest).softmax(dim=-1).masked_fill(~chosen, 0.0)


def weighted_token(weights: Tensor, tokens: Tensor) -> Tensor:
    """t = Σ_j λ_j X_j, (b, d), of weights (b, n) and patch tokens (b, n, d)."""
    return torch.einsum("bn,bnd->bd", weights, tokens)


def refined_attention(priority: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """m': inside the kept set its mass w = Σ b·m is shared out by λ, outside m stays; sums to 1 (TRT §2.4).

    Args:
        priority: (b, n), m.
        chosen: (b, n) bool, b.
        weights: (b, n), λ.

    Returns:
        (b, n). 1 − w is the mass that nobody looked at more closely.
    """
    mass = (priority * chosen).sum(dim=-1, keepdim=True)
    return torch.where(chosen, mass * weights, priority)


def localisation_maps(refined: Tensor, maps: Tensor) -> Tensor:
    """out^c = m' ⊙ CAM^c (TRT §2.4).

    m' is the same for all classes: it cannot tell two of them apart. Negative class maps keep their sign; apply ReLU
    first where the map is to be read as evidence.

    Args:
        refined: (b, n), m'.
        maps: (b, k, rows, cols) class maps, rows · cols = n.

    Returns:
        (b, k, rows, cols).
    """
    return refined.reshape(-1, 1, *maps.shape[-2:]) * maps
