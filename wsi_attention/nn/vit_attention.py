"""Attention matrices of a timm vision transformer on request; the forward pass itself keeps its fused kernels.

Queries and keys are computed a second time from the input of each attention layer, so the output of the network stays
the same to the last bit. Axes: b images, t tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol, cast

from torch import Tensor, nn

from wsi_attention.errors import InputError
from wsi_attention.nn.vit import softmax_rows

KIND = "Attention"
"""Class name of timm's plain attention; relative positions, windows and rotations have others, or other parts."""
PARTS = ("qkv", "q_norm", "k_norm", "num_heads", "scale")


class PlainAttention(Protocol):
    """What is used of timm's plain attention: its `PARTS`."""

    qkv: nn.Module
    q_norm: nn.Module
    k_norm: nn.Module
    num_heads: int
    scale: float


def with_attention(encoder: nn.Module, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the encoder's output, and the attention (b, heads, t, t) of each layer, first layer first.

    This takes memory for heads · t² values per layer and image. `rollout.rollout` takes the result, which
    carries gradients unless the encoder is frozen.

    Args:
        encoder: a timm vision transformer, or a wrapper around one.
        images: (b, c, h, w), normalised.

    Raises:
        InputError: the encoder has no plain attention layers.
    """
    return _watched(encoder, images, _matrix)


def with_class_rows(encoder: nn.Module, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the encoder's output, and the class token's attention in each layer (b, heads, t): one row per head.

    Args:
        encoder: a timm vision transformer with a class token, or a wrapper around one.
        images: (b, c, h, w), normalised.

    Raises:
        InputError: the encoder has no plain attention layers, or no class token.
    """
    if not any(getattr(part, "cls_token", None) is not None for part in encoder.modules()):
        raise InputError("this encoder has no class token, so no row of its attention is the class token's")
    return _watched(encoder, images, _class_row)


def _watched(
    encoder: nn.Module, images: Tensor, wanted: Callable[[PlainAttention, Tensor], Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    layers = [part for part in encoder.modules() if _plain(part)]
    if not layers:
        raise InputError("this encoder has no plain self-attention, as timm's vision transformers have")
    found: list[Tensor] = []

    def look(layer: nn.Module, given: tuple[object, ...], named: dict[str, object]) -> None:
        x, *others = given
        if any(value is not None and value is not False for value in (*others, *named.values())):
            raise InputError("this encoder masks its attention, so its attention matrices are not known")
        assert isinstance(x, Tensor)
        found.append(wanted(cast(PlainAttention, layer), x))

    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(layer.register_forward_pre_hook(look, with_kwargs=True))
        out: Tensor = encoder(images)
    return out, tuple(found)


def _plain(part: nn.Module) -> bool:
    return type(part).__name__ == KIND and all(hasattr(part, name) for name in PARTS)


def _matrix(layer: PlainAttention, x: Tensor) -> Tensor:
    query, key = _query_and_key(layer, x)
    return softmax_rows(query @ key.mT)


def _class_row(layer: PlainAttention, x: Tensor) -> Tensor:
    query, key = _query_and_key(layer, x)
    return softmax_rows(query[:, :, :1] @ key.mT).squeeze(-2)


def _query_and_key(layer: PlainAttention, x: Tensor) -> tuple[Tensor, Tensor]:
    mixed = layer.qkv(x).reshape(*x.shape[:2], 3, layer.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key = layer.q_norm(mixed[0]), layer.k_norm(mixed[1])
    return query * layer.scale, key
