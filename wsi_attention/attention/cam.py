"""Class activation maps: where in a feature map the evidence for each class lies, and the scores that belong to them.

Zhou et al. 2016, https://arxiv.org/abs/1512.04150, in the class-aware form of OAA: docs/methods/oaa.md §2.1 and §2.2.
Axes: b images, d channels, k classes, h × w positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-8
"""Added to the maximum of a map before it is divided by (docs/methods/oaa.md §2.2)."""


def class_maps(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return F^c = Σ_d weight_cd · features_d + bias_c: a 1 × 1 convolution, or a linear head moved before the pooling.

    Pooling is linear, so `class_scores` of these maps equals the linear head on the pooled features. That is why the
    maps of a class-aware convolution are the class activation maps themselves.

    Args:
        features: (b, d, h, w).
        weight: (k, d), of the head or the convolution.
        bias: (k,); added at every position.

    Returns:
        (b, k, h, w), any sign.
    """
    maps = torch.einsum("kd,bdhw->bkhw", weight, features)
    return maps if bias is None else maps + bias[:, None, None]


def class_scores(maps: Tensor, tissue: Tensor | None = None) -> Tensor:
    """Return the means of the class maps over positions, s_c, (b, k): logits (docs/methods/oaa.md §2.1).

    Args:
        maps: (b, k, h, w).
        tissue: (b, h, w) bool, the positions that count, at least one an image; all of them where None.
    """
    if tissue is None:
        return maps.mean(dim=(-2, -1))
    inside = tissue.unsqueeze(1)
    return maps.masked_fill(~inside, 0.0).sum(dim=(-2, -1)) / inside.sum(dim=(-2, -1))


def soft_maximum_scores(maps: Tensor, tissue: Tensor, sharpness: float) -> Tensor:
    """Return s_c = (1/r)·log mean exp(r·F^c) over tissue, (b, k): the mean for r → 0, the maximum for r → ∞.

    Log-sum-exp pooling (Pinheiro & Collobert, CVPR 2015): a small object counts more than in a mean.

    Args:
        maps: (b, k, h, w).
        tissue: (b, h, w) bool, the positions that count, at least one an image.
        sharpness: r, above 0.
    """
    inside = tissue.unsqueeze(1)
    total = (sharpness * maps).masked_fill(~inside, -torch.inf).flatten(2).logsumexp(dim=-1)
    return (total - inside.flatten(2).sum(dim=-1).log()) / sharpness


def top_scores(maps: Tensor, tissue: Tensor, share: float) -> Tensor:
    """Return s_c, (b, k): the mean of the highest F^c, as many as the given share of the tissue, at least one.

    Args:
        maps: (b, k, h, w).
        tissue: (b, h, w) bool, the positions that count, at least one an image.
        share: in (0, 1]; 1 is `class_scores`.
    """
    counts = (tissue.flatten(1).sum(dim=-1) * share).ceil().clamp(min=1)
    ranked = maps.masked_fill(~tissue.unsqueeze(1), -torch.inf).flatten(2).sort(dim=-1, descending=True).values
    taken = torch.arange(ranked.shape[-1], device=maps.device) < counts[:, None]
    return ranked.masked_fill(~taken.unsqueeze(1), 0.0).sum(dim=-1) / counts[:, None]


def attention_maps(maps: Tensor) -> Tensor:
    """Return A^c = ReLU(F^c) / (max ReLU(F^c) + 1e-8), in [0, 1] (docs/methods/oaa.md §2.2).

    A map is all 0 where no position speaks for the class. Otherwise its maximum becomes 1, so that a barely confident
    map counts as much as a sure one. The released code clips its feature map in place; here the input is not changed.

    Args:
        maps: (b, k, h, w), any sign.
    """
    positive = maps.relu()
    return positive / (positive.amax(dim=(-2, -1), keepdim=True) + EPSILON)
