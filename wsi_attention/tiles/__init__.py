"""Coordinates to pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_attention.lazy import on_first_use

if TYPE_CHECKING:
    from wsi_attention.tiles.source import SlideSource
    from wsi_attention.tiles.tensors import TensorSource

__all__ = [
    "SlideSource",
    "TensorSource",
]
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "SlideSource": "source",
        "TensorSource": "tensors",
    },
)
