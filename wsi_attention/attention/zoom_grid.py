"""Zoom-In's coordinates and what its reads cost.

Kong & Henao, CVPR 2022, https://arxiv.org/abs/2106.02694. Its rule hits both corners of the image; ATS takes the
centres of cells instead (`geometry.Grid.centres`). The two must not be mixed.
"""

from __future__ import annotations

import torch
from torch import Tensor


def tile_centres(cells: Tensor, count: int, size: int) -> Tensor:
    """Centre of cell k along one axis: k·(W − 1) // (w − 1), and (W − 1) // 2 where there is one cell (§2).

    The paper's rule, counted from 0: the first cell lies on 0, the last on W − 1. Whole numbers throughout, as a float
    may round a corner down by one.

    Args:
        cells: (...) int64, k in 0 … count − 1, along this axis.
        count: w, cells along the axis.
        size: W, pixels along the axis.
    """
    if count == 1:
        return torch.full_like(cells, (size - 1) // 2)
    return cells * (size - 1) // (count - 1)


def tile_starts(centres: Tensor, tile: int) -> Tensor:
    """Where tiles of the given length begin; the first begins tile // 2 outside, in the zero padding.

    Args:
        centres: (...) int64, from `tile_centres`.
        tile: h1 or w1 in pixels; at least one coarse cell long, else the tiles leave gaps.
    """
    return centres - tile // 2


def pixels_read(
    extent: tuple[int, int],
    overview: float,
    tiles: tuple[int, tuple[int, int], float],
    subtiles: tuple[int, tuple[int, int]],
) -> float:
    """s1²·HW + N'·s2²·h1·w1 + N·h2·w2: pixels of the overview, of the visited tiles' views, and of the sub-tiles.

    The paper writes the middle view as s1·s2 of the image; a view of a tile at scale s2 is s2 of the tile (§2).

    Args:
        extent: (w, h) of the image.
        overview: s1.
        tiles: N' distinct tiles, their (w, h) in image pixels, and s2.
        subtiles: how many were read, and their (w, h).
    """
    (distinct, tile, scale), (read, subtile) = tiles, subtiles
    views = distinct * scale**2 * tile[0] * tile[1]
    return overview**2 * extent[0] * extent[1] + views + read * subtile[0] * subtile[1]
