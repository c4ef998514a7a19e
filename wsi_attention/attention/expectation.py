"""Estimates of Φ = Σ_i a_i f_i from a few drawn cells, and their gradients (docs/methods/ats.md §2.4 and §3).

An estimator is a rule for coefficients: F = Σ_j c_j f_{I_j}. If E[F] = Φ for every set of features, the attention
gradient c_j·⟨g, f_j⟩ / a_j is unbiased too, so that all estimators have one form for automatic differentiation
(`expectation`):

    F = Σ_j sg(c_j)·(a_{I_j} / sg(a_{I_j}))·f_{I_j},        sg = stop-gradient.

A loss is not linear in F, so its gradient has a bias of the order of the variance of F, with any estimator.

Draws with and without replacement are those of Katharopoulos & Fleuret, ICML 2019, https://arxiv.org/abs/1905.03711;
the threshold estimators those of Duffield et al. 2007 and Kool et al., ICML 2019, https://arxiv.org/abs/1903.06059.
`expectation_centred` is biased, for less noise. The attention gradients released with ATS and with its PyTorch port are
biased for two or more draws; `expectation_as_released` and `expectation_as_ported` only reproduce published results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from wsi_attention.attention import sampling


def coefficients_with_replacement(attention: Tensor) -> Tensor:
    """Return c_j = 1/n, for independent draws (eq. 6 of ATS).

    Args:
        attention: (b, n) attention of the drawn cells.
    """
    return torch.full_like(attention, 1.0 / attention.shape[-1]).detach()


def coefficients_sequential(attention: Tensor) -> Tensor:
    """Return c_j = (m_j + (n − j)·a_j) / n, for successive draws without replacement; Σ_j c_j = 1 always.

    m_j = 1 − Σ_{k<j} a_k is the mass that is left before draw j, counted from 1. The order of the draws counts.

    Args:
        attention: (b, n) attention of the drawn cells in the order of the draws; of maps that sum to 1.
    """
    a = attention.detach()
    n = a.shape[-1]
    left = (1.0 - (a.cumsum(dim=-1) - a)).clamp(min=0.0)
    later = torch.arange(n - 1, -1, -1, device=a.device, dtype=a.dtype)
    return (left + later * a) / n


def inclusion(attention: Tensor, threshold: Tensor) -> Tensor:
    """Return q_j = 1 − exp(−exp(log a_j − κ)), the chance that the key of cell j passes the threshold κ.

    Args:
        attention: (b, n) attention of the drawn cells.
        threshold: (b,) κ, the (n + 1)-th largest Gumbel key; −inf gives q = 1.
    """
    rate = (attention.detach().double().log() - threshold[:, None]).exp()
    return -torch.expm1(-rate).to(attention.dtype)


def coefficients_threshold(attention: Tensor, threshold: Tensor) -> Tensor:
    """Return c_j = a_j / q_j: unbiased, but Σ_j c_j is 1 only on average.

    This is noisy where features have a large part in common; see `coefficients_normalised_threshold`.

    Args:
        attention: (b, n) attention of the drawn cells.
        threshold: (b,), κ of the draw.
    """
    return attention.detach() / inclusion(attention, threshold)


def coefficients_normalised_threshold(attention: Tensor, threshold: Tensor) -> Tensor:
    """Return c_j = (a_j / q_j) / Σ_k (a_k / q_k): a small bias, the least variance, exact where every cell is drawn.

    Args:
        attention: (b, n) attention of the drawn cells.
        threshold: (b,), κ of the draw.
    """
    c = coefficients_threshold(attention, threshold)
    return c / c.sum(dim=-1, keepdim=True)


def without_failed(coefficients: Tensor, valid: Tensor) -> Tensor:
    """Return coefficients without failed tiles: 0 for those, the others scaled up so that the sum stays.

    An image without a valid tile gets zeros; whoever reads tiles must refuse it first.

    Args:
        coefficients: (b, n).
        valid: (b, n) bool.
    """
    kept = coefficients * valid
    total, left = coefficients.sum(dim=-1, keepdim=True), kept.sum(dim=-1, keepdim=True)
    return kept * torch.where(left > 0, total / left.clamp(min=torch.finfo(kept.dtype).tiny), torch.zeros_like(left))


def expectation(features: Tensor, attention: Tensor, coefficients: Tensor) -> Tensor:
    """Return F = Σ_j c_j f_j, (b, d), with the gradients ∂/∂f_j = c_j·g and ∂/∂a_j = c_j·⟨g, f_j⟩ / a_j.

    Args:
        features: (b, n, d), of the drawn cells.
        attention: (b, n) attention of the drawn cells, above 0; carries the gradient.
        coefficients: (b, n); taken as constants.
    """
    score = attention / attention.detach()
    return _weighted(features, coefficients.detach() * score)


def expectation_centred(features: Tensor, attention: Tensor, coefficients: Tensor) -> Tensor:
    """Return F = Σ_j c_j f_j / Σ_j c_j, (b, d), with ∂/∂a_j = c_j·⟨g, f_j − F⟩ / (a_j·Σ_k c_k): less noise, biased.

    The gradient is that of the ratio itself with fixed inclusion probabilities. Not in the paper. Subtracting F removes
    what all features have in common, which says nothing about where to look and can be most of the noise: over 200
    cells with features 1 ± 0.3 and 10 draws, the mean squared error of the gradient of a draw is ten times smaller;
    without a common part little is gained. The price, with any coefficients, is a bias of order 1/n: for uniform
    attention the gradient is 1/n too short on average, and for a single draw it is 0. Exact where every cell is drawn.

    Args:
        features: (b, n, d), of the drawn cells.
        attention: (b, n) attention of the drawn cells, above 0; carries the gradient.
        coefficients: (b, n); taken as constants.
    """
    ratio = coefficients.detach() * (attention / attention.detach())
    return _weighted(features, ratio / ratio.sum(dim=-1, keepdim=True))


def expectation_as_released(features: Tensor, attention: Tensor) -> Tensor:
    """Return the sequential estimate with the attention gradient of the code idiap/attention-sampling; biased.

    ∂/∂a_j = (1/n)·⟨g, E_j·m_j/a_j + Σ_{k<j} f_k − (j − 1)·f_j⟩ with m_j as in `coefficients_sequential`. Value and
    feature gradient are those of `expectation` with sequential coefficients.

    Args:
        features: (b, n, d), of the drawn cells in the order of the draws.
        attention: (b, n) attention of the drawn cells.
    """
    apply: Callable[[Tensor, Tensor], Tensor] = _AsReleased.apply
    return apply(features, attention)


def expectation_as_ported(features: Tensor, attention: Tensor) -> Tensor:
    """Return the sequential estimate with both gradients of the port sara-nl/attention-sampling-pytorch; biased.

    The port sums inclusively where the official code sums exclusively: the value is the same, the feature gradient
    lacks a_j/n, and the attention gradient has another bias.

    Args:
        features: (b, n, d), of the drawn cells in the order of the draws.
        attention: (b, n) attention of the drawn cells.
    """
    apply: Callable[[Tensor, Tensor], Tensor] = _AsPorted.apply
    return apply(features, attention)


def sequential_steps(features: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mass left before each draw (b, n), and the estimate of Φ that ends with each draw (b, n, d).

    E_j = Σ_{k<j} a_k f_k + (1 − Σ_{k<j} a_k)·f_j. Each has the mean Φ given the draws before it, so no two of them are
    correlated. Their mean is the sequential estimate.

    Args:
        features: (b, n, d), of the drawn cells in the order of the draws.
        attention: (b, n) attention of the drawn cells.
    """
    left = 1.0 - (attention.cumsum(dim=-1) - attention)
    seen = attention.unsqueeze(-1) * features
    return left, seen.cumsum(dim=-2) - seen + left.unsqueeze(-1) * features


def _weighted(features: Tensor, weights: Tensor) -> Tensor:
    return (weights.unsqueeze(-1) * features).sum(dim=-2)


class _Saved(Protocol):
    """What is used of autograd's context: tensors kept for the backward pass."""

    saved_tensors: tuple[Tensor, Tensor]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _AsReleased(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Saved, features: Tensor, attention: Tensor) -> Tensor:
        ctx.save_for_backward(features, attention)
        return _weighted(features, coefficients_sequential(attention))

    @staticmethod
    def backward(ctx: _Saved, *grads: Tensor) -> tuple[Tensor, Tensor]:
        features, attention = ctx.saved_tensors
        grad, n = grads[0].unsqueeze(-2), attention.shape[-1]
        left, step = sequential_steps(features, attention)
        before = features.cumsum(dim=-2) - features
        drawn = torch.arange(n, device=features.device, dtype=features.dtype)[:, None]
        term = step * (left / attention).unsqueeze(-1) + before - drawn * features
        return coefficients_sequential(attention).unsqueeze(-1) * grad, (grad * term).sum(dim=-1) / n


class _AsPorted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Saved, features: Tensor, attention: Tensor) -> Tensor:
        ctx.save_for_backward(features, attention)
        return _weighted(features, coefficients_sequential(attention))

    @staticmethod
    def backward(ctx: _Saved, *grads: Tensor) -> tuple[Tensor, Tensor]:
        features, attention = ctx.saved_tensors
        grad, n = grads[0].unsqueeze(-2), attention.shape[-1]
        left, step = sequential_steps(features, attention)
        left = left - attention
        drawn = torch.arange(n, device=features.device, dtype=features.dtype)[:, None]
        term = step * (left / attention).unsqueeze(-1) + features.cumsum(dim=-2) - drawn * features
        coefficients = coefficients_sequential(attention) - attention / n
        return coefficients.unsqueeze(-1) * grad, (grad * term).sum(dim=-1) / n


ESTIMATORS = ("with-replacement", "sequential", "threshold", "normalised-threshold")
"""All are unbiased except the last one, which has a small bias and the least variance."""
GRADIENTS = ("unbiased", "centred", "as-released", "as-ported")
"""Only the first one is unbiased, and only with an unbiased estimator."""


class DrawnCells(NamedTuple):
    """Cells (b, n) in the order of the draws, their coefficients (b, n), and how random each was (b, n), in [0, 1]."""

    cells: Tensor
    coefficients: Tensor
    chance: Tensor


def draw_sample(attention: Tensor, n: int, estimator: str, generator: Generator | None) -> DrawnCells:
    """Draw n random cells per image, with the coefficients of the named estimator.

    Args:
        attention: (b, K).
        n: cells per image.
        estimator: one of `ESTIMATORS`.
        generator: source of the noise.
    """
    if estimator == "with-replacement":
        cells = sampling.draw_with_replacement(attention, n, generator)
        coefficients = coefficients_with_replacement(attention.gather(-1, cells))
        return DrawnCells(cells, coefficients, _chance(attention, coefficients))
    return counted(attention, sampling.draw_without_replacement(attention, n, generator), estimator)


def counted(attention: Tensor, draw: sampling.Draw, estimator: str) -> DrawnCells:
    """Return cells that were drawn without replacement, with the coefficients of the named estimator.

    Args:
        attention: (b, K), from which they were drawn.
        draw: the cells.
        estimator: one of `ESTIMATORS`, but not the first.
    """
    at_cells = attention.gather(-1, draw.cells)
    if estimator == "sequential":
        coefficients = coefficients_sequential(at_cells)
        return DrawnCells(draw.cells, coefficients, _chance(attention, coefficients))
    chance = 1.0 - inclusion(at_cells, draw.threshold)
    if estimator == "threshold":
        return DrawnCells(draw.cells, coefficients_threshold(at_cells, draw.threshold), chance)
    return DrawnCells(draw.cells, coefficients_normalised_threshold(at_cells, draw.threshold), chance)


def _chance(attention: Tensor, coefficients: Tensor) -> Tensor:
    """Return 1 for each draw in an image with several cells, 0 in an image with a single one."""
    return (sampling.available(attention) > 1).to(coefficients.dtype).unsqueeze(-1).expand_as(coefficients)


def draw_top(attention: Tensor, n: int) -> DrawnCells:
    """Return the n cells with the highest attention, weights scaled to sum 1; nothing is random.

    docs/methods/ats.md §2.4: this is not an estimate of Σ a_i f_i, but another quantity, the mean over the n most
    attended cells.

    Args:
        attention: (b, K).
        n: cells per image.
    """
    cells = sampling.top_k(attention, n)
    kept = attention.detach().gather(-1, cells)
    return DrawnCells(cells, kept / kept.sum(dim=-1, keepdim=True), torch.zeros_like(kept))


def unread_mass(attention: Tensor, cells: Tensor, valid: Tensor) -> Tensor:
    """Return (b,) float64 in [0, 1], the share of the attention that lies on cells that were not read.

    Args:
        attention: (b, K), rows sum to 1.
        cells: (b, n) flat indices; a cell may occur several times.
        valid: (b, n) bool; a cell that could not be read counts as unread.
    """
    read = torch.zeros(attention.shape, device=attention.device).scatter_add(-1, cells, valid.float()) > 0
    left = attention.detach().double()
    return (left.masked_fill(read, 0.0).sum(dim=-1) / left.sum(dim=-1)).clamp(0.0, 1.0)


def estimate(features: Tensor, attention: Tensor, coefficients: Tensor, gradient: str) -> Tensor:
    """Return the mean feature (b, d), Σ_j c_j f_j, with the named gradient.

    Args:
        features: (b, n, d) of the drawn cells; 0 where a tile failed.
        attention: (b, n) attention of the drawn cells in the order of the draws.
        coefficients: (b, n); 0 where a tile failed.
        gradient: one of `GRADIENTS`. "centred" divides by Σ c. The last two always take sequential coefficients, and
            from `coefficients` only which tiles failed.
    """
    features = features.to(attention.dtype)
    if gradient == "centred":
        return expectation_centred(features, attention, coefficients)
    if gradient == "unbiased":
        return expectation(features, attention, coefficients)
    released = expectation_as_released if gradient == "as-released" else expectation_as_ported
    left = coefficients_sequential(attention) * (coefficients > 0)
    return released(features, attention) / left.sum(dim=-1, keepdim=True)
