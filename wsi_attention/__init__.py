"""wsi-attention: a slide label, with the regions it rests on, from the few tiles that attention asks for.

Public names load on first use; importing the package imports no torch and no slide reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_attention.lazy import on_first_use

if TYPE_CHECKING:
    from wsi_attention.checkpoint import Classifier, load_model
    from wsi_attention.config import Recipe
    from wsi_attention.errors import WsiAttentionError
    from wsi_attention.evaluation.evaluation import Evaluation, evaluate
    from wsi_attention.export.table import interval
    from wsi_attention.geometry import Grid
    from wsi_attention.inference.batch.classify import classify
    from wsi_attention.inference.batch.summary import Report
    from wsi_attention.inference.cluster.open import open_cluster
    from wsi_attention.inference.features import tile_features
    from wsi_attention.inference.predict import predict
    from wsi_attention.inference.results.export_again import export_results
    from wsi_attention.slide.slide import Slide, open_slide
    from wsi_attention.slide.view import View
    from wsi_attention.structures import AttentionMap, Counters, Glimpse, Prediction, TileSet, TissueMask
    from wsi_attention.tiles.source import SlideSource
    from wsi_attention.tiles.tensors import TensorSource
    from wsi_attention.training.run import TrainingResult, train

__version__ = "0.1.0"
__all__ = [
    "AttentionMap",
    "Classifier",
    "Counters",
    "Evaluation",
    "Glimpse",
    "Grid",
    "Prediction",
    "Recipe",
    "Report",
    "Slide",
    "SlideSource",
    "TensorSource",
    "TileSet",
    "TissueMask",
    "TrainingResult",
    "View",
    "WsiAttentionError",
    "classify",
    "evaluate",
    "export_results",
    "interval",
    "load_model",
    "open_cluster",
    "open_slide",
    "predict",
    "tile_features",
    "train",
]
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "AttentionMap": "structures",
        "Classifier": "checkpoint",
        "Counters": "structures",
        "Evaluation": "evaluation.evaluation",
        "Glimpse": "structures",
        "Grid": "geometry",
        "Prediction": "structures",
        "Recipe": "config",
        "Report": "inference.batch.summary",
        "Slide": "slide.slide",
        "SlideSource": "tiles.source",
        "TensorSource": "tiles.tensors",
        "TileSet": "structures",
        "TissueMask": "structures",
        "TrainingResult": "training.run",
        "View": "slide.view",
        "WsiAttentionError": "errors",
        "classify": "inference.batch.classify",
        "evaluate": "evaluation.evaluation",
        "export_results": "inference.results.export_again",
        "interval": "export.table",
        "load_model": "checkpoint",
        "open_cluster": "inference.cluster.open",
        "open_slide": "slide.slide",
        "predict": "inference.predict",
        "tile_features": "inference.features",
        "train": "training.run",
    },
)
