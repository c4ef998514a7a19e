"""Trainable blocks; parts are passed in. What is listed here is for methods of other packages too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_attention.lazy import on_first_use

if TYPE_CHECKING:
    from wsi_attention.nn.encoders import TileEncoder
    from wsi_attention.nn.preprocess import Normalise, PixelOptions

__all__ = ["Normalise", "PixelOptions", "TileEncoder"]
__getattr__, __dir__ = on_first_use(
    __name__, {"Normalise": "preprocess", "PixelOptions": "preprocess", "TileEncoder": "encoders"}
)
