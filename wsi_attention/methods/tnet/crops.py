"""TNet's grid of overlapping crops: where they lie, the integer position of each, and how positions are encoded.

docs/methods/tnet.md §2.2 and §2.4. Cells of an n × n grid are numbered row by row.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from wsi_attention.errors import InputError


class CropGrid(NamedTuple):
    """Where overlapping crops lie along one axis: crop i starts at i · stride − before and is `patch` long.

    Attributes:
        patch: length of a crop, in pixels of the parent.
        stride: distance from one crop to the next.
        before: padding in front; the first crop starts this far outside the parent.
        after: padding behind.
    """

    patch: int
    stride: int
    before: int
    after: int


def crop_grid(size: int, overlap: float, n: int) -> CropGrid:
    """Return the grid of n crops along an axis (docs/methods/tnet.md §2.2); each level magnifies by 1 / overlap.

    The crops cover the axis if n · patch ≥ S. With o · n ≥ 1 that holds, except for the rounding: at o · n = 1 a patch
    that was rounded down leaves a pixel between crops (S = 77, o = 0.5, n = 2). None of the published grids does.

    Args:
        size: S, length of the parent in pixels.
        overlap: o, length of a crop over that of its parent; siblings overlap where o · n > 1.
        n: crops along the axis, at least 2.

    Raises:
        InputError: n or overlap is out of range.
    """
    if n < 2 or not 0 < overlap <= 1:
        raise InputError(f"a crop grid needs n >= 2 crops of a share in (0, 1], got n={n}, overlap={overlap}")
    patch = round(overlap * size)
    stride = -(-(size - patch) // (n - 1))
    total = (n - 1) * stride + patch - size
    return CropGrid(patch, stride, -(-total // 2), total // 2)


def crop_grids(side: int, smallest: int, overlap: float, n: int, levels: int) -> tuple[CropGrid, ...]:
    """Return the grids from the overview down, each over a crop of the one before; the same along x and y.

    No crop is smaller than `smallest`, so that none is enlarged: where o · S is less, siblings overlap more. The list
    ends early where a region is that small already, because it has been seen at the finest scale.

    Args:
        side: side of the overview, in level-0 pixels.
        smallest: level-0 pixels that a region needs to fill its view at the finest scale.
        overlap: o.
        n: crops along an axis.
        levels: of regions, the overview not counted.
    """
    grids: list[CropGrid] = []
    while len(grids) < levels and side > smallest:
        grids.append(crop_grid(side, max(overlap, smallest / side), n))
        side = grids[-1].patch
    return tuple(grids)


def overlaps(starts: Tensor, length: float, step: float, cells: int, end: float = math.inf) -> Tensor:
    """Return how much of [start, start + length) lies in each cell [i · step, (i + 1) · step), in cells.

    Args:
        starts: (...) starts of intervals.
        length: length of every interval.
        step: length of a cell.
        cells: number of cells, from 0 on.
        end: where the last cell is cut off.

    Returns:
        (..., cells) float64 in [0, 1].
    """
    edges = (torch.arange(cells + 1, dtype=torch.float64, device=starts.device) * step).clamp(max=end)
    low = starts.double().unsqueeze(-1)
    inside = torch.minimum(edges[1:], low + length) - torch.maximum(edges[:-1], low)
    return inside.clamp(min=0.0) / step


def crop_means(maps: Tensor, grid: CropGrid, side: int, n: int) -> Tensor:
    """Return φ, the mean of a feature map over each crop: cell and crop are the same place (docs/methods/tnet.md §5).

    The paper takes every second or fourth position of the map instead; their receptive fields match its crops roughly.

    Args:
        maps: (b, c, h, w) over square regions.
        grid: where the crops lie.
        side: side of a region in the grid's pixels.
        n: crops along an axis.

    Returns:
        (b, c, n, n).
    """
    starts = torch.arange(n, device=maps.device) * grid.stride - grid.before
    rows, columns = (overlaps(starts, grid.patch, side / size, size) for size in maps.shape[-2:])
    rows, columns = (share / share.sum(dim=-1, keepdim=True) for share in (rows, columns))
    return rows.to(maps.dtype) @ maps @ columns.to(maps.dtype).mT


def child_locations(parents: Tensor, cells: Tensor, grid: tuple[CropGrid, CropGrid], n: int) -> Tensor:
    """Return the top left corners of the attended crops, in the pixels of the grid (level 0 on a slide).

    Args:
        parents: (b, 2) int64 (x, y), top left corners of the parent regions.
        cells: (b, k) int64 flat cells of the n × n grid.
        grid: crop grids along x and y.
        n: cells along an axis.

    Returns:
        (b, k, 2) int64 (x, y); up to the padding outside the image.
    """
    column_row = torch.stack([cells % n, cells // n], dim=-1)
    stride = torch.tensor([axis.stride for axis in grid], device=cells.device)
    before = torch.tensor([axis.before for axis in grid], device=cells.device)
    return parents.unsqueeze(-2) + column_row * stride - before


def child_positions(parents: Tensor, cells: Tensor, n: int) -> Tensor:
    """Return (y·n + gy, x·n + gx, s + 1) of the attended cells; the overview has (0, 0, 0) (docs/methods/tnet.md §2.4).

    Args:
        parents: (b, 3) int64 (y, x, s).
        cells: (b, k) int64 flat cells.
        n: cells along an axis.

    Returns:
        (b, k, 3) int64.
    """
    y, x, scale = parents.unsqueeze(-1).unbind(dim=-2)
    return torch.stack([y * n + cells // n, x * n + cells % n, (scale + 1).expand(cells.shape)], dim=-1)


def positional_encoding(positions: Tensor, channels: int) -> Tensor:
    """Return sines, then cosines, of y, then of x, then of the scale, at q = channels // 6 frequencies each.

    docs/methods/tnet.md §2.4: ω_i = 100^(−i/(q−1)) from 1 down to 0.01; a single frequency is 1. Channels that are left
    over stay 0.

    Args:
        positions: (..., 3) (y, x, s).
        channels: c, at least 6.

    Returns:
        (..., c) float32.
    """
    q = channels // 6
    omega = 100.0 ** -(torch.arange(q, dtype=torch.float64, device=positions.device) / max(q - 1, 1))
    angles = positions.double().unsqueeze(-1) * omega
    encoding = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2).float()
    return functional.pad(encoding, (0, channels - 6 * q))
