"""wsi-attention for TIAToolbox: a step beside `PatchPredictor`, a `WSIReader`, and results as annotation stores."""

from __future__ import annotations

from wsi_attention_tiatoolbox.predictor import AttentionPredictor
from wsi_attention_tiatoolbox.reader import KeepsReader, WsiAttentionReader
from wsi_attention_tiatoolbox.store import to_store, unpack

__version__ = "0.1.0"
__all__ = ["AttentionPredictor", "KeepsReader", "WsiAttentionReader", "to_store", "unpack"]
