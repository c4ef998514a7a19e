"""Which cells a zoom step takes: at random, repeatable, as the released code does, or all of them.

A choice turns the attention of t regions (t, K) and their numbers of draws (t,) into a `Stage`; the last step draws
without replacement, the others with. Kong & Henao, CVPR 2022, https://arxiv.org/abs/2106.02694.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Generator, Tensor

from wsi_attention.attention.contrastive import contrastive_attention
from wsi_attention.attention.counts import (
    draw_counts,
    highest,
    noisy_as_released,
    rescaled_as_released,
    rounded_counts,
)
from wsi_attention.attention.nested import Stage, subtile_stage, tile_stage, whole_stage
from wsi_attention.attention.sampling import draw_without_replacement

Choice = Callable[[Tensor, Tensor, bool], Stage]
"""(attention (t, K), draws (t,), whether this is the last step) -> what was drawn."""


def at_random(generator: Generator | None, noise: str = "log") -> Choice:
    """The paper's draws: value and gradients of the estimate are unbiased.

    Args:
        generator: of all draws; torch's global one where None.
        noise: "log", or "as-released" for Gumbel noise on β itself in the last step: biased, nearly uniform.
    """
    draw = partial(draw_without_replacement if noise == "log" else noisy_as_released, generator=generator)

    def choose(attention: Tensor, draws: Tensor, last: bool) -> Stage:
        if last:
            return subtile_stage(attention, draws, draw)
        return tile_stage(attention, draw_counts(attention, draws, generator))

    return choose


def most_attended(attention: Tensor, draws: Tensor, last: bool) -> Stage:
    """Draws in proportion to attention, rounded, and the highest cells of the last step: nothing random."""
    if last:
        return subtile_stage(attention, draws, highest)
    return tile_stage(attention, rounded_counts(attention, draws))


def as_released(generator: Generator | None) -> Choice:
    """The released prediction: random tiles from rescaled attention, and the highest cells of the last step."""

    def choose(attention: Tensor, draws: Tensor, last: bool) -> Stage:
        if last:
            return subtile_stage(attention, draws, highest)
        return tile_stage(attention, draw_counts(rescaled_as_released(attention), draws, generator))

    return choose


def everything(attention: Tensor, draws: Tensor, last: bool) -> Stage:
    """All cells, each counting its attention: the sum that all draws estimate."""
    return whole_stage(attention)


def passed_over(attention: Tensor, among: Tensor) -> Tensor:
    """Reversed attention inside regions, (t, K), for the contrastive pass; a region's only cell is taken as it is.

    Args:
        attention: (t, K), rows sum to 1.
        among: (t, K) bool, the cells of each region that may be drawn.
    """
    reverse = contrastive_attention(attention, among)
    return reverse.where((reverse > 0).any(dim=-1, keepdim=True), attention)
