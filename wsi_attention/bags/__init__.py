"""Bags: the tiles of a slide, with an encoder's features, in the files of TRIDENT, CLAM, WSInfer, STAMP, LazySlide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_attention.lazy import on_first_use

if TYPE_CHECKING:
    from wsi_attention.bags.bag import Bag, check_on_slide
    from wsi_attention.bags.dialects import DIALECTS, read_bag, write_bag
    from wsi_attention.bags.folder import feature_files

__all__ = ["DIALECTS", "Bag", "check_on_slide", "feature_files", "read_bag", "write_bag"]
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "DIALECTS": "dialects",
        "Bag": "bag",
        "check_on_slide": "bag",
        "feature_files": "folder",
        "read_bag": "dialects",
        "write_bag": "dialects",
    },
)
