"""TRT's parts around a vision transformer: preliminary attention, a block that scores kept patches, class maps.

Su et al., BMVC 2022, https://arxiv.org/abs/2208.01838. Axes: b images, n patches row by row,
k of them kept, t with tissue, d channels.
"""

from __future__ import annotations

import math
from copy import deepcopy
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wsi_attention.attention.reattention import masked_attention, preliminary_attention, reattention_weights
from wsi_attention.nn.packing import Packing
from wsi_attention.nn.vit import Block, VisionTransformer


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
