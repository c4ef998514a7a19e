"""Which cells lie around which: what a tile is seen with, and where growing goes next."""

from __future__ import annotations

import math

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


def next_cells(
    telling: Tensor,
    cells: Tensor,
    attention: Tensor,
    shape: tuple[int, int],
    side: int,
    most: int,
    explore: float = 0.0,
) -> Tensor:
    """Return the unread cells with the largest weight to be expected, (b, m), the largest first.

    What an unread tile will show is not known, so that it is taken to tell as much as the most telling tile whose block
    it lies in: its weight is expected to be its own attention times that tile's gate. Where no tile of its block was
    read, that gate is `explore` times the median gate of all tiles that were read, 1 at most, and of such cells no two
    are returned that lie in one another's block.

    Args:
        telling: (b, n) log ω of each tile that was read, -inf where one tells nothing.
        cells: (b, n) where they lie, flat.
        attention: (b, K) of all cells, 0 beyond the tissue.
        shape: (rows, cols) of the grid, K = rows · cols.
        side: of a block, odd.
        most: m at most; fewer where some image has fewer such cells.
        explore: the factor; with 0 only cells around tiles that were read are returned.
    """
    log_a = attention.detach().log()
    gates = torch.full_like(log_a, -torch.inf).scatter(1, cells, telling.detach().to(log_a))
    expected = _best_around(gates, shape, side) + log_a
    if explore:
        far = _best_around(torch.zeros_like(log_a).scatter(1, cells, 1.0), shape, side) == 0
        hoped = (log_a + _hope(telling.detach().to(log_a), explore)).where(far, -torch.inf)
        expected = torch.where(far, _apart(hoped, shape, side, most), expected)
    expected = expected.scatter(1, cells, -torch.inf)
    m = min(most, int((expected > -torch.inf).sum(dim=-1).min()))
    return expected.sort(dim=-1, descending=True, stable=True).indices[:, :m]


def _hope(telling: Tensor, explore: float) -> Tensor:
    """Return log (`explore` · the median gate), (b, 1), 0 at most; 0 where no tile tells anything."""
    median = telling.where(telling > -torch.inf, torch.nan).nanmedian(dim=1, keepdim=True).values
    return (median + math.log(explore)).nan_to_num(0.0).clamp(max=0.0)


def _best_around(values: Tensor, shape: tuple[int, int], side: int) -> Tensor:
    """Return the largest value of each cell's block, (b, K)."""
    return functional.max_pool2d(values.view(-1, 1, *shape), side, 1, side // 2).flatten(1)


def _apart(values: Tensor, shape: tuple[int, int], side: int, most: int) -> Tensor:
    """Keep the largest values (b, K), so many at most, no two in one another's block; all others become -inf."""
    left = functional.pad(values, (0, 1), value=-torch.inf)  # `blocks` calls what is beyond the grid K
    kept = torch.full_like(values, -torch.inf)
    for _ in range(most):
        cell = left.argmax(dim=1, keepdim=True)
        best = left.gather(1, cell)
        if not (best > -torch.inf).any():
            break
        kept.scatter_reduce_(1, cell, best, "amax")
        left.scatter_(1, blocks(cell, shape, side).flatten(1), -torch.inf)
    return kept
