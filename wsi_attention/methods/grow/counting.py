"""What each tile stands for, before and after it was seen (docs/methods/grow.md §2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Counts(NamedTuple):
    """What tiles stand for: coefficients (b, n), sum 1, 0 where one failed; and how random each was, (b, n)."""

    coefficients: Tensor
    chance: Tensor


def counts(attention: Tensor, chance: Tensor, known: Tensor, valid: Tensor) -> Counts:
    """Return what each tile stands for: a known one for itself, the drawn ones for all of the tissue that is left.

    A known tile counts with its attention a. The others were drawn with a chance of π each, so that a / π on average
    sums to the attention of all that is not known; they are scaled to sum to it exactly, as in `attention.expectation`.

    Args:
        attention: (b, n) attention of the tiles' cells, of maps that sum to 1.
        chance: (b, n), π, with which each tile was drawn; of known ones it does not count.
        known: (b, n) bool, tiles that were not left to chance.
        valid: (b, n) bool, which could be read; at least one of each image.
    """
    a = attention.detach()
    alone = (a * (known & valid)).double()
    drawn = (a / chance * (~known & valid)).double()
    left, total = (1.0 - alone.sum(dim=-1, keepdim=True)).clamp(min=0.0), drawn.sum(dim=-1, keepdim=True)
    stands = alone + drawn * torch.where(total > 0, left / total.clamp(min=1e-300), 0.0)
    coefficients = stands / stands.sum(dim=-1, keepdim=True)
    return Counts(coefficients.to(a.dtype), ((1.0 - chance) * (~known & valid)).to(a.dtype))


def shares(coefficients: Tensor, attention: Tensor, log_gate: Tensor) -> Tensor:
    """Return the weights (b, n), sum 1, of tiles in the slide's feature: c·ω / Σ c·ω, with the draw's gradient.

    The gradient reaches attention as in `attention.expectation.expectation_centred`: with fixed inclusion chances, c
    grows in proportion to a.

    Args:
        coefficients: (b, n), 0 where a tile failed; taken as constants.
        attention: (b, n), above 0; carries the gradient.
        log_gate: (b, n), log ω, what the tile shows.
    """
    log_a = attention.log()
    return (coefficients.detach().log() + log_a - log_a.detach() + log_gate).softmax(dim=-1)


def attention_loss(attention: Tensor, coefficients: Tensor, log_gate: Tensor) -> Tensor:
    """Return KL(p ‖ a) but for p's entropy, a scalar, where p_i ∝ ω_i over all cells of tissue.

    p is known of the tiles that were read only; each stands for c / a cells: Σ_j p̂_j·(−log a_j), p̂_j ∝ ω_j·c_j / a_j.
    This is adaptive importance sampling by cross-entropy (Rubinstein, "The Cross-Entropy Method", 1999). Tiles are
    taken as they are: only attention learns from it.

    Args:
        attention: (b, n) of the tiles that were read; carries the gradient.
        coefficients: (b, n), 0 where one failed.
        log_gate: (b, n), log ω.
    """
    shown = (coefficients.log() - attention.log() + log_gate).detach().softmax(dim=-1)
    return -(shown * attention.log()).sum(dim=-1).mean()
