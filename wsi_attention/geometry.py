"""Define the level-0 frame: boxes, regular grids, and the one place where µm per pixel becomes a downsample.

Locations are (x, y), top left, level-0 pixels, int64. Sizes are (w, h). Boxes are half-open.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MPP_TOLERANCE",
    "OVERVIEW_PIXELS",
    "Box",
    "Grid",
    "downsample_of",
    "same_scale",
    "shares_of_cells",
]

MPP_TOLERANCE = 0.05
"""Two scales within 5 % are one scale: 0.499 and 0.5 µm/px need no resampling."""

OVERVIEW_PIXELS = 4_000_000
"""The most pixels of an overview that is held whole. A model may ask for more, which is then seen in strips."""


Size = tuple[int, int]
"""(w, h)."""


class Box(NamedTuple):
    """A half-open rectangle [x, x + w) × [y, y + h) in level-0 pixels."""

    x: int
    y: int
    w: int
    h: int

    def clipped(self, width: int, height: int) -> Box:
        """Return the part of this box inside a width × height slide; an empty box where they do not meet."""
        left, top = min(max(self.x, 0), width), min(max(self.y, 0), height)
        right, bottom = min(max(self.x + self.w, 0), width), min(max(self.y + self.h, 0), height)
        return Box(left, top, max(right - left, 0), max(bottom - top, 0))


@dataclass(frozen=True)
class Grid:
    """A regular grid of rows × cols cells over level-0 pixels; cell (r, c) starts at origin + (c, r) · step.

    Attributes:
        rows: cells from top to bottom.
        cols: cells from left to right.
        step: (x, y) size of a cell in level-0 pixels; need not be whole.
        origin: (x, y) of the first cell's top left corner.
    """

    rows: int
    cols: int
    step: tuple[float, float]
    origin: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def covering(cls, extent: tuple[int, int], step: tuple[float, float]) -> Grid:
        """Return the smallest grid of the given step whose cells cover a (w, h) extent."""
        cols = max(1, int(np.ceil(extent[0] / step[0] - 1e-9)))
        rows = max(1, int(np.ceil(extent[1] / step[1] - 1e-9)))
        return cls(rows, cols, step)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.rows, self.cols

    def centres(self, cells: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the (x, y) centres of flat cell indices, shape (..., 2)."""
        rows, cols = np.divmod(np.asarray(cells, np.int64), self.cols)
        x = self.origin[0] + (cols + 0.5) * self.step[0]
        y = self.origin[1] + (rows + 0.5) * self.step[1]
        return np.stack([x, y], axis=-1)

    def locations(self, cells: NDArray[np.int64], size: tuple[int, int], downsample: float) -> NDArray[np.int64]:
        """Return top left corners of size · downsample tiles centred on cells (docs/methods/ats.md §2.3)."""
        half = np.array(size, np.float64) * downsample / 2
        return np.round(self.centres(cells) - half).astype(np.int64)

    def boxes(self) -> NDArray[np.int64]:
        """Return all cells as (x, y, w, h), row by row, in whole level-0 pixels without gaps, shape (rows·cols, 4)."""
        x = np.round(self.origin[0] + np.arange(self.cols + 1) * self.step[0]).astype(np.int64)
        y = np.round(self.origin[1] + np.arange(self.rows + 1) * self.step[1]).astype(np.int64)
        left, top = np.meshgrid(x[:-1], y[:-1])
        width, height = np.meshgrid(np.diff(x), np.diff(y))
        return np.stack([left, top, width, height], axis=-1).reshape(-1, 4)


def downsample_of(mpp: float, slide_mpp: float) -> float:
    """Return the level-0 pixels per output pixel for a wanted µm per pixel."""
    return mpp / slide_mpp


def same_scale(a: float, b: float, tolerance: float = MPP_TOLERANCE) -> bool:
    """Return True where two µm-per-pixel values or two downsamples differ by no more than the tolerance."""
    return abs(a / b - 1.0) <= tolerance


def shares_of_cells(mask: NDArray[np.bool_], downsample: float, grid: Grid) -> NDArray[np.float64]:
    """Return the share of each cell that a mask (h, w) covers, shape grid.shape, by summed areas.

    Args:
        mask: pixel (r, c) covers level-0 [c·downsample, (c+1)·downsample) × [r·downsample, …).
        downsample: level-0 pixels per mask pixel.
        grid: its cells may begin and end inside a mask pixel.
    """
    x = (grid.origin[0] + np.arange(grid.cols + 1, dtype=np.float64) * grid.step[0]) / downsample
    y = (grid.origin[1] + np.arange(grid.rows + 1, dtype=np.float64) * grid.step[1]) / downsample
    corners = _interpolate_rows(_summed_areas(mask, y).T, x).T
    inside = np.diff(np.diff(corners, axis=0), axis=1)
    cell = grid.step[0] * grid.step[1] / downsample**2
    return np.clip(inside / cell, 0.0, 1.0)


def _summed_areas(mask: NDArray[np.bool_], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (len(at), w + 1), the tissue above each row border and left of each column border of a mask (h, w).

    Only the rows of the whole table that `at` asks for are computed.
    """
    low = np.minimum(np.clip(at, 0, len(mask)).astype(np.int64), len(mask) - 1)
    borders = np.unique(np.concatenate([[0], low, low + 1]))
    table = np.zeros((len(borders), mask.shape[1] + 1))
    for k, (start, stop) in enumerate(pairwise(borders), 1):
        table[k, 1:] = table[k - 1, 1:] + mask[start:stop].sum(axis=0)
    table[:, 1:] = table[:, 1:].cumsum(axis=1)
    index, share = np.searchsorted(borders, low), (np.clip(at, 0, len(mask)) - low)[:, None]
    return np.asarray(table[index] * (1 - share) + table[index + 1] * share, np.float64)


def _interpolate_rows(table: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    at = np.clip(at, 0, table.shape[0] - 1)
    low = np.minimum(at.astype(np.int64), table.shape[0] - 2)
    share = (at - low)[:, None]
    return np.asarray(table[low] * (1 - share) + table[low + 1] * share, np.float64)
