"""From features to class scores: of the slide, of single tiles, of the cells of an overview."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wsi_attention.nn.preprocess import in_float32

GENTLE = 3.0
"""Scale of a classifier on Megapixel MNIST: with 10, a step of Adam moves logits more than digits do."""


class ScaledLinear(nn.Module):
    """logits = scale·(W F) + bias, with one learnable positive scale (an inverse temperature).

    A mean of features of length 1 is at most 1 long, and much shorter where tiles differ; with the scale, W need not
    grow.

    Args:
        dim: d, length of the feature.
        classes: number of classes.
        scale: initial scale, above 0.
    """

    def __init__(self, dim: int, classes: int, scale: float = 10.0) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, classes, bias=False)
        self.bias = nn.Parameter(torch.zeros(classes))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self, features: Tensor) -> Tensor:
        """Map (..., d) to (..., classes)."""
        logits: Tensor = self.log_scale.exp() * self.linear(features) + self.bias
        return logits


@torch.no_grad()
def tile_evidence(classifier: nn.Module, features: Tensor) -> Tensor:
    """Return how much each tile alone speaks for each class, (b, n, classes) in [0, 1], for `Output.tile_evidence`.

    It is the softmax of the classifier on the tile's own feature, and carries no gradient.

    Args:
        classifier: (..., d) -> (..., classes).
        features: (b, n, d).
    """
    scores: Tensor = in_float32(classifier, features)
    return scores.softmax(dim=-1)


def overview_logits(evidence: nn.Module | None, attention: Tensor, features: Tensor) -> Tensor | None:
    """Return Σ_i a_i S_i over all cells, (b, classes): attention-based MIL (Ilse et al., ICML 2018) on the overview.

    Args:
        evidence: (b, d, gh, gw) -> scores of each cell (b, classes, gh, gw); without it the result is None.
        attention: (b, K), K = gh·gw.
        features: (b, d, gh, gw), of the cells.
    """
    return None if evidence is None else attended(in_float32(evidence, features), attention)


def attended(scores: Tensor, attention: Tensor) -> Tensor:
    """Return Σ_i a_i S_i, (b, classes).

    Args:
        scores: (b, classes, gh, gw), of the cells.
        attention: (b, K), K = gh·gw.
    """
    return (scores.float().flatten(2) * attention.unsqueeze(1)).sum(dim=-1)
