"""The published methods: a paper is a folder, or a file where that is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_attention.lazy import on_first_use

if TYPE_CHECKING:
    from wsi_attention.methods.method import Method

__all__ = ["Method"]
__getattr__, __dir__ = on_first_use(__name__, {"Method": "method"})
