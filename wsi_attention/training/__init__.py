"""Labelled slides to a model folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_attention.lazy import on_first_use

if TYPE_CHECKING:
    from wsi_attention.training.run import train

__all__ = [
    "train",
]
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "train": "run",
    },
)
