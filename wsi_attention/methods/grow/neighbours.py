"""Which cells lie around which: what a tile is seen with, and where growing goes next."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def blocks(cells: Tensor, shape: tuple[int, int], side: int) -> Tensor:
    """Return the cells of the block around each cell, (b, n, side²); beyond the grid rows·cols, the cell itself too.

    Args:
        cells: (b, n) flat indices.
        shape: (rows, cols) of the grid.
        side: of a block, odd.
    """
    rows, cols = shape
    reach = torch.arange(side, device=cells.device) - side // 2
    down = (cells // cols).unsqueeze(-1) + reach.repeat_interleave(side)
    right = (cells % cols).unsqueeze(-1) + reach.repeat(side)
    inside = (down >= 0) & (down < rows) & (right >= 0) & (right < cols)
    return torch.where(inside, down * cols + right, rows * cols)


def context(features: Tensor, cells: Tensor, valid: Tensor, shape: tuple[int, int], side: int) -> Tensor:
    """Return the mean feature of the tiles of each tile's block that were read, itself among them, (b, n, d).

    Args:
        features: (b, n, d).
        cells: (b, n) flat indices, all different.
        valid: (b, n) bool; tiles that could not be read count for nothing.
        shape: (rows, cols) of the grid.
        side: of a block, odd.
    """
    b, n = cells.shape
    place = torch.full((b, shape[0] * shape[1] + 1), -1, dtype=torch.int64, device=cells.device)
    order = torch.arange(n, device=cells.device).expand(b, n)
    place.scatter_(1, cells, torch.where(valid.to(cells.device), order, -1))
    total, count = torch.zeros_like(features), features.new_zeros(b, n, 1)
    for one in blocks(cells, shape, side).unbind(dim=-1):
        at = place.gather(1, one).to(features.device)
        there = (at >= 0).unsqueeze(-1).to(features.dtype)
        total = total + there * features.gather(1, at.clamp(min=0).unsqueeze(-1).expand_as(features))
        count = count + there
    return total / count.clamp(min=1.0)


def next_cells(telling: Tensor, cells: Tensor, tissue: Tensor, side: int, most: int) -> Tensor:
    """Return the unread cells of tissue around the most telling tiles, (b, m), those of the most telling one first.

    Args:
        telling: (b, n) what each tile that was read tells, -inf for one that tells nothing.
        cells: (b, n) where they lie, flat.
        tissue: (b, rows, cols) bool.
        side: of a block, odd.
        most: m at most; fewer where some image has fewer such cells.
    """
    value = torch.full((len(cells), tissue[0].numel()), -torch.inf, device=tissue.device)
    value = value.scatter(1, cells, telling.detach().to(value))
    near = functional.max_pool2d(value.view_as(tissue).unsqueeze(1), side, 1, side // 2).flatten(1)
    near = near.scatter(1, cells, -torch.inf).masked_fill(~tissue.flatten(1), -torch.inf)
    m = min(most, int((near > -torch.inf).sum(dim=-1).min()))
    return near.sort(dim=-1, descending=True, stable=True).indices[:, :m]
