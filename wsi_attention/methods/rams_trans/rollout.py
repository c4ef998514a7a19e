"""Attention rollout: how much a transformer's class token takes from every patch, through all layers.

docs/methods/rams_trans.md §2.1 and §2.2, after Abnar & Zuidema, https://arxiv.org/abs/2005.00928. Axes: b images,
heads, t tokens (class tokens first, then the patches row by row). Rows are queries and sum to 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def residual_attention(attention: Tensor, identity: float = 1.0) -> Tensor:
    """Return the attention of a layer with its residual connection: rownorm(mean over heads + identity · E).

    Args:
        attention: (b, heads, t, t), softmax attention of one layer.
        identity: weight of the identity E, which stands for the residual connection; 1 in the paper.

    Returns:
        (b, t, t); every row sums to 1.
    """
    mean = attention.mean(dim=1)
    mixed = mean + identity * torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    return mixed / mixed.sum(dim=-1, keepdim=True)


def rollout(layers: Iterable[Tensor], identity: float = 1.0) -> Tensor:
    """Return the product of the layers' residual attentions, each new layer on the left: G_l = Ã_l · G_{l-1}.

    The layers are taken one by one: with a generator only one product of b · t² values is in memory, instead of
    b · heads · t² per layer. Gradients pass; RAMS-Trans passes detached attention, because a region is a constant.

    Args:
        layers: attention of the first to the last layer, each (b, heads, t, t).
        identity: see `residual_attention`.

    Returns:
        (b, t, t), 0 or more; every row sums to 1.

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
    """Return some rows of the rollout, or means of rows, without the whole matrix: start · Ã_L ··· Ã_1.

    This costs r · t² per layer instead of t³, which for a thousand tokens is more than the transformer itself. All
    layers are needed at once; their mean over heads, (b, 1, t, t), is enough.

    Args:
        layers: attention of the first to the last layer, each (b, heads, t, t).
        start: (b or 1, r, t); a 1 at token i selects row i, 1 / t everywhere the mean of all rows.
        identity: see `residual_attention`.

    Returns:
        (b, r, t), for `importance` with token 0 if r is 1, or for `importance_as_released`.

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
    """Return how much one class token takes from every patch.

    Args:
        matrix: (..., t, t), a rollout or the attention of one layer.
        class_tokens: number of class tokens before the patches.
        token: index of the class token.

    Returns:
        (..., t - class_tokens).
    """
    return matrix[..., token, class_tokens:]


def importance(product: Tensor, grid: tuple[int, int], class_tokens: int = 1, token: int = 0) -> Tensor:
    """Return the paper's importance map g: the class token's row of the rollout, as a grid of patches.

    Args:
        product: (b, t, t), the rollout.
        grid: (rows, cols) of the patches; rows · cols = t - class_tokens.
        class_tokens: number of class tokens before the patches.
        token: index of the class token of the scale.

    Returns:
        (b, rows, cols), 0 or more.
    """
    return class_row(product, class_tokens, token).reshape(-1, *grid)


def importance_as_released(product: Tensor, grid: tuple[int, int], class_tokens: int = 2) -> Tensor:
    """Return the released code's importance map: the mean of all rows, class tokens included, over its maximum.

    It says how much all tokens together attend to a patch, not the class token alone. The division does not change
    which patches pass `regions.above_mean`. The released model has two class tokens before the patches.

    Args:
        product: (b, t, t), the rollout.
        grid: (rows, cols) of the patches.
        class_tokens: number of class tokens before the patches.

    Returns:
        (b, rows, cols), maximum 1.
    """
    centrality = product.mean(dim=-2)[..., class_tokens:]
    return (centrality / centrality.amax(dim=-1, keepdim=True)).reshape(-1, *grid)
