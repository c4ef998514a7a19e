"""Pixels out of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_attention.lazy import on_first_use

if TYPE_CHECKING:
    from wsi_attention.slide.resample import level_location, padded
    from wsi_attention.slide.slide import Slide, open_slide
    from wsi_attention.slide.tissue import load_mask
    from wsi_attention.slide.view import View

__all__ = [
    "Slide",
    "View",
    "level_location",
    "load_mask",
    "open_slide",
    "padded",
]
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "Slide": "slide",
        "View": "view",
        "level_location": "resample",
        "load_mask": "tissue",
        "open_slide": "slide",
        "padded": "resample",
    },
)
