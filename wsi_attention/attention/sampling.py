"""From attention to drawn cells: the smoothed softmax, draws with and without replacement, and top-k.

Every function takes a batch of attention maps, flattened to (b, K). Cells with attention 0 are never drawn.
docs/methods/ats.md §2.1 and §2.2, after Katharopoulos & Fleuret, ICML 2019, https://arxiv.org/abs/1905.03711.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor


class Draw(NamedTuple):
    """Cells drawn without replacement, and what the threshold estimators need.

    Attributes:
        cells: (b, n) int64 flat indices in the order of the draws, which estimators depend on.
        keys: (b, n) float64, log attention plus Gumbel noise, decreasing.
        threshold: (b,) float64, the (n + 1)-th largest key; -inf where no further cell could have been drawn.
    """

    cells: Tensor
    keys: Tensor
    threshold: Tensor


def smoothed_softmax(logits: Tensor, floor: float = 0.0) -> Tensor:
    """Return attention (1 - s)·softmax(z) + s / K over the cells with a finite logit (docs/methods/ats.md §2.1).

    The floor bounds 1/a, and every cell can be drawn. Cells with logit -inf (no tissue) get exactly 0 and do not count
    in K, so a mask only changes which cells take part. Computed in float32 at least.

    Args:
        logits: (b, K).
        floor: s, share of the attention that is spread evenly, in [0, 1).

    Returns:
        (b, K) attention; each row sums to 1.

    Raises:
        ValueError: a row has no finite logit, or a logit is NaN or +inf.
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    if not bool((logits < torch.inf).all()):
        raise ValueError("attention logits hold NaN or +inf; the attention network has diverged")
    reachable = logits > -torch.inf
    if not bool(reachable.any(dim=-1).all()):
        raise ValueError("nothing to attend to: all logits of an image are -inf")
    softmax = logits.softmax(dim=-1)
    if floor == 0.0:
        return softmax
    share = reachable.to(softmax.dtype)
    return (1.0 - floor) * softmax + floor * share / share.sum(dim=-1, keepdim=True)


def available(attention: Tensor) -> Tensor:
    """Return (b,), the number of cells that can be drawn: those with attention above 0."""
    return (attention > 0).sum(dim=-1)


def draw_with_replacement(attention: Tensor, n: int, generator: Generator | None = None) -> Tensor:
    """Draw n cells independently with probabilities a, by inversion of the summed attention in float64.

    Args:
        attention: (b, K), non-negative; rows need not sum to exactly 1.
        n: draws per image, at least 1.
        generator: source of the noise; torch's global one where None. The noise is made on the generator's device, so
            that a CPU generator draws the same cells on any device.

    Returns:
        (b, n) int64 flat indices in the order of the draws.

    Raises:
        ValueError: n is below 1, or an image has no cell with attention above 0.
    """
    _check(attention, n, needed=1)
    summed = attention.detach().double().cumsum(dim=-1)
    total = summed[:, -1:].contiguous()
    last = torch.searchsorted(summed, total)
    u = _uniform((attention.shape[0], n), attention, generator)
    return torch.searchsorted(summed, u * total, right=True).minimum(last)


def draw_without_replacement(attention: Tensor, n: int, generator: Generator | None = None) -> Draw:
    """Draw n different cells by Gumbel-top-k on log a, which are successive draws in their order.

    docs/methods/ats.md §2.2: P(I_1 … I_n) = Π_j a_{I_j} / (1 − Σ_{k<j} a_{I_k}). The noise is added to log a, in
    float64.

    Args:
        attention: (b, K), non-negative.
        n: draws per image, at least 1.
        generator: source of the noise; torch's global one where None. The noise is made on the generator's device, so
            that a CPU generator draws the same cells on any device.

    Raises:
        ValueError: n is below 1, or above the number of cells with attention above 0 in some image.
    """
    _check(attention, n, needed=n)
    noise = -(-_uniform(attention.shape, attention, generator).log()).log()
    keys = attention.detach().double().log() + noise
    best = keys.topk(min(n + 1, keys.shape[-1]), dim=-1)
    threshold = best.values[:, n] if keys.shape[-1] > n else best.values.new_full(keys.shape[:1], -torch.inf)
    return Draw(best.indices[:, :n], best.values[:, :n], threshold)


def first_of(draw: Draw, n: int) -> Draw:
    """Return the draw of n cells that a longer draw begins with; the same noise would have drawn these.

    Args:
        draw: at least n cells.
        n: cells per image, at least 1.
    """
    if n == draw.cells.shape[-1]:
        return draw
    return Draw(draw.cells[:, :n], draw.keys[:, :n], draw.keys[:, n])


def top_k(attention: Tensor, n: int) -> Tensor:
    """Return the n cells with the highest attention, highest first, of equals the first; nothing is random.

    Args:
        attention: (b, K), non-negative.
        n: cells per image, at least 1.

    Returns:
        (b, n) int64 flat indices.

    Raises:
        ValueError: n is below 1, or above the number of cells with attention above 0 in some image.
    """
    _check(attention, n, needed=n)
    return attention.detach().sort(dim=-1, descending=True, stable=True).indices[:, :n]


def _uniform(shape: tuple[int, ...], like: Tensor, generator: Generator | None) -> Tensor:
    device = generator.device if generator is not None else torch.device("cpu")
    u = torch.rand(shape, dtype=torch.float64, generator=generator, device=device)
    limits = torch.finfo(torch.float64)
    return u.clamp(limits.tiny, 1.0 - limits.eps).to(like.device)


def _check(attention: Tensor, n: int, needed: int) -> None:
    if attention.dim() != 2:
        raise ValueError(f"attention must be (b, K), got {tuple(attention.shape)}")
    if n < 1:
        raise ValueError(f"at least one cell must be drawn, asked for {n}")
    fewest = int(available(attention).min()) if attention.numel() else 0
    if fewest < needed:
        raise ValueError(
            f"asked for {n} different cells, but an image has {fewest} with attention above 0; draw fewer, or mask less"
        )
