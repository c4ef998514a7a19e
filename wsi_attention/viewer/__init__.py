"""A local viewer of a results folder: the slide itself, with attention and the tiles that were read on top."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_attention.lazy import on_first_use

if TYPE_CHECKING:
    from wsi_attention.viewer.content import Content
    from wsi_attention.viewer.library import Library
    from wsi_attention.viewer.server import Server

__all__ = [
    "Content",
    "Library",
    "Server",
]
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "Content": "content",
        "Library": "library",
        "Server": "server",
    },
)
