"""Files of TRIDENT, CLAM, WSInfer and STAMP: coordinates and features in HDF5, read and written.

Public names load on first use; reading and writing files imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_attention_files.bag import Bag
    from wsi_attention_files.convert import Refused, read_folder, write_results
    from wsi_attention_files.dialects import DIALECTS, read_bag, write_bag
    from wsi_attention_files.masks import contours_of, tissue_of, write_mask
    from wsi_attention_files.model_config import ModelConfig, read_model_config, recipe
    from wsi_attention_files.results import bag_of, bags_of_results, with_features

_HOMES = {
    "DIALECTS": "dialects",
    "Bag": "bag",
    "ModelConfig": "model_config",
    "Refused": "convert",
    "bag_of": "results",
    "bags_of_results": "results",
    "contours_of": "masks",
    "read_bag": "dialects",
    "read_folder": "convert",
    "read_model_config": "model_config",
    "recipe": "model_config",
    "tissue_of": "masks",
    "with_features": "results",
    "write_bag": "dialects",
    "write_mask": "masks",
    "write_results": "convert",
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
    value = getattr(import_module(f"wsi_attention_files.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
