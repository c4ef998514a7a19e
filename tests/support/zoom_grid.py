"""The coordinates of the Zoom-In paper, and the pixels that its reads cost; the model has cell centres instead.

Kong & Henao, CVPR 2022, https://arxiv.org/abs/2106.02694; docs/methods/zoom_in.md §2. In the paper the first and last
cells lie on the corners of the image; here and in ATS cells have centres (`geometry.Grid.centres`).
"""

from __future__ import annotations

import torch
from torch import Tensor


def tile_centres(cells: Tensor, count: int, size: int) -> Tensor:
    """Return the centre of cell k along one axis: k·(W − 1) // (w − 1), and (W − 1) // 2 where there is one cell.

    docs/methods/zoom_in.md §2. The first cell lies on 0, the last on W − 1. In whole numbers, because a float may round
    a corner down by one.

    Args:
        cells: (...) int64, k in 0 … count − 1.
        count: w, cells along the axis.
        size: W, pixels along the axis.
    """
    if count == 1:
        return torch.full_like(cells, (size - 1) // 2)
    return cells * (size - 1) // (count - 1)


def tile_starts(centres: Tensor, tile: int) -> Tensor:
    """Return the starts of tiles of the given length; the first one starts tile // 2 outside, in the zero padding.

    Args:
        centres: (...) int64, from `tile_centres`.
        tile: h1 or w1 in pixels; at least the length of a coarse cell, or the tiles leave gaps.
    """
    return centres - tile // 2


def pixels_read(
    extent: tuple[int, int],
    overview: float,
    tiles: tuple[int, tuple[int, int], float],
    subtiles: tuple[int, tuple[int, int]],
) -> float:
    """Return s1²·HW + N'·s2²·h1·w1 + N·h2·w2: pixels of the overview, views of visited tiles, and sub-tiles.

    docs/methods/zoom_in.md §2. The paper has the middle view as s1·s2 of the image; at scale s2 it is s2 of the tile.

    Args:
        extent: (w, h) of the image.
        overview: s1.
        tiles: number N' of distinct tiles, their (w, h) in image pixels, and s2.
        subtiles: number of sub-tiles that were read, and their (w, h).
    """
    (distinct, tile, scale), (read, subtile) = tiles, subtiles
    views = distinct * scale**2 * tile[0] * tile[1]
    return overview**2 * extent[0] * extent[1] + views + read * subtile[0] * subtile[1]
