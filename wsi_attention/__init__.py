"""wsi-attention: a slide label, with the regions it rests on, from the few tiles that attention asks for.

Public names load on first use; importing the package imports no torch and no slide reader.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsi_attention.checkpoint import Classifier, load_model
    from wsi_attention.errors import WsiAttentionError
    from wsi_attention.inference.predict import predict
    from wsi_attention.slide.slide import Slide, open_slide
    from wsi_attention.slide.view import View
    from wsi_attention.structures import AttentionMap, Glimpse, Prediction, TileSet, TissueMask
    from wsi_attention.tiles.source import SlideSource, TensorSource

_HOMES = {
    "AttentionMap": "structures",
    "Classifier": "checkpoint",
    "Glimpse": "structures",
    "Prediction": "structures",
    "Slide": "slide.slide",
    "SlideSource": "tiles.source",
    "TensorSource": "tiles.source",
    "TileSet": "structures",
    "TissueMask": "structures",
    "View": "slide.view",
    "WsiAttentionError": "errors",
    "load_model": "checkpoint",
    "open_slide": "slide.slide",
    "predict": "inference.predict",
}

__version__ = "0.1.0"
__all__ = [
    "AttentionMap",
    "Classifier",
    "Glimpse",
    "Prediction",
    "Slide",
    "SlideSource",
    "TensorSource",
    "TileSet",
    "TissueMask",
    "View",
    "WsiAttentionError",
    "load_model",
    "open_slide",
    "predict",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'wsi_attention' has no attribute {name!r}")
    value = getattr(import_module(f"wsi_attention.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
