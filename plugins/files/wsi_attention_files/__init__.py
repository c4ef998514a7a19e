"""Files of TRIDENT, CLAM, WSInfer and STAMP: coordinates and features in HDF5, read and written."""

from wsi_attention_files.bag import Bag
from wsi_attention_files.convert import Refused, read_folder, write_results
from wsi_attention_files.dialects import DIALECTS, read_bag, write_bag
from wsi_attention_files.masks import contours_of, tissue_of, write_mask
from wsi_attention_files.model_config import ModelConfig, read_model_config, recipe
from wsi_attention_files.results import bag_of, bags_of_results, with_features

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
