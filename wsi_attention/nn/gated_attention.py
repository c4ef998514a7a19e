"""Gated attention on features: one logit a tile (Ilse, Tomczak & Welling, ICML 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GatedAttention(nn.Module):
    """The logit of each tile, wᵀ(tanh(V h) ⊙ sigm(U h)) (Ilse et al., equation 9, before its softmax).

    Args:
        dim: d, length of a feature.
        hidden: L, rows of V and U.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.content, self.gate = nn.Linear(dim, hidden), nn.Linear(dim, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (..., d) to logits (...)."""
        hidden = torch.tanh(self.content(features)) * torch.sigmoid(self.gate(features))
        return torch.as_tensor(self.score(hidden)).squeeze(-1)
