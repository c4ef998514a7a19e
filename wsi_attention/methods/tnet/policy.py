"""A policy over a grid of regions: TNet's probabilities, their likelihood, and how reward reaches them.

TNet: Papadopoulos, Korus & Memon, "Hard-Attention for Scalable Image Classification", NeurIPS 2021,
https://arxiv.org/abs/2102.10212, released as Tpap/TNet; its geometry is in `glimpse_grid`. Axes: b regions,
m = n · n cells row by row, k cells attended. Draws come from `sampling.draw_without_replacement`, or from
`sampling.top_k` as in all released variants, in training too: REINFORCE then no longer estimates a gradient, it only
raises what was chosen when the result was right.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from wsi_attention.attention.sampling import draw_without_replacement, top_k

RELEASED_EPSILON = 1e-10
BASELINE_START = 0.5
BASELINE_KEPT = 0.9
"""The running baseline starts at 0.5 and keeps 0.9 of itself a step."""
NEVER = 1e-300
"""Float64 weight of what stands in for cells that are not there: below that of any cell with tissue."""


def unit_norm_logits(logits: Tensor) -> Tensor:
    """z / ‖z‖ over the cells with a finite logit, as released (§2.3); a row of zeros stays zero instead of NaN.

    The unit norm caps the softmax at `largest_probability`, so it ranks regions but never singles one out. Cells
    without tissue (−inf) stay out of the norm and at −inf. The paper's plain softmax is `sampling.smoothed_softmax`.

    Args:
        logits: (b, m).
    """
    empty = logits == -torch.inf
    filled = logits.masked_fill(empty, 0.0)
    norm: Tensor = torch.linalg.vector_norm(filled, dim=-1, keepdim=True)
    return (filled / norm.clamp(min=torch.finfo(logits.dtype).tiny)).masked_fill(empty, -torch.inf)


def largest_probability(cells: int) -> float:
    """The highest probability that any cell can get from unit-norm logits: 0.2653 of 3 × 3, 0.1036 of 5 × 5 (§2.3).

    exp(a) / (exp(a) + (m − 1)·exp(−b)) with a = √((m − 1)/m), b = 1/√(m(m − 1)).
    """
    a, b = math.sqrt((cells - 1) / cells), 1 / math.sqrt(cells * (cells - 1))
    return math.exp(a) / (math.exp(a) + (cells - 1) * math.exp(-b))


def attend(attention: Tensor, k: int, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
    """Up to k cells of each row, drawn without replacement by Gumbel-top-k; a row with fewer cells gives all it has.

    Args:
        attention: (b, m), 0 where there is no tissue.
        k: cells wanted of a row.
        generator: source of the noise; torch's global one where None.

    Returns:
        Cells (b, k) in the order they were drawn, and which of them are (b, k) bool: the others come last and are 0.
    """
    return _real(draw_without_replacement(_filled_up(attention, k), k, generator).cells, attention)


def attend_top(attention: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `attend`, but the k cells with the highest attention, the first of equals first: nothing random."""
    return _real(top_k(_filled_up(attention, k), k), attention)


def _filled_up(attention: Tensor, k: int) -> Tensor:
    attention = attention.detach().double()
    return torch.cat([attention, attention.new_full((len(attention), k), NEVER)], dim=-1)


def _real(cells: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
    drawn = cells < attention.shape[-1]
    return cells.where(drawn, 0), drawn


def log_likelihood(logits: Tensor, cells: Tensor, drawn: Tensor | None = None) -> Tensor:
    """log P(I_1 … I_k) = Σ_j [log p_{I_j} − log(1 − Σ_{i<j} p_{I_i})] of successive draws without replacement.

    Args:
        logits: (b, m), or log p: a constant added to a row changes nothing.
        cells: (b, k) int64, different, in the order they were drawn.
        drawn: (b, k) bool where a row has fewer than k draws: false entries, at the end, are left out.

    Returns:
        (b,).
    """
    return log_likelihood_of_each(logits, cells, drawn).sum(dim=-1)


def log_likelihood_of_each(logits: Tensor, cells: Tensor, drawn: Tensor | None = None) -> Tensor:
    """log p_{I_j} − log(1 − Σ_{i<j} p_{I_i}) of each draw given those before it, (b, k); arguments as above.

    Each is a log-softmax over the cells not drawn yet: the same value, without the cancellation in 1 − Σ p. Its
    gradient is 0 on average, which that of log p_{I_j} alone is not from the second draw on.
    """
    real = torch.ones_like(cells, dtype=torch.bool) if drawn is None else drawn
    hot = functional.one_hot(cells, logits.shape[-1])
    before = (hot.cumsum(dim=-2) > hot) & real.unsqueeze(-1)
    left = logits.unsqueeze(-2).masked_fill(before, -torch.inf)
    steps = left.gather(-1, cells.unsqueeze(-1)).squeeze(-1) - left.logsumexp(dim=-1)
    return steps.where(real, 0.0)


def log_probability_as_released(logits: Tensor, cells: Tensor) -> Tensor:
    """log(p + 1e-10) of each attended cell, (b, k): its sum is the likelihood of draws *with* replacement (§3).

    Each region's own log p is also what the released per-feature loss weighs with that region's reward.

    Args:
        logits: (b, m).
        cells: (b, k) int64.
    """
    return (logits.softmax(dim=-1) + RELEASED_EPSILON).log().gather(-1, cells)


def reward(logits: Tensor, target: Tensor) -> Tensor:
    """1 where the arg max of the logits (..., classes) is the target (...), else 0, as floats."""
    return (logits.argmax(dim=-1) == target).to(logits.dtype)


def reinforce(log_probability: Tensor, rewards: Tensor, baseline: float) -> Tensor:
    """mean of sg(R − baseline)·(−log P), a scalar (§3): for whole images (b,), or each region alone (b, regions).

    Args:
        log_probability: of what was attended, summed over an image's parents and levels for the image's reward.
        rewards: the same shape, from `reward`.
        baseline: running value from `next_baseline`.
    """
    return ((rewards.detach() - baseline) * -log_probability).mean()


def next_baseline(
    baseline: float, rewards: Tensor, feature_rewards: Tensor, share: float, kept: float = BASELINE_KEPT
) -> float:
    """0.9·baseline + 0.1·(λ_r·mean R + (1 − λ_r)·mean R_n); starts at `BASELINE_START` (§3).

    Args:
        baseline: the value so far.
        rewards: (b,) of whole images.
        feature_rewards: (b, regions) of regions classified alone.
        share: λ_r.
        kept: 0.9 with the paper's batches of 64 images.
    """
    seen = share * float(rewards.mean()) + (1 - share) * float(feature_rewards.mean())
    return kept * baseline + (1 - kept) * seen


def balanced(whole: Tensor, each: Tensor, share: float) -> Tensor:
    """share·whole + (1 − share)·each: the loss of the pooled feature against that of every feature alone (§4).

    The paper's loss is balanced(CE(final), mean CE(feature), λ_c) + λ_f·balanced(L_R, mean per-feature L_R, λ_r); the
    per-feature terms are its regulariser, and a cap leaves the finest levels out of them.
    """
    return share * whole + (1 - share) * each


def weighted_feature(
    features: Tensor, gate: Tensor, weight: Tensor, real: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """F̄ = Σ_j π_j F_j, π = softmax_j(w·(F_j ⊙ s)): the features as they are, weighed by their gated selves (§2.5).

    A bias on the logits would cancel in the softmax.

    Args:
        features: (b, j, d), the overview's and every region's.
        gate: (b, d), s in (0, 1), squeeze-excitation of the mean feature.
        weight: (d,), w.
        real: (b, j) bool where an image has fewer than j features; the others get π = 0.

    Returns:
        F̄ (b, d) and π (b, j); π also says how much each region counted in the decision.
    """
    logits = (features * gate.unsqueeze(-2) * weight).sum(dim=-1)
    share = (logits if real is None else logits.masked_fill(~real, -torch.inf)).softmax(dim=-1)
    return (share.unsqueeze(-1) * features).sum(dim=-2), share


def pairwise_contrast(features: Tensor, target: Tensor, margin: float = 0.4) -> Tensor:
    """Mean over all ordered pairs, self-pairs too: 1 − cos in the same class, max(cos − margin, 0) otherwise (§4).

    The released code multiplies by 100 (CUB) or 50 (NABirds).

    Args:
        features: (b, d), F̄.
        target: (b,) classes.
        margin: cosine up to which different classes cost nothing.
    """
    unit = functional.normalize(features, dim=-1)
    cosine = unit @ unit.mT
    same = target.unsqueeze(0) == target.unsqueeze(1)
    return torch.where(same, 1 - cosine, (cosine - margin).relu()).mean()
