"""wsi-attention in MONAI: a transform, its dictionary twin, and the parts of a bundle."""

from wsi_attention_monai.bundle import FolderEvaluator, SlideNetwork, slides_in
from wsi_attention_monai.patches import patches_of
from wsi_attention_monai.transforms import AttentionClassify, AttentionClassifyd, AttentionClassifyDict

__all__ = [
    "AttentionClassify",
    "AttentionClassifyDict",
    "AttentionClassifyd",
    "FolderEvaluator",
    "SlideNetwork",
    "patches_of",
    "slides_in",
]
