"""From the slide's feature to class scores."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wsi_attention.nn.preprocess import in_float32


class ScaledLinear(nn.Module):
    """logits = scale·(W F) + bias, with one learnable positive scale (an inverse temperature).

    Mean features of unit length are at most 1 long, and much shorter where tiles differ; the scale spares W from
    having to grow.

    Args:
        dim: d, length of the feature.
        classes: number of classes.
        scale: where the scale starts, above 0.
    """

    def __init__(self, dim: int, classes: int, scale: float = 10.0) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, classes, bias=False)
        self.bias = nn.Parameter(torch.zeros(classes))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self, features: Tensor) -> Tensor:
        """(..., d) -> (..., classes)."""
        logits: Tensor = self.log_scale.exp() * self.linear(features) + self.bias
        return logits


@torch.no_grad()
def tile_evidence(classifier: nn.Module, features: Tensor) -> Tensor:
    """How much each tile alone speaks for each class, (b, n, classes) in [0, 1]: the classifier's view of its feature.

    Carries no gradient; for the term "tile_evidence", which training may accumulate.

    Args:
        classifier: (..., d) -> (..., classes).
        features: (b, n, d).
    """
    scores: Tensor = in_float32(classifier, features)
    return scores.softmax(dim=-1)


def overview_logits(evidence: nn.Module | None, attention: Tensor, features: Tensor) -> Tensor | None:
    """Σ_i a_i S_i over all cells, (b, classes): attention-based MIL (Ilse et al., ICML 2018) on the overview.

    Args:
        evidence: (b, d, gh, gw) -> scores of each cell (b, classes, gh, gw); None gives None.
        attention: (b, K), K = gh·gw.
        features: (b, d, gh, gw) of the cells.
    """
    return None if evidence is None else attended(in_float32(evidence, features), attention)


def attended(scores: Tensor, attention: Tensor) -> Tensor:
    """Σ_i a_i S_i, (b, classes).

    Args:
        scores: (b, classes, gh, gw) of the cells.
        attention: (b, K), K = gh·gw.
    """
    return (scores.float().flatten(2) * attention.unsqueeze(1)).sum(dim=-1)
