"""Define the level-0 frame: boxes, regular grids, and the one place where µm per pixel becomes a downsample.

Locations are (x, y), top left, level-0 pixels, int64. Sizes are (w, h). Boxes are half-open.
"""

from __future__ import annotations

from dataclasses import dataclass
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
        """Return the top left corners of tiles, size · downsample, centred on the given cells (docs/methods/ats.md
        §2.3).
        """
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
