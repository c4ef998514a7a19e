"""Estimators by name: which cells to draw, what they count for, and how the gradient reaches the attention."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from wsi_attention.attention import expectation as rules
from wsi_attention.attention import sampling

ESTIMATORS = ("with-replacement", "sequential", "threshold", "normalised-threshold")
"""All are unbiased but the last, which has a small bias and the lowest variance."""
GRADIENTS = ("unbiased", "centred", "as-released", "as-ported")
"""Only the first is unbiased, with an unbiased estimator; see `expectation` for what each is good for."""


class DrawnCells(NamedTuple):
    """Cells (b, n) in the order they were drawn, their coefficients (b, n), and how much chance each had (b, n)."""

    cells: Tensor
    coefficients: Tensor
    chance: Tensor


def draw_sample(attention: Tensor, n: int, estimator: str, generator: Generator | None) -> DrawnCells:
    """n random cells an image and the coefficients that the named estimator gives them.

    Args:
        attention: (b, K).
        n: cells an image.
        estimator: one of `ESTIMATORS`.
        generator: source of the noise.
    """
    if estimator == "with-replacement":
        cells = sampling.draw_with_replacement(attention, n, generator)
        coefficients = rules.coefficients_with_replacement(attention.gather(-1, cells))
        return DrawnCells(cells, coefficients, _chance(attention, coefficients))
    return counted(attention, sampling.draw_without_replacement(attention, n, generator), estimator)


def counted(attention: Tensor, draw: sampling.Draw, estimator: str) -> DrawnCells:
    """Cells drawn without replacement, with the coefficients that the named estimator gives them.

    Args:
        attention: (b, K) that they were drawn from.
        draw: the cells.
        estimator: one of `ESTIMATORS` but the first.
    """
    at_cells = attention.gather(-1, draw.cells)
    if estimator == "sequential":
        coefficients = rules.coefficients_sequential(at_cells)
        return DrawnCells(draw.cells, coefficients, _chance(attention, coefficients))
    chance = 1.0 - rules.inclusion(at_cells, draw.threshold)
    if estimator == "threshold":
        return DrawnCells(draw.cells, rules.coefficients_threshold(at_cells, draw.threshold), chance)
    return DrawnCells(draw.cells, rules.coefficients_normalised_threshold(at_cells, draw.threshold), chance)


def _chance(attention: Tensor, coefficients: Tensor) -> Tensor:
    """1 for each draw where another one could have come, 0 in an image with a single cell."""
    return (sampling.available(attention) > 1).to(coefficients.dtype).unsqueeze(-1).expand_as(coefficients)


def draw_top(attention: Tensor, n: int) -> DrawnCells:
    """The n cells with the highest attention, weights scaled to sum 1; nothing random (ATS page §2.4).

    Not an estimate of Σ a_i f_i but a quantity of its own, the mean over the n most attended cells.

    Args:
        attention: (b, K).
        n: cells an image.
    """
    cells = sampling.top_k(attention, n)
    kept = attention.detach().gather(-1, cells)
    return DrawnCells(cells, kept / kept.sum(dim=-1, keepdim=True), torch.zeros_like(kept))


def unread_mass(attention: Tensor, cells: Tensor, valid: Tensor) -> Tensor:
    """(b,) float64 in [0, 1]: 1 − Σ a_i over the different cells that were read, summed over the others.

    Args:
        attention: (b, K), rows sum to 1.
        cells: (b, n) flat; a cell may stand there several times.
        valid: (b, n) bool; a cell that could not be read counts as unread.
    """
    read = torch.zeros(attention.shape, device=attention.device).scatter_add(-1, cells, valid.float()) > 0
    left = attention.detach().double()
    return (left.masked_fill(read, 0.0).sum(dim=-1) / left.sum(dim=-1)).clamp(0.0, 1.0)


def estimate(features: Tensor, attention: Tensor, coefficients: Tensor, gradient: str) -> Tensor:
    """The mean feature (b, d) = Σ_j c_j f_j with the named gradient.

    Args:
        features: (b, n, d) of the drawn cells; 0 where a tile failed.
        attention: (b, n) attention of the drawn cells, in the order they were drawn.
        coefficients: (b, n); 0 where a tile failed.
        gradient: one of `GRADIENTS`. "centred" divides by Σ c. The last two take sequential coefficients whatever is
            given, and from `coefficients` only which tiles failed.
    """
    features = features.to(attention.dtype)
    if gradient == "centred":
        return rules.expectation_centred(features, attention, coefficients)
    if gradient == "unbiased":
        return rules.expectation(features, attention, coefficients)
    released = rules.expectation_as_released if gradient == "as-released" else rules.expectation_as_ported
    left = rules.coefficients_sequential(attention) * (coefficients > 0)
    return released(features, attention) / left.sum(dim=-1, keepdim=True)
