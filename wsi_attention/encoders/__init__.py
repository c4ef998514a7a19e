"""Encoders that others published: facts, files, and the networks themselves; `nn` makes encoders of tiles of them.

Every fact about a published encoder stands in `known.toml`, with where it comes from; other packages add theirs through
the entry points of the group `wsi_attention.encoders`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_attention.lazy import on_first_use

if TYPE_CHECKING:
    from wsi_attention.encoders.entry import Entry
    from wsi_attention.encoders.table import entries, entry_of

__all__ = ["Entry", "entries", "entry_of"]
__getattr__, __dir__ = on_first_use(__name__, {"Entry": "entry", "entries": "table", "entry_of": "table"})
