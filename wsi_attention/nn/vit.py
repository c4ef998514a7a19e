"""A small vision transformer that can return its attention; where nobody asks for it, it runs on fused kernels.

Dosovitskiy et al., ICLR 2021, https://arxiv.org/abs/2010.11929: patches of pixels as tokens, class tokens before them,
blocks with normalisation first. RAMS-Trans and TRT also need a class token for each scale, the attention matrices of
all blocks, the class token's row alone, and blocks with another attention rule. Axes: b images, t tokens, d channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_attention.nn.blocks import ChannelNorm, ModulesOf

Attend = Callable[[Tensor], Tensor]
"""From scores (b, heads, t, t) to attention of the same shape: a softmax, or another rule."""


def softmax_rows(scores: Tensor) -> Tensor:
    """Return the softmax over each row, the usual rule, computed in float32 at least."""
    return scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention.

    Args:
        dim: d; a multiple of heads.
        heads: attention heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim must be a multiple of heads, got dim={dim}, heads={heads}")
        self.heads = heads
        self.mix = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Map (b, t, d) to (b, t, d) with the fused kernel; no attention matrix exists.

        Args:
            x: (b, t, d).
            seen: (b, t) bool, tokens that may be attended to, at least one an image; all where None.
        """
        return self._joined(_fused(*self._split(x), seen))

    def through(self, x: Tensor, attend: Attend = softmax_rows) -> tuple[Tensor, Tensor]:
        """Return (b, t, d) and the attention (b, heads, t, t), not fused."""
        query, key, value = self._split(x)
        attention = attend(_scores(query, key))
        return self._joined(attention @ value), attention

    def with_class_row(self, x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the fused output, and the attention of the first token (b, heads, t): one row per head, not t."""
        query, key, value = self._split(x)
        row = _scores(query[:, :, :1], key)
        if seen is not None:
            row = row.masked_fill(~seen[:, None, None], -torch.inf)
        return self._joined(_fused(query, key, value, seen)), softmax_rows(row).squeeze(-2)

    def with_mean_matrix(self, x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the fused output, and the mean attention of the heads (b, 1, t, t), in float32 without gradient."""
        query, key, value = self._split(x)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            scores = _scores(query.float(), key.float())
            if seen is not None:
                scores = scores.masked_fill(~seen[:, None, None], -torch.inf)
            attention = softmax_rows(scores).mean(dim=1, keepdim=True)
        return self._joined(_fused(query, key, value, seen)), attention

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mixed = self.mix(x).reshape(*x.shape[:2], 3, self.heads, -1)
        query, key, value = mixed.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def _joined(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(x.transpose(1, 2).flatten(2))
        return out


def _fused(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None) -> Tensor:
    if seen is None:
        return functional.scaled_dot_product_attention(query, key, value)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=seen[:, None, None])


def _scores(query: Tensor, key: Tensor) -> Tensor:
    scale: float = query.shape[-1] ** -0.5
    return query @ key.mT * scale


class Block(nn.Module):
    """Attention and a two-layer perceptron, each normalised first and added to its input.

    Args:
        dim: d.
        heads: attention heads.
        ratio: width of the perceptron, divided by d.
    """

    def __init__(self, dim: int, heads: int, ratio: float = 4.0) -> None:
        super().__init__()
        width = round(dim * ratio)
        self.attention_norm, self.attention = nn.LayerNorm(dim, 1e-6), SelfAttention(dim, heads)
        self.mlp_norm = nn.LayerNorm(dim, 1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, dim))

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Map (b, t, d) to (b, t, d); only tokens `seen` (b, t) are attended to, all where None."""
        return self._rest(x, self.attention(self.attention_norm(x), seen))

    def through(self, x: Tensor, attend: Attend = softmax_rows) -> tuple[Tensor, Tensor]:
        """Map (b, t, d) to (b, t, d) and the attention (b, heads, t, t)."""
        mixed, attention = self.attention.through(self.attention_norm(x), attend)
        return self._rest(x, mixed), attention

    def with_class_row(self, x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map (b, t, d) to (b, t, d) and the first token's attention (b, heads, t), 0 for tokens not `seen` (b, t)."""
        mixed, row = self.attention.with_class_row(self.attention_norm(x), seen)
        return self._rest(x, mixed), row

    def with_mean_matrix(self, x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map (b, t, d) to (b, t, d) and the heads' mean attention (b, 1, t, t), without gradient."""
        mixed, attention = self.attention.with_mean_matrix(self.attention_norm(x), seen)
        return self._rest(x, mixed), attention

    def _rest(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + mixed
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


class VisionTransformer(nn.Module):
    """A transformer from images to tokens; as an encoder, from images (b, c, h, w) to the class token's feature (b, d).

    Args:
        channels: c, channels of the images.
        patch: pixels along a side of a patch.
        grid: (rows, cols) of patches for which the position embedding is made; it is interpolated for other sizes.
        dim: d.
        depth: number of blocks.
        heads: attention heads of a block.
        scales: number of class tokens, one per scale; all start as copies of one (docs/methods/rams_trans.md §2.4).
        embed_patches: images (b, c, h, w) -> (b, d, h / patch, w / patch); the paper's linear map where None.
    """

    def __init__(
        self,
        channels: int = 3,
        patch: int = 16,
        grid: tuple[int, int] = (14, 14),
        dim: int = 192,
        depth: int = 6,
        heads: int = 3,
        scales: int = 1,
        embed_patches: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.patch, self.dim = patch, dim
        self.embed_patches = embed_patches or nn.Conv2d(channels, dim, patch, stride=patch)
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, dim, *grid), std=0.02))
        token = nn.init.trunc_normal_(torch.empty(1, dim), std=0.02)
        self.class_tokens = nn.Parameter(token.repeat(scales, 1))
        self.blocks = ModulesOf(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, 1e-6)

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Return (rows, cols) of the patches of images (b, c, h, w).

        Raises:
            ValueError: a side is no multiple of the patch.
        """
        height, width = images.shape[-2:]
        if height % self.patch or width % self.patch or not height or not width:
            raise ValueError(f"image sides must be multiples of the {self.patch}-pixel patch, got {height} x {width}")
        return height // self.patch, width // self.patch

    def embed(self, images: Tensor, scales: Sequence[int] = (0,)) -> Tensor:
        """Return the class tokens of the given scales, then the patches row by row: (b, len(scales) + rows · cols, d).

        In the RAMS-Trans paper a pass has the class token of its scale, in the released code those of all scales. A
        class token includes its own position: two learned vectors that are always added are one vector.
        """
        grid = self.grid(images)
        patches = self.embed_patches(images) + self._positions(grid)
        tokens = self.class_tokens[list(scales)].expand(len(images), -1, -1)
        return torch.cat([tokens, patches.flatten(2).mT], dim=1)

    def forward(self, images: Tensor, scale: int = 0) -> Tensor:
        """Map (b, c, h, w) to (b, d), the normalised class token of the scale after the last block; all fused."""
        return self.tokens(images, (scale,))[:, 0]

    def with_attention(self, images: Tensor, scales: Sequence[int] = (0,)) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return all normalised tokens (b, t, d), and the attention (b, heads, t, t) of each block, first block first.

        This takes memory for depth · heads · t² values per image. `rollout.rollout` takes the result.
        """
        x, layers = self.embed(images, scales), []
        for block in self.blocks:
            x, attention = block.through(x)
            layers.append(attention)
        return self.norm(x), tuple(layers)

    def with_mean_attention(
        self, images: Tensor, scales: Sequence[int] = (0,), seen: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return all normalised tokens (b, t, d), and the mean attention (b, 1, t, t) of each block, first block first.

        The attention is a constant: no gradient goes through it, so training keeps none of it; gradients go through
        the fused kernels. `rollout.rollout_rows` takes the result, 1 / heads of that of `with_attention`.

        Args:
            images: (b, c, h, w).
            scales: whose class tokens stand before the patches.
            seen: (b, rows, cols) bool, patches that may be attended to; all where None.
        """
        x, layers, seen = self.embed(images, scales), [], _with_classes(seen, len(scales))
        for block in self.blocks:
            x, attention = block.with_mean_matrix(x, seen)
            layers.append(attention)
        return self.norm(x), tuple(layers)

    def tokens(self, images: Tensor, scales: Sequence[int] = (0,), seen: Tensor | None = None) -> Tensor:
        """Return all normalised tokens (b, t, d), fused throughout; arguments as in `with_mean_attention`."""
        x, seen = self.embed(images, scales), _with_classes(seen, len(scales))
        for block in self.blocks:
            x = block(x, seen)
        out: Tensor = self.norm(x)
        return out

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        if self.positions.shape[-2:] == grid:
            return self.positions
        return functional.interpolate(self.positions, grid, mode="bicubic", align_corners=False)


def _with_classes(seen: Tensor | None, count: int) -> Tensor | None:
    """Return the patches (b, rows, cols) that may be attended to as tokens (b, t); class tokens always may be."""
    return None if seen is None else functional.pad(seen.flatten(1), (count, 0), value=True)


FIRST = 24
"""Channels after the first convolution; each further one has twice as many."""


STEMS = ("linear", "conv")
"""How patches become tokens: by one linear map, or by `ConvStem`."""


class ConvStem(nn.Sequential):
    """A strided convolution for each prime factor of the patch, (b, c, h, w) -> (b, d, h / patch, w / patch).

    For `embed_patches` of `VisionTransformer`. The field of each convolution is centred on its cell, so that of a token
    is centred on its patch; with the usual odd kernels it would lie almost half a patch up and left. The last layer is
    a linear map of each token. Normalisation is over the channels of each pixel, so a single image in a batch trains as
    well as many. Sides are multiples of the patch.

    Args:
        channels: c, channels of the images.
        dim: d, channels of the tokens.
        patch: pixels along a side of a patch, at least 2.
    """

    def __init__(self, channels: int, dim: int, patch: int) -> None:
        layers: list[nn.Module] = []
        width = channels
        for number, stride in enumerate(_factors(patch)):
            wider, margin = min(dim, FIRST * 2**number), stride // 2
            layers += [nn.Conv2d(width, wider, stride + 2 * margin, stride, margin), ChannelNorm(wider), nn.GELU()]
            width = wider
        super().__init__(*layers, nn.Conv2d(width, dim, 1))


def _factors(number: int) -> list[int]:
    """Return the prime factors, the smallest first.

    Raises:
        ValueError: the number is below 2.
    """
    if number < 2:
        raise ValueError(f"a convolutional stem needs patches of 2 pixels at least, got {number}")
    found, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1
    return found
