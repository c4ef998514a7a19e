"""wsi-attention for LazySlide and wsidata: attention on a `WSIData`, and slides read either way.

Importing it makes the reader "wsi-attention" known to wsidata: `open_wsi(path, reader="wsi-attention")`.
"""

from __future__ import annotations

from wsi_attention_lazyslide import tl
from wsi_attention_lazyslide.reader import WsiAttentionReader
from wsi_attention_lazyslide.slides import as_slide

__version__ = "0.1.0"
__all__ = ["WsiAttentionReader", "as_slide", "tl"]
