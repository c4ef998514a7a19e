"""Draws that are spread over the tissue: chances in proportion to attention, and no two draws close without need.

Systematic sampling with unequal chances (Madow, "On the theory of systematic sampling, II", Annals of Mathematical
Statistics, 1949) along a space-filling curve, which keeps neighbours together (as in Stevens & Olsen, "Spatially
balanced sampling of natural resources", Journal of the American Statistical Association, 2004). A cluster of cells that
holds 1 / n of the attention is met by one of n draws or nearly so, where independent draws miss it in a third of all
cases. docs/methods/grow.md §2.1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor


class Spread(NamedTuple):
    """Cells that were drawn, (b, n) int64 flat indices, all different, and the chance of each, (b, n) float64."""

    cells: Tensor
    chance: Tensor


def draw_balanced(attention: Tensor, n: int, shape: tuple[int, int], generator: Generator | None = None) -> Spread:
    """Draw n different cells of each image, spread along a curve through the grid.

    The chances (see `chances`) are laid end to end along the curve, which makes a line of length n; one cell is taken
    at u, 1 + u, 2 + u, ..., with a single random u in [0, 1) an image.

    Args:
        attention: (b, K), not negative; rows need not sum to 1.
        n: cells an image, at least 1.
        shape: (rows, cols) of the grid, K = rows · cols.
        generator: of u; torch's global one where None. On the generator's device, so that a CPU generator draws the
            same cells on any device.

    Raises:
        ValueError: n is below 1, or above the number of cells with attention above 0 in some image.
    """
    order = torch.from_numpy(curve(*shape)).to(attention.device)
    chance = chances(attention, n)[:, order]
    device = generator.device if generator is not None else torch.device("cpu")
    u = torch.rand((len(attention), 1), dtype=torch.float64, generator=generator, device=device).to(attention.device)
    line = chance.cumsum(dim=-1)
    last = torch.searchsorted(line, line[:, -1:].contiguous())
    at = torch.searchsorted(line, u + torch.arange(n, device=line.device), right=True).minimum(last)
    return Spread(order[at], chance.gather(1, at))


def chances(attention: Tensor, n: int) -> Tensor:
    """Return (b, K) float64, the chance of each cell to be among n drawn ones: in proportion to attention, at most 1.

    A cell with more than 1 / n of what is left is certain; the others share the draws that remain. Rows sum to n.

    Args:
        attention: (b, K), not negative.
        n: cells an image.

    Raises:
        ValueError: n is below 1, or above the number of cells with attention above 0 in some image.
    """
    a = attention.detach().double()
    fewest = int((a > 0).sum(dim=-1).min()) if a.numel() else 0
    if not 1 <= n <= fewest:
        raise ValueError(f"asked for {n} different cells where an image has {fewest} with attention above 0")
    highest = a.sort(dim=-1, descending=True).values
    below = highest.flip(-1).cumsum(dim=-1).flip(-1)
    draws_left = n - torch.arange(a.shape[-1], device=a.device)
    certain = ((draws_left > 0) & (draws_left * highest >= below)).cumprod(dim=-1).sum(dim=-1, keepdim=True)
    rest = below.gather(1, certain.clamp(max=a.shape[-1] - 1))
    scaled = (n - certain) * a / rest.clamp(min=torch.finfo(torch.float64).tiny)
    least = highest.gather(1, (certain - 1).clamp(min=0))
    return torch.where((certain > 0) & (a >= least), 1.0, scaled.clamp(max=1.0))


@lru_cache(maxsize=8)
def curve(rows: int, cols: int) -> NDArray[np.int64]:
    """Return the flat indices of all cells, (rows · cols), in the order in which a Hilbert curve visits them.

    The curve fills the smallest square of a power of two around the grid; cells beyond the grid are left out.

    Args:
        rows, cols: of the grid, at least 1.
    """
    side = 1 << max(rows - 1, cols - 1).bit_length()
    distance = np.arange(side * side)
    x, y, left = np.zeros_like(distance), np.zeros_like(distance), distance
    for step in (1 << power for power in range(side.bit_length() - 1)):
        right = 1 & (left // 2)
        up = 1 & (left ^ right)
        mirrored = (up == 0) & (right == 1)
        x, y = np.where(mirrored, step - 1 - x, x), np.where(mirrored, step - 1 - y, y)
        x, y = np.where(up == 0, y, x) + step * right, np.where(up == 0, x, y) + step * up
        left = left // 4
    inside = (x < cols) & (y < rows)
    return np.asarray(y[inside] * cols + x[inside], np.int64)
