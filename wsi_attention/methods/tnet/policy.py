"""TNet's policy: probabilities of regions, the likelihood of a choice, reward and baseline, the pooling of features.

docs/methods/tnet.md §2.3, §2.5, §3 and §4. Axes: b regions, m = n · n cells row by row, k cells chosen. Cells are drawn
with `sampling.draw_without_replacement`. All released variants take `sampling.top_k` instead, in training too:
REINFORCE then estimates no gradient any more, it only raises the probability of what was chosen when the label was
right.
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
"""Start of the running baseline, and the share of it that a step of the released code keeps."""
NEVER = 1e-300
"""Float64 attention of cells that fill up a short row; less than that of any cell with tissue."""


def unit_norm_logits(logits: Tensor) -> Tensor:
    """Return z / ‖z‖ over the cells with a finite logit, as released; a row of zeros stays zero instead of NaN.

    docs/methods/tnet.md §2.3. The unit norm caps the softmax at `largest_probability`, so it ranks regions but cannot
    single one out. Cells without tissue (−inf) do not count in the norm and stay at −inf. The paper has the plain
    softmax, `sampling.smoothed_softmax`.

    Args:
        logits: (b, m).
    """
    empty = logits == -torch.inf
    filled = logits.masked_fill(empty, 0.0)
    norm: Tensor = torch.linalg.vector_norm(filled, dim=-1, keepdim=True)
    return (filled / norm.clamp(min=torch.finfo(logits.dtype).tiny)).masked_fill(empty, -torch.inf)


def largest_probability(cells: int) -> float:
    """Return the highest probability that a cell can get from unit-norm logits: 0.2653 of 3 × 3, 0.1036 of 5 × 5.

    exp(a) / (exp(a) + (m − 1)·exp(−b)) with a = √((m − 1)/m), b = 1/√(m(m − 1)); docs/methods/tnet.md §2.3.
    """
    a, b = math.sqrt((cells - 1) / cells), 1 / math.sqrt(cells * (cells - 1))
    return math.exp(a) / (math.exp(a) + (cells - 1) * math.exp(-b))


def attend(attention: Tensor, k: int, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
    """Draw up to k cells of each row without replacement, by Gumbel-top-k; all cells of a row that has fewer.

    Args:
        attention: (b, m), 0 where there is no tissue.
        k: cells wanted per row.
        generator: source of the noise; torch's global one where None.

    Returns:
        Cells (b, k) in the order of the draws, and (b, k) bool, which of them are real: the others come last and are 0.
    """
    return _real(draw_without_replacement(_filled_up(attention, k), k, generator).cells, attention)


def attend_top(attention: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k cells with the highest attention, as `attend` does; of equals the first. Nothing is random."""
    return _real(top_k(_filled_up(attention, k), k), attention)


def _filled_up(attention: Tensor, k: int) -> Tensor:
    attention = attention.detach().double()
    return torch.cat([attention, attention.new_full((len(attention), k), NEVER)], dim=-1)


def _real(cells: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
    drawn = cells < attention.shape[-1]
    return cells.where(drawn, 0), drawn


def log_likelihood(logits: Tensor, cells: Tensor, drawn: Tensor | None = None) -> Tensor:
    """Return log P(I_1 … I_k) of successive draws without replacement (docs/methods/tnet.md §3).

    log P = Σ_j [log p_{I_j} − log(1 − Σ_{i<j} p_{I_i})].

    Args:
        logits: (b, m), or log p: a constant added to a row changes nothing.
        cells: (b, k) int64, all different, in the order of the draws.
        drawn: (b, k) bool for rows with fewer than k draws: entries that are False, at the end, do not count.

    Returns:
        (b,).
    """
    return log_likelihood_of_each(logits, cells, drawn).sum(dim=-1)


def log_likelihood_of_each(logits: Tensor, cells: Tensor, drawn: Tensor | None = None) -> Tensor:
    """Return the terms of `log_likelihood`, one per draw given those before it, (b, k); arguments as there.

    Each is a log-softmax over the cells that are not drawn yet: the same value, without the cancellation in 1 − Σ p.
    Its gradient is 0 on average; that of log p_{I_j} alone is not, from the second draw on.
    """
    real = torch.ones_like(cells, dtype=torch.bool) if drawn is None else drawn
    hot = functional.one_hot(cells, logits.shape[-1])
    before = (hot.cumsum(dim=-2) > hot) & real.unsqueeze(-1)
    left = logits.unsqueeze(-2).masked_fill(before, -torch.inf)
    steps = left.gather(-1, cells.unsqueeze(-1)).squeeze(-1) - left.logsumexp(dim=-1)
    return steps.where(real, 0.0)


def log_probability_as_released(logits: Tensor, cells: Tensor) -> Tensor:
    """Return log(p + 1e-10) of each chosen cell, (b, k); the sum is the likelihood of draws *with* replacement.

    docs/methods/tnet.md §3. The released per-feature loss multiplies each region's own log p by that region's reward.

    Args:
        logits: (b, m).
        cells: (b, k) int64.
    """
    return (logits.softmax(dim=-1) + RELEASED_EPSILON).log().gather(-1, cells)


def reward(logits: Tensor, target: Tensor) -> Tensor:
    """Return 1 where the arg max of the logits (..., classes) is the target (...), else 0, as floats."""
    return (logits.argmax(dim=-1) == target).to(logits.dtype)


def reinforce(log_probability: Tensor, rewards: Tensor, baseline: float) -> Tensor:
    """Return the mean of sg(R − baseline)·(−log P), a scalar, for whole images (b,) or single regions.

    Args:
        log_probability: log P of what was chosen; for whole images, the sum over all parents and levels of each.
        rewards: of the same shape, from `reward`.
        baseline: running value from `next_baseline`.
    """
    return ((rewards.detach() - baseline) * -log_probability).mean()


def next_baseline(
    baseline: float, rewards: Tensor, feature_rewards: Tensor, share: float, kept: float = BASELINE_KEPT
) -> float:
    """Return kept·baseline + (1 − kept)·(λ_r·mean R + (1 − λ_r)·mean R_n) (docs/methods/tnet.md §3).

    Args:
        baseline: the value so far; `BASELINE_START` at first.
        rewards: (b,) rewards of whole images.
        feature_rewards: rewards of regions that are classified alone.
        share: λ_r.
        kept: share of the baseline that stays; 0.9 in the released code, for steps of 64 images.
    """
    seen = share * float(rewards.mean()) + (1 - share) * float(feature_rewards.mean())
    return kept * baseline + (1 - kept) * seen


def balanced(whole: Tensor, each: Tensor, share: float) -> Tensor:
    """Return share·whole + (1 − share)·each: the loss of the pooled feature and that of single features.

    The loss is balanced(CE(pooled), mean CE(features), λ_c) + λ_f·balanced(L_R, mean L_R of regions, λ_r)
    (docs/methods/tnet.md §4). The terms of single features regularise; the finest levels can be left out of them.
    """
    return share * whole + (1 - share) * each


def weighted_feature(
    features: Tensor, gate: Tensor, weight: Tensor, real: Tensor | None = None, prior: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return F̄ = Σ_j π_j F_j and π = softmax_j(w·(F_j ⊙ s)) (docs/methods/tnet.md §2.5).

    The gate s acts on the shares alone; the features themselves are not gated. A bias would cancel in the softmax.

    Args:
        features: (b, j, d), of the overview and every region.
        gate: (b, d), s in (0, 1), squeeze-and-excitation of the mean feature.
        weight: (d,), w.
        real: (b, j) bool for images with fewer than j features; where False, π = 0.
        prior: (b, j), added to the logits of the shares; nothing where None.

    Returns:
        F̄ (b, d) and π (b, j). π also says how much each region counted in the decision.
    """
    logits = (features * gate.unsqueeze(-2) * weight).sum(dim=-1)
    logits = logits if prior is None else logits + prior
    share = (logits if real is None else logits.masked_fill(~real, -torch.inf)).softmax(dim=-1)
    return (share.unsqueeze(-1) * features).sum(dim=-2), share


def pairwise_contrast(features: Tensor, target: Tensor, margin: float = 0.4) -> Tensor:
    """Return the contrastive term of the loss, a scalar (docs/methods/tnet.md §4).

    The mean over all ordered pairs of images, each with itself too: 1 − cos in the same class, max(cos − margin, 0)
    otherwise. The released code multiplies it by 100 (CUB) or 50 (NABirds).

    Args:
        features: (b, d), F̄.
        target: (b,) classes.
        margin: cosine up to which features of different classes cost nothing.
    """
    unit = functional.normalize(features, dim=-1)
    cosine = unit @ unit.mT
    same = target.unsqueeze(0) == target.unsqueeze(1)
    return torch.where(same, 1 - cosine, (cosine - margin).relu()).mean()
