"""Attention rollout: what a transformer's class token gathered from every patch, through all layers.

RAMS-Trans, https://arxiv.org/abs/2107.08192, after Abnar & Zuidema, https://arxiv.org/abs/2005.00928. Axes: b images,
heads, t tokens (class tokens first, then the patches row by row). Rows are queries and sum to 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def residual_attention(attention: Tensor, identity: float = 1.0) -> Tensor:
    """One layer's attention with its residual connection: rownorm(mean over heads + identity · E).

    Args:
        attention: (b, heads, t, t), softmax attention of one layer.
        identity: weight λ of the identity, which stands for the residual connection; the paper takes 1.

    Returns:
        (b, t, t); every row sums to 1.
    """
    mean = attention.mean(dim=1)
    mixed = mean + identity * torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    return mixed / mixed.sum(dim=-1, keepdim=True)


def rollout(layers: Iterable[Tensor], identity: float = 1.0) -> Tensor:
    """The layers' residual attentions multiplied, each new layer on the left: G_l = Ã_l · G_{l-1}, G_1 = Ã_1.

    The layers are taken one by one, so a generator keeps a single product of b · t² values instead of every layer's
    b · heads · t². No gradient is cut here; RAMS-Trans passes detached attention, as its selection is a constant.

    Args:
        layers: attention of the first to the last layer, each (b, heads, t, t).
        identity: see `residual_attention`.

    Returns:
        (b, t, t); every row is non-negative and sums to 1.

    Raises:
        ValueError: there is no layer.
    """
    product: Tensor | None = None
    for layer in layers:
        mixed = residual_attention(layer, identity)
        product = mixed if product is None else mixed @ product
    if product is None:
        raise ValueError("rollout needs the attention of at least one layer, found none: record it in the forward pass")
    return product


def rollout_rows(layers: Sequence[Tensor], start: Tensor, identity: float = 1.0) -> Tensor:
    """Some rows of the rollout, or means of rows, without the matrix: start · Ã_L ··· Ã_1.

    Costs r · t² a layer instead of t³, which for a thousand tokens is more than the transformer itself; in return all
    layers are needed at once. Their mean over heads, (b, 1, t, t), does.

    Args:
        layers: attention of the first to the last layer, each (b, heads, t, t).
        start: (b or 1, r, t): a 1 at token i asks for row i, 1 / t everywhere for the mean of all rows.
        identity: see `residual_attention`.

    Returns:
        (b, r, t); what `importance` takes with token 0 where r is 1, and `importance_as_released` as it is.

    Raises:
        ValueError: there is no layer.
    """
    if not layers:
        raise ValueError("rollout needs the attention of at least one layer, found none: record it in the forward pass")
    rows = start
    for layer in reversed(layers):
        rows = rows @ residual_attention(layer, identity)
    return rows


def class_row(matrix: Tensor, class_tokens: int = 1, token: int = 0) -> Tensor:
    """What one class token takes from every patch.

    Args:
        matrix: (..., t, t), a rollout or the attention of one layer.
        class_tokens: how many class tokens stand in front of the patches.
        token: which of them asks.

    Returns:
        (..., t - class_tokens).
    """
    return matrix[..., token, class_tokens:]


def importance(product: Tensor, grid: tuple[int, int], class_tokens: int = 1, token: int = 0) -> Tensor:
    """The paper's importance map g: the class token's row of the rollout, laid out as the patch grid.

    Args:
        product: (b, t, t), the rollout.
        grid: (rows, cols) of the patches; rows · cols = t - class_tokens.
        class_tokens: how many class tokens stand in front of the patches.
        token: the class token of the scale in hand.

    Returns:
        (b, rows, cols), non-negative.
    """
    return class_row(product, class_tokens, token).reshape(-1, *grid)


def importance_as_released(product: Tensor, grid: tuple[int, int], class_tokens: int = 2) -> Tensor:
    """The released code's importance map: the mean over all rows, class tokens included, divided by its maximum.

    It measures how much every token looks at a patch, not what the class token needs; the division leaves the
    threshold test of `regions.above_mean` as it is. The released model puts two class tokens before the patches.

    Args:
        product: (b, t, t), the rollout.
        grid: (rows, cols) of the patches.
        class_tokens: how many class tokens stand in front of the patches.

    Returns:
        (b, rows, cols), maximum 1.
    """
    centrality = product.mean(dim=-2)[..., class_tokens:]
    return (centrality / centrality.amax(dim=-1, keepdim=True)).reshape(-1, *grid)
