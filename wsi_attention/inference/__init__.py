"""Slides and a model to predictions, one or many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_attention.lazy import on_first_use

if TYPE_CHECKING:
    from wsi_attention.inference.batch.classify import Order, classify, run_batch
    from wsi_attention.inference.batch.discovery import find_slides
    from wsi_attention.inference.batch.names import suffix_of
    from wsi_attention.inference.batch.runners import ExecutorRunner, Runner
    from wsi_attention.inference.batch.summary import Report
    from wsi_attention.inference.batch.wishes import Wishes
    from wsi_attention.inference.cluster.open import open_cluster
    from wsi_attention.inference.effort import Effort
    from wsi_attention.inference.features import has_encoder, tile_features
    from wsi_attention.inference.results.export_again import export_again, export_results
    from wsi_attention.inference.results.page import write_page
    from wsi_attention.inference.results.state import stored_predictions
    from wsi_attention.inference.stored_features import encoder_name
    from wsi_attention.safe_names import safe_name

__all__ = [
    "Effort",
    "ExecutorRunner",
    "Order",
    "Report",
    "Runner",
    "Wishes",
    "classify",
    "encoder_name",
    "export_again",
    "export_results",
    "find_slides",
    "has_encoder",
    "open_cluster",
    "run_batch",
    "safe_name",
    "stored_predictions",
    "suffix_of",
    "tile_features",
    "write_page",
]
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "Effort": "effort",
        "ExecutorRunner": "batch.runners",
        "Order": "batch.classify",
        "Report": "batch.summary",
        "Runner": "batch.runners",
        "Wishes": "batch.wishes",
        "classify": "batch.classify",
        "encoder_name": "stored_features",
        "export_again": "results.export_again",
        "export_results": "results.export_again",
        "find_slides": "batch.discovery",
        "has_encoder": "features",
        "open_cluster": "cluster.open",
        "run_batch": "batch.classify",
        "safe_name": "batch.names",
        "stored_predictions": "results.state",
        "suffix_of": "batch.names",
        "tile_features": "features",
        "write_page": "results.page",
    },
)
