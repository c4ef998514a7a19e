"""Tissue of which no pixels are in the file, counted without reading any."""

from __future__ import annotations

import numpy as np

from wsi_attention.geometry import Grid
from wsi_attention.slide.slide import Slide
from wsi_attention.structures import TissueMask

ASKED = 4096
"""Stored tiles that are asked for at most; of more, so many are chosen evenly."""
TISSUE = 0.25
"""Share of a stored tile that must be tissue: writers leave out tiles of glass, sometimes with a rim of tissue."""


def missing_tissue(slide: Slide, mask: TissueMask, downsample: float) -> float:
    """Return the share of the stored tiles with tissue that are not in the file, at the level that is read.

    0 where that is not known before reading.

    Args:
        slide: open.
        mask: where there is tissue.
        downsample: that is read at, in level-0 pixels per pixel.
    """
    level = slide.best_level(downsample)
    tile, stored = slide.facts.tile_sizes[level], slide.level_downsamples[level]
    if tile is None or not slide.holes_known(level):
        return 0.0
    cols, rows = (-(-side // step) for side, step in zip(slide.level_dimensions[level], tile, strict=True))
    grid = Grid(rows, cols, (tile[0] * stored, tile[1] * stored))
    tissue = np.argwhere(mask.fraction(grid) >= TISSUE)[:, ::-1]
    chosen = tissue[np.linspace(0, len(tissue) - 1, min(len(tissue), ASKED)).astype(int)]
    return float(slide.absent(level, chosen).mean()) if len(chosen) else 0.0
