"""Masks as TIAToolbox knows them, as our tissue mask."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiatoolbox.wsicore.wsireader import VirtualWSIReader

from wsi_attention import TissueMask
from wsi_attention.errors import InputError, NoTissueError
from wsi_attention.slide import load_mask

MAX_PIXELS = 4_000_000


def tissue_of(mask: Any, extent: tuple[int, int], *, everywhere: bool = False) -> TissueMask | None:
    """A mask stretched over the whole slide; what is not 0 is tissue.

    Args:
        mask: a path, an array (h, w) or (h, w, c), a reader such as `WSIReader.tissue_mask` gives, or None.
        extent: (w, h) of the slide in level-0 pixels.
        everywhere: what None means: the whole slide, or tissue found by wsi-attention.

    Raises:
        InputError: the mask is no such thing.
        NoTissueError: it marks nothing.
    """
    if mask is None:
        return _stretched(np.ones((64, 64), np.bool_), extent, "everywhere") if everywhere else None
    if isinstance(mask, str | Path):
        return load_mask(mask, extent)
    pixels = np.asarray(mask.img if isinstance(mask, VirtualWSIReader) else mask)
    if pixels.ndim not in {2, 3} or 0 in pixels.shape or pixels.dtype == object:
        raise InputError(f"a mask is a path, an array (h, w) or a mask reader, got {type(mask).__name__}")
    marked = pixels != 0 if pixels.ndim == 2 else (pixels != 0).any(axis=-1)
    if not marked.any():
        raise NoTissueError("the mask marks no tissue, every pixel is 0")
    return _stretched(marked, extent, "mask array")


def _stretched(marked: NDArray[np.bool_], extent: tuple[int, int], source: str) -> TissueMask:
    height, width = marked.shape
    least = math.sqrt(extent[0] * extent[1] / MAX_PIXELS)
    downsample = max(1.0, least, min(extent[0] / width, extent[1] / height))
    rows, columns = math.ceil(extent[1] / downsample), math.ceil(extent[0] / downsample)
    row = ((np.arange(rows) + 0.5) * downsample * height / extent[1]).astype(np.int64)
    column = ((np.arange(columns) + 0.5) * downsample * width / extent[0]).astype(np.int64)
    picked = marked[np.minimum(row, height - 1)[:, None], np.minimum(column, width - 1)]
    return TissueMask(picked, downsample, source)
