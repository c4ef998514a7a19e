"""The nested estimator of Zoom-In: which cells each step draws, what each of them weighs, and the mean feature.

Kong & Henao, "Efficient Classification of Very Large Images with Tiny Objects", CVPR 2022,
https://arxiv.org/abs/2106.02694, released as timqqt/pytorch-zoom-in-network. The sum Φ (Zoom-In eq. 5) is estimated by

    Φ = Σ_c α_c Σ_j β^c_j f(c, j)     ≈     Φ̂ = Σ_c (n_c / N) Σ_j c^c_j f(c, J_j),

an `expectation` of the regions' own `expectation`s: its value and its gradients for α, β and f are unbiased (Zoom-In
eq. 9, whose indices are misprinted in the paper; docs/methods/zoom_in.md §4).

There is one `Stage` for each zoom step. What it drew, row by row, are the rows of the next stage; what the last one
drew are the *leaves*, sub-tiles that are read. Every stage but the last draws with replacement, so that any number of
stages nests. Order of this file: stages, means over them, single leaves, single draws, and the rules that put these
together for a whole pass (`Choice`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from wsi_attention.attention.expectation import (
    coefficients_sequential,
    expectation,
    expectation_as_ported,
    sequential_steps,
    without_failed,
)
from wsi_attention.attention.sampling import Draw, available, draw_with_replacement, draw_without_replacement, top_k
from wsi_attention.methods.zoom_in.contrastive import contrastive_attention

NOISE = ("log", "as-released")
"""What Gumbel noise is put on: log β, or β itself."""
SubtileDraw = Callable[[Tensor, int], Draw]
"""(attention (r, K), n) -> n different cells of each row, e.g. `sampling.draw_without_replacement` or `highest`."""
Coefficients = Callable[[Tensor, Tensor], Tensor]
"""(attention of the drawn cells (r, n), threshold (r,)) -> coefficients (r, n): `sequential`, or a threshold rule."""


class Stage(NamedTuple):
    """What one zoom step drew in each of t regions (t images in the first stage), in rows padded to m entries.

    Attributes:
        cells: (t, m) int64, flat indices of the cells; 0 in padding.
        counts: (t, m) int64, how often each cell was drawn; 0 in padding.
        attention: (t, m) of these cells, carrying the gradient; 1 in padding.
        coefficients: (t, m), the weight of each cell in its region; rows of the sequential rule sum to 1; 0 in padding.
    """

    cells: Tensor
    counts: Tensor
    attention: Tensor
    coefficients: Tensor

    @property
    def drawn(self) -> Tensor:
        """(t, m) bool, False in padding."""
        return self.counts > 0

    @property
    def visits(self) -> Tensor:
        """(rows of the next stage,) int64: how often each region was drawn, which is how many draws it gets."""
        return self.counts[self.drawn]


def sequential(attention: Tensor, threshold: Tensor) -> Tensor:
    """Return the paper's coefficients (Zoom-In eq. 9), which do not need the threshold."""
    return coefficients_sequential(attention)


def tile_stage(attention: Tensor, counts: Tensor) -> Stage:
    """Return the stage of draws with replacement: each drawn region once, in scan order, with coefficient n_c / N.

    Args:
        attention: (t, K), α; carries the gradient.
        counts: (t, K) int64, from `draw_counts` or `rounded_counts`.
    """
    visited = counts > 0
    width = int(visited.sum(dim=-1).max())
    cells = visited.long().sort(dim=-1, descending=True, stable=True).indices[:, :width]
    chosen = counts.gather(-1, cells)
    share = chosen.to(attention.dtype) / counts.sum(dim=-1, keepdim=True)
    return _stage(attention, cells, chosen, share)


def subtile_stage(attention: Tensor, visits: Tensor, draw: SubtileDraw, rule: Coefficients = sequential) -> Stage:
    """Return the last stage: m_c = min(n_c, K'_c) different sub-tiles of each region, in the order they were drawn.

    A region with fewer sub-tiles than draws takes all of them and keeps its weight n_c / N. The paper leaves the case
    open; a region's own estimate is unbiased for any m_c ≥ 1, so the whole stays unbiased.

    Args:
        attention: (t, K'), β of every drawn region; carries the gradient.
        visits: (t,) int64, n_c, `visits` of the stage before.
        draw: chooses the cells, e.g. `functools.partial(draw_without_replacement, generator=generator)`.
        rule: coefficients of what was drawn; a threshold rule has the lower variance.
    """
    m = visits.minimum(available(attention))
    cells = torch.zeros(len(m), int(m.max()), dtype=torch.int64, device=m.device)
    coefficients = torch.zeros(cells.shape, dtype=attention.dtype, device=m.device)
    for n in sorted(set(m.tolist())):
        rows = (m == n).nonzero().flatten()
        found = draw(attention.detach()[rows], n)
        cells[rows, :n] = found.cells
        among = attention.detach()[rows].gather(-1, found.cells)
        coefficients[rows, :n] = rule(among, found.threshold)
    drawn = torch.arange(cells.shape[-1], device=m.device) < m.unsqueeze(-1)
    return _stage(attention, cells, drawn.long(), coefficients)


def whole_stage(attention: Tensor) -> Stage:
    """Return the stage of every cell with attention, weighed by it: with it as every stage Φ̂ is Φ itself.

    Args:
        attention: (t, K), rows sum to 1.
    """
    stage = tile_stage(attention, (attention > 0).long())
    return stage._replace(coefficients=stage.attention.detach() * stage.drawn)


def _stage(attention: Tensor, cells: Tensor, counts: Tensor, coefficients: Tensor) -> Stage:
    drawn = counts > 0
    of_cells = attention.gather(-1, cells).where(drawn, torch.ones_like(coefficients))
    return Stage(cells.where(drawn, torch.zeros_like(cells)), counts, of_cells, coefficients)


def nested_expectation(features: Tensor, stages: Sequence[Stage]) -> Tensor:
    """Return Φ̂, (b, d), with unbiased gradients for every stage's attention and for the features.

    Args:
        features: (leaves, d), of what the last stage drew, row by row.
        stages: first to last; the first has a row for each image.
    """
    values = features
    for stage in reversed(stages):
        values = expectation(_padded(values, stage.drawn), stage.attention, stage.coefficients)
    return values


def nested_expectation_centred(features: Tensor, stages: Sequence[Stage]) -> Tensor:
    """Return Φ̂, with Φ̂ subtracted from each feature in the attention's gradient: less noise, a bias of order 1/N.

    Not in the paper. What all features have in common says nothing about where to look, in any stage, but it can be
    most of the gradient's noise. With one sub-tile in each region the expected gradient for the logits is (1 − 1/N)
    times the exact one.
    """
    mean = nested_expectation(features, stages)
    apart = features - mean.detach()[leaf_images(stages)]
    centred = nested_expectation(apart, stages)
    return centred + (mean - centred).detach()


def nested_expectation_as_released(features: Tensor, stages: Sequence[Stage]) -> Tensor:
    """Return Φ̂ with the released gradients for β and f, biased as soon as a region is drawn twice.

    They are those of the PyTorch port of ATS. The value is that of `nested_expectation` with sequential coefficients.
    For reproduction only.
    """
    last = stages[-1]
    padded, size = _padded(features, last.drawn), last.drawn.sum(dim=-1)
    values = torch.zeros_like(padded[:, 0])
    for n in sorted(set(size.tolist())):
        rows = (size == n).nonzero().flatten()
        values[rows] = expectation_as_ported(padded[rows, :n], last.attention[rows, :n])
    return nested_expectation(values, stages[:-1])


ESTIMATES = {
    "unbiased": nested_expectation,
    "centred": nested_expectation_centred,
    "as-released": nested_expectation_as_released,
}
"""Name of a gradient -> Φ̂ with it."""


def leaf_weights(stages: Sequence[Stage]) -> Tensor:
    """Return the weight of each leaf in its image's Φ̂, (leaves,): the product of the coefficients on its way down."""
    return _along([stage.coefficients for stage in stages], stages)


def leaf_attention(stages: Sequence[Stage]) -> Tensor:
    """Return the weight of each leaf in the exact Φ, (leaves,): the product of attention on its way down, α_c·β^c_j."""
    return _along([stage.attention for stage in stages], stages)


def leaf_images(stages: Sequence[Stage]) -> Tensor:
    """Return the image of each leaf, (leaves,) int64: the row of the first stage that it belongs to."""
    image = torch.arange(len(stages[0].counts), device=stages[0].counts.device)
    for stage in stages:
        image = image.unsqueeze(-1).expand(stage.counts.shape)[stage.drawn]
    return image


def without_failed_leaves(stages: Sequence[Stage], valid: Tensor) -> tuple[Stage, ...]:
    """Return the stages without leaves that could not be read.

    Their weight goes to the other leaves of the same region; where none is left, to the other regions.

    Args:
        stages: first to last.
        valid: (leaves,) bool.
    """
    kept: list[Stage] = []
    for stage in reversed(stages):
        present = _padded(valid.unsqueeze(-1), stage.drawn).squeeze(-1)
        kept.append(stage._replace(coefficients=without_failed(stage.coefficients, present)))
        valid = present.any(dim=-1)
    return tuple(reversed(kept))


def without_failed_entries(stages: Sequence[Stage], valid: Tensor) -> tuple[Stage, ...]:
    """Return stages as `without_failed_leaves` does; what failed counts as not drawn: the next stage has no row for it.

    Args:
        stages: first to last so far.
        valid: (what the last of them drew,) bool.
    """
    *above, last = without_failed_leaves(stages, valid)
    counts = last.counts.clone()
    counts[last.drawn] *= valid
    return (*above, last._replace(counts=counts))


def leaf_steps(features: Tensor, stages: Sequence[Stage]) -> tuple[Tensor, Tensor]:
    """Return what each draw estimates by itself (leaves, d), and its weight (leaves,).

    Φ̂ is the weighted mean of these estimates, which are uncorrelated.
    Regions come from independent draws, and inside a region each draw, given those before it, has the region's own mean
    as its expectation. So the variance of these terms tells the variance of Φ̂, which is their weighted sum: exactly
    with sequential coefficients and no failed leaf, nearly otherwise.

    Args:
        features: (leaves, d).
        stages: first to last.
    """
    last = stages[-1]
    attention = last.attention.detach() * last.drawn
    _, steps = sequential_steps(_padded(features.detach(), last.drawn), attention)
    each = last.drawn / last.drawn.sum(dim=-1, keepdim=True).clamp(min=1)
    return steps[last.drawn], leaf_weights((*stages[:-1], last._replace(coefficients=each.to(attention.dtype))))


def _padded(values: Tensor, drawn: Tensor) -> Tensor:
    if len(values) != int(drawn.sum()):
        raise ValueError(f"the stage drew {int(drawn.sum())} regions, got values of {len(values)}; pass one a region")
    padded = values.new_zeros(*drawn.shape, values.shape[-1])
    padded[drawn] = values
    return padded


def _along(factors: Sequence[Tensor], stages: Sequence[Stage]) -> Tensor:
    product = torch.ones_like(factors[0][:, 0])
    for factor, stage in zip(factors, stages, strict=True):
        product = (product.unsqueeze(-1) * factor)[stage.drawn]
    return product


def draw_counts(attention: Tensor, draws: Tensor, generator: Generator | None = None) -> Tensor:
    """Return how often each cell is drawn, n ~ Multinomial(N, α), (t, K) int64: draws with replacement.

    Args:
        attention: (t, K), non-negative; cells with 0 are never drawn.
        draws: (t,) int64, N of each row, at least 1.
        generator: of the draws; torch's global one where None.
    """
    cells = draw_with_replacement(attention, int(draws.max()), generator)
    real = torch.arange(cells.shape[-1], device=draws.device) < draws.unsqueeze(-1)
    return torch.zeros_like(attention, dtype=torch.int64).scatter_add(-1, cells, real.long())


def rounded_counts(attention: Tensor, draws: Tensor) -> Tensor:
    """Return N·α rounded to whole counts that sum to N, (t, K) int64, by the largest remainder; nothing is random.

    Of equal remainders the first is rounded up first. The paper draws at prediction too, the released code from
    `rescaled_as_released`.

    Args:
        attention: (t, K), non-negative; cells with 0 get none.
        draws: (t,) int64, N of each row.
    """
    a = attention.detach().double()
    wanted = draws.unsqueeze(-1) * a / a.sum(dim=-1, keepdim=True)
    counts = wanted.floor().long()
    remainder = (wanted - counts).masked_fill(a == 0, -1.0)
    rank = remainder.sort(dim=-1, descending=True, stable=True).indices.argsort(dim=-1)
    return counts + (rank < draws.unsqueeze(-1) - counts.sum(dim=-1, keepdim=True))


def highest(attention: Tensor, n: int) -> Draw:
    """Return the n cells with the highest attention, as if drawn in that order: repeatable, but no longer unbiased.

    The released code chooses sub-tiles for prediction like this, with the same sequential coefficients. The threshold
    is −inf, so that a threshold rule weighs each cell by its own attention.
    """
    cells = top_k(attention, n)
    keys = attention.detach().double().log()
    return Draw(cells, keys.gather(-1, cells), torch.full_like(keys[:, 0], -torch.inf))


def noisy_as_released(attention: Tensor, n: int, generator: Generator | None = None) -> Draw:
    """Return n cells drawn by Gumbel noise on β itself instead of log β, as the released training does.

    These are correct draws from softmax(β), which is nearly uniform: of 625 cells, one with β = 0.9 comes first in
    0.39 % of all draws. The coefficients still use β, so the estimate is biased. For reproduction only.
    """
    return draw_without_replacement(noisy_distribution_as_released(attention), n, generator)


def noisy_distribution_as_released(attention: Tensor) -> Tensor:
    """Return softmax(β) over the cells with β above 0, (r, K): the distribution that Gumbel noise on β draws from."""
    return attention.detach().masked_fill(attention <= 0, -torch.inf).softmax(dim=-1)


def rescaled_as_released(attention: Tensor, quantile: float = 0.3) -> Tensor:
    """Return the distribution (t, K) that the released prediction draws from: (α − min) / max, its lowest 30 % zeroed.

    It is normalised here; cells with α = 0 (no tissue) stay 0 and do not count for the quantile. Where nothing is left,
    as for a flat map or a single region, it is α itself; the released code does not handle that case.

    Args:
        attention: (t, K), rows sum to 1.
        quantile: share of the cells that is set to 0.
    """
    a = attention.detach()
    reachable = a > 0
    scaled = (a - a.masked_fill(~reachable, torch.inf).amin(dim=-1, keepdim=True)) / a.amax(dim=-1, keepdim=True)
    cut = scaled.masked_fill(~reachable, torch.nan).nanquantile(quantile, dim=-1, keepdim=True)
    kept = scaled.masked_fill(~reachable | (scaled < cut), 0.0)
    total = kept.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, kept / total.clamp(min=torch.finfo(a.dtype).tiny), a)


Choice = Callable[[Tensor, Tensor, bool], Stage]
"""(attention (t, K), draws (t,), True for the last step) -> what was drawn."""


def at_random(generator: Generator | None, noise: str = "log") -> Choice:
    """Return the paper's choice, random draws at each step: value and gradients of the estimate are unbiased.

    Args:
        generator: of all draws; torch's global one where None.
        noise: one of `NOISE`; "as-released", in the last step, gives biased, nearly uniform draws.
    """
    draw = partial(draw_without_replacement if noise == "log" else noisy_as_released, generator=generator)

    def choose(attention: Tensor, draws: Tensor, last: bool) -> Stage:
        if last:
            return subtile_stage(attention, draws, draw)
        return tile_stage(attention, draw_counts(attention, draws, generator))

    return choose


def most_attended(attention: Tensor, draws: Tensor, last: bool) -> Stage:
    """Choose regions by N·attention, rounded, and the highest cells in the last step: nothing is random."""
    if last:
        return subtile_stage(attention, draws, highest)
    return tile_stage(attention, rounded_counts(attention, draws))


def as_released(generator: Generator | None) -> Choice:
    """Return the released prediction's choice: random regions by rescaled attention, then the highest cells."""

    def choose(attention: Tensor, draws: Tensor, last: bool) -> Stage:
        if last:
            return subtile_stage(attention, draws, highest)
        return tile_stage(attention, draw_counts(rescaled_as_released(attention), draws, generator))

    return choose


def everything(attention: Tensor, draws: Tensor, last: bool) -> Stage:
    """Choose all cells, each weighed by its attention: the sum that all draws estimate."""
    return whole_stage(attention)


def passed_over(attention: Tensor, among: Tensor) -> Tensor:
    """Return reversed attention inside regions, (t, K), for the contrastive pass; a region's only cell keeps its own.

    Args:
        attention: (t, K), rows sum to 1.
        among: (t, K) bool, the cells of each region that may be drawn.
    """
    reverse = contrastive_attention(attention, among)
    return reverse.where((reverse > 0).any(dim=-1, keepdim=True), attention)
