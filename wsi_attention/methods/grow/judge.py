"""What a tile counts for once it was seen: a gate between 0 and 1, by its feature and those of the tiles around it.

A gate can be held, so that no tile says more than tiles ever said in training (docs/methods/grow.md §2.5).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_attention.methods.grow.neighbours import context
from wsi_attention.nn.gated_attention import GatedAttention


class TileGate(nn.Module):
    """log ω, the logarithm of the gate of each tile: logsigmoid(wᵀ(tanh(V x) ⊙ sigm(U x)) + b), x of length ≤ 1.

    The gate is at most 1, so that a tile never counts for more than its attention: an unread tile can be bounded
    (docs/methods/grow.md §5). Features of length 1 are scaled so that their numbers are about 1.

    Args:
        dim: length of x.
        hidden: length of the hidden vectors.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.scale = math.sqrt(dim)
        self.attention = GatedAttention(dim, hidden)
        self.bias = nn.Parameter(torch.zeros(()))

    @property
    def least(self) -> float:
        """What no gate is below: as the hidden numbers lie between -1 and 1, a score is at least b - Σ |w|."""
        score = self.bias - self.attention.score.weight.abs().sum()
        return float(torch.sigmoid(score.detach().double()))

    def forward(self, seen: Tensor) -> Tensor:
        """Map x (..., dim) to log ω (...), at most 0."""
        return functional.logsigmoid(self.attention(self.scale * seen) + self.bias)


def alone(features: Tensor, cells: Tensor, valid: Tensor, shape: tuple[int, int], side: int) -> Tensor:
    """Return what a tile is judged by where it is judged by itself: its feature; arguments as in `in_context`."""
    return features


def in_context(features: Tensor, cells: Tensor, valid: Tensor, shape: tuple[int, int], side: int) -> Tensor:
    """Return what a tile is judged by, (b, n, 2d): its feature beside the mean of its block's, of length ≤ 1 together.

    Args:
        features: (b, n, d), of length at most 1.
        cells: (b, n) flat indices.
        valid: (b, n) bool.
        shape: (rows, cols) of the grid.
        side: of a block, odd.
    """
    return beside(features, context(features, cells, valid, shape, side))


def beside(features: Tensor, around: Tensor) -> Tensor:
    """Return features (..., d) beside those of their surroundings (..., d), of length ≤ 1 together, (..., 2d)."""
    return torch.cat([features, around], dim=-1) * math.sqrt(0.5)


def said(log_gate: Tensor, scores: Tensor) -> Tensor:
    """Return how much tiles say for each class over the class that they say least for, (..., n, classes), ω included.

    Args:
        log_gate: (..., n), log ω.
        scores: (..., n, classes), logits of each tile by itself.
    """
    return log_gate.exp().unsqueeze(-1) * (scores - scores.amin(dim=-1, keepdim=True))


def held(log_gate: Tensor, scores: Tensor, most: Tensor) -> Tensor:
    """Return log ω (..., n), lowered where a tile would say more for a class than it may: ω̃ = ω · min(1, most / said).

    Args:
        log_gate: (..., n), log ω.
        scores: (..., n, classes), logits of each tile by itself.
        most: (classes,), above 0: the most that a tile may say for each class over any other.
    """
    leads = (scores - scores.amin(dim=-1, keepdim=True)).clamp(min=torch.finfo(scores.dtype).tiny)
    beyond = log_gate.unsqueeze(-1) + leads.log() - most.log()
    return log_gate - beyond.amax(dim=-1).clamp(min=0.0)
