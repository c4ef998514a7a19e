"""What the overview foresees of tiles, and how far it is off (docs/methods/grow.md §2.6)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from wsi_attention.methods.grow.judge import beside

CELLS = 8_192
"""Cells whose foreseen features are in memory at once."""


def blank(of: int, to: int) -> nn.Conv2d:
    """Return what turns attention features into foreseen ones, cell by cell; at first it foresees the same everywhere.

    Args:
        of: length of an attention feature.
        to: length of a tile's feature.
    """
    made = nn.Conv2d(of, to, 1)
    for part in made.parameters():
        nn.init.zeros_(part)
    return made


def foreseen(foresight: nn.Conv2d, features: Tensor) -> Tensor:
    """Return what is foreseen of cells, (b, n, d).

    Args:
        foresight: what `blank` made.
        features: (b, n, a), attention's of these cells.
    """
    return linear(features, foresight.weight.flatten(1), foresight.bias)


def at(features: Tensor, cells: Tensor) -> Tensor:
    """Return the features of some cells, (b, n, a).

    Args:
        features: (b, a, K).
        cells: (b, n) numbers of cells.
    """
    b, a, _ = features.shape
    return features.gather(2, cells.to(features.device).unsqueeze(1).expand(b, a, -1)).transpose(1, 2)


@torch.no_grad()
def gated(
    gate: Callable[[Tensor], Tensor], foresight: nn.Conv2d, features: Tensor, around: Tensor | None, part: int = CELLS
) -> Tensor:
    """Return log ω (b, n), what the gate makes of tiles as they are foreseen.

    What is foreseen is affine in attention's features, so that its mean over a block is what their mean foresees: no
    more than `part` cells have features as long as a tile's at a time.

    Args:
        gate: what tiles are judged by (..., d) -> log ω (...).
        foresight: what `blank` made.
        features: (b, n, a), attention's of n cells.
        around: (b, n, a), their means over the block of each cell; None where a tile is judged by itself.
        part: cells at a time.
    """
    found = []
    for start in range(0, features.shape[1], part):
        own = foreseen(foresight, features[:, start : start + part])
        by = own if around is None else beside(own, foreseen(foresight, around[:, start : start + part]))
        found.append(gate(by).float())
    return torch.cat(found, dim=1)


def missed(foreseen: Tensor, seen: Tensor, valid: Tensor) -> Tensor:
    """Return the mean squared distance of what was foreseen to what tiles showed, a scalar.

    Tiles are not drawn towards what was foreseen of them: an encoder that learns too is left alone.

    Args:
        foreseen: (b, n, d).
        seen: (b, n, d).
        valid: (b, n) bool, False where a tile could not be read.
    """
    off = (foreseen.float() - seen.detach().to(foreseen.device).float()).square().sum(dim=-1)
    real = valid.to(off.device)
    return (off * real).sum() / real.sum().clamp(min=1)
