"""Re-attention among kept patches: the equations, and the blocks that compute them.

TRT: Su et al., "Re-Attention Transformer for Weakly Supervised Object Localization", BMVC 2022,
https://arxiv.org/abs/2208.01838, released as su-hui-zz/ReAttentionTransformer. The equations in our notation:
docs/methods/trt.md §2. Axes: b images, n patches row by row, d channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from copy import deepcopy
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wsi_attention.nn.vit import Block, VisionTransformer

LEAK = 1e-6
"""ε of the masked softmax: ε / n is the attention that a dropped patch still gets."""


def preliminary_attention(rows: Iterable[Tensor]) -> Tensor:
    """Return m, the class token's attention to each patch: mean over heads, sum over layers, normalised.

    See docs/methods/trt.md §2.1. Like the released code, we take the first L − 1 blocks, as the last one sees only two
    tokens; the paper says all layers.

    Args:
        rows: one for each layer, (b, heads, n): the class token's row without the class tokens themselves.

    Returns:
        (b, n), non-negative, rows sum to 1.

    Raises:
        ValueError: there is no layer.
    """
    layers = [row.mean(dim=1) for row in rows]
    if not layers:
        raise ValueError("preliminary attention needs the class rows of at least one layer, found none")
    total = torch.stack(layers).sum(dim=0)
    return total / total.sum(dim=-1, keepdim=True)


def kept_as_released(priority: Tensor, mass: float) -> Tensor:
    """Return b, the patches whose sorted cumulative sum is below the mass; none where the first alone reaches it.

    Args:
        priority: (b, n), m, rows sum to 1.
        mass: θ; above 1 keeps all. Not comparable between grids, as the mass spreads with n.

    Returns:
        (b, n) bool, a constant: the selection carries no gradient.
    """
    order = priority.detach().double().sort(dim=-1, descending=True, stable=True)
    below = order.values.cumsum(dim=-1) < mass
    return torch.zeros_like(below).scatter(-1, order.indices, below)


def kept(priority: Tensor, mass: float, budget: int | None = None) -> Tensor:
    """Return b, the patches that together carry the first share of attention: at least one, at most a budget.

    Other than in `kept_as_released` the first patch always stays: the released rule keeps nothing when one patch holds
    the whole mass, and its map then divides 0 by 0.

    Args:
        priority: (b, n), m, rows sum to 1.
        mass: θ in (0, 1]; above 1 keeps all.
        budget: the most patches to keep, e.g. because each is read again at a finer level; None for no limit.

    Returns:
        (b, n) bool, a constant.
    """
    rank = priority.detach().sort(dim=-1, descending=True, stable=True).indices.argsort(dim=-1)
    chosen = kept_as_released(priority, mass) | (rank == 0)
    return chosen if budget is None else chosen & (rank < budget)


def kept_by_each(priorities: Tensor, mass: float, budget: int | None = None) -> Tensor:
    """Return the patches that any of several attentions keeps by itself, each its share of the budget.

    A mean over heads hides what one head alone has found: of h heads that each hold a patch of their own, none has more
    than 1 / h of the mass. Not of the paper, which selects by the mean.

    Args:
        priorities: (b, h, n), rows sum to 1.
        mass: θ, of each of them.
        budget: the most patches to keep in all; each attention has budget // h of them, and at least one.

    Returns:
        (b, n) bool, a constant: at least one patch, and at most max(budget, h).
    """
    each = None if budget is None else max(1, budget // priorities.shape[1])
    return torch.stack([kept(one, mass, each) for one in priorities.unbind(dim=1)], dim=1).any(dim=1)


def visible(chosen: Tensor) -> Tensor:
    """Return mask_ij = b_j + (1 − b_j)·δ_ij, (b, n, n) bool: every token sees the kept tokens and itself."""
    n = chosen.shape[-1]
    return chosen.unsqueeze(-2) | torch.eye(n, dtype=torch.bool, device=chosen.device)


def masked_attention(scores: Tensor, chosen: Tensor) -> Tensor:
    """Return attn_ij = (e_ij + ε/n) / (Σ_j e_ij + ε), e_ij = exp(s_ij − max s_i)·mask_ij; rows sum to 1.

    See docs/methods/trt.md §2.2. Computed in float32 at least. The maximum is taken over the visible tokens; the
    released code takes it over all, so that one large score of a dropped patch makes every kept weight underflow.

    Args:
        scores: (b, heads, n, n), QKᵀ/√d.
        chosen: (b, n) bool, b.

    Returns:
        (b, heads, n, n); a dropped patch gets at most ε/n from another token.
    """
    wide = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    seen = wide.masked_fill(~visible(chosen).unsqueeze(1), -torch.inf)
    e = (seen - seen.amax(dim=-1, keepdim=True).detach()).exp()
    attention = (e + LEAK / scores.shape[-1]) / (e.sum(dim=-1, keepdim=True) + LEAK)
    return attention.to(scores.dtype)


def reattention_weights(scores: Tensor, chosen: Tensor) -> Tensor:
    """Return λ, the softmax of the re-attention scores over the kept patches, 0 elsewhere.

    See docs/methods/trt.md §2.2. A masked softmax: the released exp(r) overflows in half precision, and its ε keeps the
    sum just below 1.

    Args:
        scores: (b, n), r, from the linear layer on the extra block's output.
        chosen: (b, n) bool, b; where a row keeps nothing (only `kept_as_released`), λ is 0 throughout.

    Returns:
        (b, n), rows sum to 1.
    """
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~chosen, lowest).softmax(dim=-1).masked_fill(~chosen, 0.0)


def weighted_token(weights: Tensor, tokens: Tensor) -> Tensor:
    """Return t = Σ_j λ_j X_j, (b, d), from weights (b, n) and patch tokens (b, n, d)."""
    return torch.einsum("bn,bnd->bd", weights, tokens)


def refined_attention(priority: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Return m′: the kept patches share their mass w = Σ b·m by λ, the others keep m; rows sum to 1.

    See docs/methods/trt.md §2.4.

    Args:
        priority: (b, n), m.
        chosen: (b, n) bool, b.
        weights: (b, n), λ.

    Returns:
        (b, n). 1 − w is the attention mass of patches that were not looked at again.
    """
    mass = (priority * chosen).sum(dim=-1, keepdim=True)
    return torch.where(chosen, mass * weights, priority)


def localisation_maps(refined: Tensor, maps: Tensor) -> Tensor:
    """Return the maps out^c = m′ ⊙ CAM^c.

    See docs/methods/trt.md §2.4. m′ is the same for all classes, so it cannot tell two of them apart. Negative values
    of class maps keep their sign; apply ReLU where the map is to be read as evidence.

    Args:
        refined: (b, n), m′.
        maps: (b, k, rows, cols) class maps, rows · cols = n.

    Returns:
        (b, k, rows, cols).
    """
    return refined.reshape(-1, 1, *maps.shape[-2:]) * maps


class CoarseLook(NamedTuple):
    """What the blocks before the last one return.

    Attributes:
        attention: (b, n), m, sums to 1, 0 outside the tissue.
        heads: (b, h, n), the same of each head by itself.
        class_token: (b, d), X_0, after block L − 1.
        patches: (b, n, d), X_p, after block L − 1; 0 outside the tissue.
        earlier: (b, 1 + t, d), the class token and the packed patches after block L − 2.
        embedded: (b, d, rows, cols), the patches before the first block.
        packing: where the patches with tissue are.
    """

    attention: Tensor
    heads: Tensor
    class_token: Tensor
    patches: Tensor
    earlier: Tensor
    embedded: Tensor
    packing: Packing


def coarse_look(transformer: VisionTransformer, images: Tensor, tissue: Tensor) -> CoarseLook:
    """Pass the patches with tissue through the first L − 1 blocks, and compute m from the class token's rows.

    See docs/methods/trt.md §2.1.

    Args:
        transformer: of L >= 2 blocks.
        images: (b, c, h, w).
        tissue: (b, rows, cols) bool, at least one patch an image.
    """
    tokens, packing = transformer.embed(images), Packing.of(tissue.flatten(1))
    earlier = x = torch.cat([tokens[:, :1], packing.pack(tokens[:, 1:])], dim=1)
    rows = []
    for block in transformer.blocks[:-1]:
        earlier = x
        x, row = block.with_class_row(x, packing.seen)
        rows.append(row[..., 1:].float())
    attention = packing.unpack(preliminary_attention(rows))
    alone = [preliminary_attention([row[:, [h]] for row in rows]) for h in range(rows[0].shape[1])]
    heads = torch.stack([packing.unpack(one) for one in alone], dim=1)
    embedded = tokens[:, 1:].mT.reshape(len(images), -1, *tissue.shape[1:])
    return CoarseLook(attention, heads, x[:, 0], packing.unpack(x[:, 1:]), earlier, embedded, packing)


class ReAttention(nn.Module):
    """An extra block in which the kept patches attend to each other only, and a score for each.

    See docs/methods/trt.md §2.2.

    Args:
        block: whose weights the extra block starts from; it is copied.
        dim: d.
    """

    def __init__(self, block: Block, dim: int) -> None:
        super().__init__()
        self.block, self.norm, self.score = deepcopy(block), nn.LayerNorm(dim, 1e-6), nn.Linear(dim, 1)

    def forward(self, tokens: Tensor, chosen: Tensor) -> Tensor:
        """Return λ (b, k) of patch tokens (b, k, d): 0 where not chosen (b, k), rows sum to 1."""
        mixed, _ = self.block.through(tokens, partial(masked_attention, chosen=chosen))
        scores: Tensor = self.score(self.norm(mixed))
        return reattention_weights(scores.squeeze(-1).float(), chosen)


class ClassMaps(nn.Module):
    """A block of its own, the class token dropped, a 3 × 3 convolution: one map for each class.

    See docs/methods/trt.md §2.4.

    Args:
        block: whose weights the branch starts from; it is copied.
        dim: d.
        classes: number of classes.
    """

    def __init__(self, block: Block, dim: int, classes: int) -> None:
        super().__init__()
        self.block, self.convolution = deepcopy(block), nn.Conv2d(dim, classes, 3, padding=1)

    def forward(self, tokens: Tensor, packing: Packing, norm: nn.Module) -> Tensor:
        """Return class maps (b, classes, side, side) of any sign, for side² patches.

        Args:
            tokens: (b, 1 + t, d), a class token and the packed patches.
            packing: where the patches lie; for the convolution the others are 0, like all beyond the border.
            norm: the transformer's last normalisation.
        """
        patches = packing.unpack(norm(self.block(tokens, packing.seen))[:, 1:])
        side = math.isqrt(packing.n)
        maps: Tensor = self.convolution(patches.mT.reshape(len(patches), -1, side, side))
        return maps.float()


class Packing(NamedTuple):
    """Where the chosen ones of n patches are, packed side by side; images with fewer of them than another are padded.

    Attributes:
        places: (b, t) int64, chosen patches in the order of the image; then, as padding, patches that are not chosen.
        real: (b, t) bool, False for padding.
        n: patches of an image.
    """

    places: Tensor
    real: Tensor
    n: int

    @classmethod
    def of(cls, chosen: Tensor) -> Packing:
        """Return the packing of chosen patches, (b, n) bool."""
        count = int(chosen.sum(dim=-1).max())
        order = (~chosen).to(torch.uint8).argsort(dim=-1, stable=True)[:, :count]
        return cls(order, chosen.gather(-1, order), chosen.shape[-1])

    @property
    def seen(self) -> Tensor | None:
        """(b, 1 + t) bool: which of a class token and the packed patches may be attended to; None where all may."""
        if bool(self.real.all()):
            return None
        return torch.cat([torch.ones_like(self.real[:, :1]), self.real], dim=1)

    def pack(self, tokens: Tensor) -> Tensor:
        """Return the packed tokens (b, t, d) of all tokens (b, n, d)."""
        return at(tokens, self.places)

    def unpack(self, values: Tensor) -> Tensor:
        """Return packed values (b, t) or (b, t, d) as (b, n) or (b, n, d), 0 for patches that are not chosen."""
        full = values.new_zeros(values.shape[0], self.n, *values.shape[2:])
        trailing = (1,) * (values.ndim - 2)
        kept = values.masked_fill(~self.real.reshape(*self.real.shape, *trailing), 0)
        return full.scatter(1, self.places.reshape(*self.places.shape, *trailing).expand_as(values), kept)


def at(tokens: Tensor, places: Tensor) -> Tensor:
    """Return the tokens (b, k, d) at places (b, k) among tokens (b, n, d)."""
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
