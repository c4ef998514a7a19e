"""How often each tile and which sub-tiles Zoom-In takes: at random, repeatable, and as its released code does.

Kong & Henao, CVPR 2022, https://arxiv.org/abs/2106.02694, released as timqqt/pytorch-zoom-in-network. Rows are t images
or regions; K their cells. What these give goes into the stages of `nested`.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from wsi_attention.attention.sampling import Draw, draw_with_replacement, draw_without_replacement, top_k


def draw_counts(attention: Tensor, draws: Tensor, generator: Generator | None = None) -> Tensor:
    """n ~ Multinomial(N, α), (t, K) int64: how often each cell is drawn, with replacement.

    Args:
        attention: (t, K), non-negative; cells with 0 are never drawn.
        draws: (t,) int64, N of each row, at least 1.
        generator: source of the noise; torch's global one where None.
    """
    cells = draw_with_replacement(attention, int(draws.max()), generator)
    real = torch.arange(cells.shape[-1], device=draws.device) < draws.unsqueeze(-1)
    return torch.zeros_like(attention, dtype=torch.int64).scatter_add(-1, cells, real.long())


def rounded_counts(attention: Tensor, draws: Tensor) -> Tensor:
    """N·α rounded to whole counts that sum to N, by largest remainder, the first of equals first: nothing random.

    The paper draws at prediction too, the released code from `rescaled_as_released`; this is repeatable.

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
    """The n cells with the highest attention, as if drawn in that order: repeatable, no longer unbiased.

    The released code's choice of sub-tiles at prediction, with the same sequential coefficients. Its threshold is −inf,
    under which a threshold rule gives each cell its own attention.
    """
    cells = top_k(attention, n)
    keys = attention.detach().double().log()
    return Draw(cells, keys.gather(-1, cells), torch.full_like(keys[:, 0], -torch.inf))


def noisy_as_released(attention: Tensor, n: int, generator: Generator | None = None) -> Draw:
    """n cells by Gumbel noise on β itself instead of log β, as the released training does: nearly uniform draws.

    Equal to correct draws from softmax(β): of 625 cells, one with β = 0.9 comes first in 0.39 % of all draws. The
    coefficients still use β, so the estimate is biased. For reproduction only.
    """
    return draw_without_replacement(noisy_distribution_as_released(attention), n, generator)


def noisy_distribution_as_released(attention: Tensor) -> Tensor:
    """softmax(β) over the cells with β above 0, (r, K): what Gumbel noise on β draws from."""
    return attention.detach().masked_fill(attention <= 0, -torch.inf).softmax(dim=-1)


def rescaled_as_released(attention: Tensor, quantile: float = 0.3) -> Tensor:
    """(α − min) / max with everything below its 30 % quantile zeroed, (t, K): the released prediction draws from this.

    Normalised here; cells with α = 0 (no tissue) stay 0 and out of the quantile. Where nothing is left, as for a flat
    map or a single tile, α itself comes back; the released code has no answer to that.

    Args:
        attention: (t, K), rows sum to 1.
        quantile: share of the cells that is dropped.
    """
    a = attention.detach()
    reachable = a > 0
    scaled = (a - a.masked_fill(~reachable, torch.inf).amin(dim=-1, keepdim=True)) / a.amax(dim=-1, keepdim=True)
    cut = scaled.masked_fill(~reachable, torch.nan).nanquantile(quantile, dim=-1, keepdim=True)
    kept = scaled.masked_fill(~reachable | (scaled < cut), 0.0)
    total = kept.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, kept / total.clamp(min=torch.finfo(a.dtype).tiny), a)
