"""Re-attention among kept patches: the equations, and the blocks that compute them.

TRT: Su et al., "Re-Attention Transformer for Weakly Supervised Object Localization", BMVC 2022,
https://arxiv.org/abs/2208.01838, released as su-hui-zz/ReAttentionTransformer. Axes: b images, n patches row by row.
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
"""ε of the masked softmax: what a dropped patch still gets, over n."""


def preliminary_attention(rows: Iterable[Tensor]) -> Tensor:
    """m: the class token's attention to each patch, mean over heads, summed over layers, normalised (TRT §2.1).

    The released code takes the first L − 1 blocks, as the last sees only two tokens; the paper says all layers.

    Args:
        rows: one a layer, (b, heads, n), the class token's row without the class tokens (`rollout.class_row`).

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
    """b: patches whose sorted cumulative sum is below the mass, strictly; none where the first alone reaches it.

    Args:
        priority: (b, n), m, rows sum to 1.
        mass: θ; above 1 keeps all. Published: 0.6 (CUB, 224), 0.65 (CUB, 384), 0.95 (ILSVRC). Not comparable between
            grids, as mass spreads with n.

    Returns:
        (b, n) bool, a constant: the selection carries no gradient.
    """
    order = priority.detach().double().sort(dim=-1, descending=True, stable=True)
    below = order.values.cumsum(dim=-1) < mass
    return torch.zeros_like(below).scatter(-1, order.indices, below)


def kept(priority: Tensor, mass: float, budget: int | None = None) -> Tensor:
    """b: the patches that together carry the first share of attention, at least one and at most a budget.

    As `kept_as_released`, but the first patch always stays: the released rule keeps nothing when one patch holds the
    whole mass, and its map then divides 0 by 0.

    Args:
        priority: (b, n), m, rows sum to 1.
        mass: θ in (0, 1]; above 1 keeps all.
        budget: most patches to keep, e.g. because each is read again at a finer level.

    Returns:
        (b, n) bool, a constant.
    """
    rank = priority.detach().sort(dim=-1, descending=True, stable=True).indices.argsort(dim=-1)
    chosen = kept_as_released(priority, mass) | (rank == 0)
    return chosen if budget is None else chosen & (rank < budget)


def visible(chosen: Tensor) -> Tensor:
    """mask_ij = b_j + (1 − b_j)·δ_ij, (b, n, n) bool: every token sees the kept tokens and itself (TRT §2.2)."""
    n = chosen.shape[-1]
    return chosen.unsqueeze(-2) | torch.eye(n, dtype=torch.bool, device=chosen.device)


def masked_attention(scores: Tensor, chosen: Tensor) -> Tensor:
    """attn_ij = (e_ij + ε/n) / (Σ_j e_ij + ε), e_ij = exp(s_ij − max s_i)·mask_ij: rows sum to 1 (TRT §2.2).

    Computed in float32 at least. The maximum is taken over the visible tokens; the released code takes it over all,
    so one large score of a dropped patch lets every kept weight underflow.

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
    """λ: the softmax of the re-attention scores over the kept patches, 0 elsewhere (TRT §2.2).

    A masked softmax: the released exp(r) overflows in half precision, and its ε keeps the sum just below 1.

    Args:
        scores: (b, n), r, from the linear layer on the extra block's output.
        chosen: (b, n) bool, b; where a row keeps nothing (only `kept_as_released`), λ is 0 throughout.

    Returns:
        (b, n), rows sum to 1.
    """
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~chosen, lowest).softmax(dim=-1).masked_fill(~chosen, 0.0)


def weighted_token(weights: Tensor, tokens: Tensor) -> Tensor:
    """t = Σ_j λ_j X_j, (b, d), of weights (b, n) and patch tokens (b, n, d)."""
    return torch.einsum("bn,bnd->bd", weights, tokens)


def refined_attention(priority: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """m': inside the kept set its mass w = Σ b·m is shared out by λ, outside m stays; sums to 1 (TRT §2.4).

    Args:
        priority: (b, n), m.
        chosen: (b, n) bool, b.
        weights: (b, n), λ.

    Returns:
        (b, n). 1 − w is the mass that nobody looked at more closely.
    """
    mass = (priority * chosen).sum(dim=-1, keepdim=True)
    return torch.where(chosen, mass * weights, priority)


def localisation_maps(refined: Tensor, maps: Tensor) -> Tensor:
    """out^c = m' ⊙ CAM^c (TRT §2.4).

    m' is the same for all classes: it cannot tell two of them apart. Negative class maps keep their sign; apply ReLU
    first where the map is to be read as evidence.

    Args:
        refined: (b, n), m'.
        maps: (b, k, rows, cols) class maps, rows · cols = n.

    Returns:
        (b, k, rows, cols).
    """
    return refined.reshape(-1, 1, *maps.shape[-2:]) * maps


class CoarseLook(NamedTuple):
    """What the blocks before the last give.

    Attributes:
        attention: (b, n), m, sums to 1, 0 outside the tissue.
        class_token: (b, d), X_0, after block L − 1.
        patches: (b, n, d), X_p, after block L − 1; 0 outside the tissue.
        earlier: (b, 1 + t, d), the class token and the packed patches after block L − 2.
        embedded: (b, d, rows, cols), the patches before the first block.
        packing: where the patches with tissue are.
    """

    attention: Tensor
    class_token: Tensor
    patches: Tensor
    earlier: Tensor
    embedded: Tensor
    packing: Packing


def coarse_look(transformer: VisionTransformer, images: Tensor, tissue: Tensor) -> CoarseLook:
    """The first L − 1 blocks over the patches with tissue, and m from their class rows (TRT §2.1).

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
        x, row = block.with_class_row(x, packing.seen)  # type: ignore[operator]
        rows.append(row[..., 1:].float())
    attention = packing.unpack(preliminary_attention(rows))
    embedded = tokens[:, 1:].mT.reshape(len(images), -1, *tissue.shape[1:])
    return CoarseLook(attention, x[:, 0], packing.unpack(x[:, 1:]), earlier, embedded, packing)


class ReAttention(nn.Module):
    """An extra block in which the kept patches attend to each other only, and a score for each (TRT §2.2).

    Args:
        block: whose weights the extra block starts from; it is copied.
        dim: d.
    """

    def __init__(self, block: Block, dim: int) -> None:
        super().__init__()
        self.block, self.norm, self.score = deepcopy(block), nn.LayerNorm(dim, 1e-6), nn.Linear(dim, 1)

    def forward(self, tokens: Tensor, chosen: Tensor) -> Tensor:
        """λ (b, k) of patch tokens (b, k, d): 0 where not chosen (b, k), sums to 1."""
        mixed, _ = self.block.through(tokens, partial(masked_attention, chosen=chosen))
        scores: Tensor = self.score(self.norm(mixed))
        return reattention_weights(scores.squeeze(-1).float(), chosen)


class ClassMaps(nn.Module):
    """A block of its own, the class token dropped, a 3 × 3 convolution: one map a class (TRT §2.4).

    Args:
        block: whose weights the branch starts from; it is copied.
        dim: d.
        classes: number of classes.
    """

    def __init__(self, block: Block, dim: int, classes: int) -> None:
        super().__init__()
        self.block, self.convolution = deepcopy(block), nn.Conv2d(dim, classes, 3, padding=1)

    def forward(self, tokens: Tensor, packing: Packing, norm: nn.Module) -> Tensor:
        """Maps (b, classes, side, side) of any sign, of side² patches.

        Args:
            tokens: (b, 1 + t, d), a class token and the packed patches.
            packing: of the patches; those left out are 0 to the convolution, as what lies beyond the border is.
            norm: the transformer's last normalisation.
        """
        patches = packing.unpack(norm(self.block(tokens, packing.seen))[:, 1:])
        side = math.isqrt(packing.n)
        maps: Tensor = self.convolution(patches.mT.reshape(len(patches), -1, side, side))
        return maps.float()


class Packing(NamedTuple):
    """Where the chosen ones of n patches are; images with fewer of them than another are padded.

    Attributes:
        places: (b, t) int64, patches in the order of the image; then, as padding, patches that were not chosen.
        real: (b, t) bool, False for padding.
        n: patches of an image.
    """

    places: Tensor
    real: Tensor
    n: int

    @classmethod
    def of(cls, chosen: Tensor) -> Packing:
        """The packing of the patches chosen (b, n), bool."""
        count = int(chosen.sum(dim=-1).max())
        order = (~chosen).to(torch.uint8).argsort(dim=-1, stable=True)[:, :count]
        return cls(order, chosen.gather(-1, order), chosen.shape[-1])

    @property
    def seen(self) -> Tensor | None:
        """(b, 1 + t) bool for a class token and the packed patches, what may be attended to; None where all may."""
        if bool(self.real.all()):
            return None
        return torch.cat([torch.ones_like(self.real[:, :1]), self.real], dim=1)

    def pack(self, tokens: Tensor) -> Tensor:
        """(b, n, d) -> (b, t, d)."""
        return at(tokens, self.places)

    def unpack(self, values: Tensor) -> Tensor:
        """(b, t) or (b, t, d) -> (b, n) or (b, n, d), 0 at the patches that were not chosen."""
        full = values.new_zeros(values.shape[0], self.n, *values.shape[2:])
        trailing = (1,) * (values.ndim - 2)
        kept = values.masked_fill(~self.real.reshape(*self.real.shape, *trailing), 0)
        return full.scatter(1, self.places.reshape(*self.places.shape, *trailing).expand_as(values), kept)


def at(tokens: Tensor, places: Tensor) -> Tensor:
    """The tokens (b, k, d) at places (b, k) among (b, n, d)."""
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
