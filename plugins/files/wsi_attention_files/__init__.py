"""Files of TRIDENT, CLAM, WSInfer and STAMP: coordinates and features in HDF5, read and written.

Public names load on first use; reading and writing files imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_attention.bags import DIALECTS, Bag, read_bag, write_bag
    from wsi_attention_files.convert import Refused, read_folder, write_results
    from wsi_attention_files.masks import contours_of, tissue_of, write_mask
    from wsi_attention_files.model_config import ModelConfig, read_model_config, recipe
    from wsi_attention_files.results import bag_of, bags_of_results, with_features

_HOMES = {
    "DIALECTS": "wsi_attention.bags",
    "Bag": "wsi_attention.bags",
    "ModelConfig": "wsi_attention_files.model_config",
    "Refused": "wsi_attention_files.convert",
    "bag_of": "wsi_attention_files.results",
    "bags_of_results": "wsi_attention_files.results",
    "contours_of": "wsi_attention_files.masks",
    "read_bag": "wsi_attention.bags",
    "read_folder": "wsi_attention_files.convert",
    "read_model_config": "wsi_attention_files.model_config",
    "recipe": "wsi_attention_files.model_config",
    "tissue_of": "wsi_attention_files.masks",
    "with_features": "wsi_attention_files.results",
    "write_bag": "wsi_attention.bags",
    "write_mask": "wsi_attention_files.masks",
    "write_results": "wsi_attention_files.convert",
}

__all__ = [
    "DIALECTS",
    "Bag",
    "ModelConfig",
    "Refused",
    "bag_of",
    "bags_of_results",
    "contours_of",
    "read_bag",
    "read_folder",
    "read_model_config",
    "recipe",
    "tissue_of",
    "with_features",
    "write_bag",
    "write_mask",
    "write_results",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'wsi_attention_files' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
