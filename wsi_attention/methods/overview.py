"""Run an attention network over a whole overview: at once, or strip by strip with the surroundings that it needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from wsi_attention.errors import InputError
from wsi_attention.geometry import OVERVIEW_PIXELS, Grid
from wsi_attention.methods.outputs import padded, require_tissue
from wsi_attention.nn.blocks import OverviewNet
from wsi_attention.nn.preprocess import background, in_float32
from wsi_attention.options import Options, option
from wsi_attention.protocols import InStrips, TileSource
from wsi_attention.structures import Strip

BLOCK_PIXELS = 250_000
"""Pixels that go through a network at once in eval mode; activations take 100 to 200 bytes each."""

Scores = tuple[Tensor, Tensor | None]
Evidence = Callable[[Tensor], Tensor]
"""Attention features (b, d, gh, gw) -> scores of each cell (b, m, gh, gw), cell by cell."""


@dataclass(frozen=True, kw_only=True)
class OverviewOptions(Options):
    """The numbers of methods that look over the whole slide first, and may learn from that look itself."""

    overview_weight: float = option(
        1.0, "factor on the loss on what the overview itself shows; 0 is the paper's loss", low=0
    )
    overview_pixels: int = option(
        OVERVIEW_PIXELS,
        "the most pixels of the overview at prediction; larger slides are seen coarser than overview_mpp. Above "
        f"{OVERVIEW_PIXELS:,} it is seen in strips. Training never has more than those",
        low=1,
        high=10**9,
    )


def check_overview(pixels: int, network: OverviewNet) -> None:
    """Raise InputError if an overview of so many pixels must be seen in strips and the network cannot do that."""
    if pixels > OVERVIEW_PIXELS and network.reach is None:
        raise InputError(
            f"overview_pixels {pixels} is more than the {OVERVIEW_PIXELS} that are seen whole; {type(network).__name__}"
            " does not say how far it looks (attribute `reach`), so it cannot be shown strips"
        )


def look_over(
    source: TileSource,
    network: OverviewNet,
    preprocess: nn.Module,
    seen: tuple[Grid, float],
    tissue: Tensor,
    evidence: Evidence | None = None,
) -> Scores:
    """Return the logits (b, rows, cols) of all cells, and scores (b, classes, rows, cols) where `evidence` is given.

    In eval mode a large overview comes in strips, and the network sees them block by block, if the source can do that
    and the network's attribute `reach` says how many cells around a cell it looks at. Cells with tissue then have the
    same values, up to the order in which libraries sum; blocks without tissue have 0, because nothing reads them.

    Args:
        source: b images.
        network: (b, c, h, w) -> logits (b, gh, gw) and features (b, d, gh, gw); has an attribute `stride`.
        preprocess: pixels to what the network takes.
        seen: the grid of cells, stride × stride pixels each, and the overview's downsample.
        tissue: (b, rows, cols) bool.
        evidence: features -> scores of each cell, cell by cell.
    """
    grid, downsample = seen
    stride, reach = network.stride, network.reach
    cells = max(1, BLOCK_PIXELS // (source.batch * stride**2))

    def judge(pixels: Tensor) -> Scores:
        logits, features = in_float32(network, preprocess(pixels))
        return logits, None if evidence is None else in_float32(evidence, features)

    if network.training or reach is None or grid.rows * grid.cols <= cells or not isinstance(source, InStrips):
        return judge(padded(source.overview(downsample), (grid.rows * stride, grid.cols * stride)))
    height = -(-grid.rows // math.ceil(grid.rows / math.isqrt(cells)))
    values = _Values(judge, tissue, stride, reach, cells)
    for strip in source.overview_strips(downsample, height * stride, reach * stride):
        values.fill(strip)
    return values.whole()


def judge_cells(
    source: TileSource, network: OverviewNet, preprocess: nn.Module, mpp: float, evidence: Evidence | None = None
) -> tuple[Tensor, Tensor | None, Grid]:
    """Return what the overview shows of every cell, and the grid of cells.

    Args:
        source: b images.
        network: looks at the overview; its stride is the side of a cell.
        preprocess: pixels to what the network takes.
        mpp: µm per pixel of the overview.
        evidence: features -> scores of each cell.

    Returns:
        Logits (b, K), −inf outside the tissue; scores (b, classes, rows, cols), or None; the grid of K cells.

    Raises:
        NoTissueError: an image has no cell of tissue.
    """
    downsample = source.overview_downsample(mpp)
    grid = Grid.covering(source.extent, (network.stride * downsample, network.stride * downsample))
    tissue = source.tissue(grid)
    require_tissue(tissue)
    logits, scores = look_over(source, network, preprocess, (grid, downsample), tissue, evidence)
    return logits.float().masked_fill(~tissue.to(logits.device), -torch.inf).flatten(1), scores, grid


class _Values:
    """The values of all cells of a grid, filled strip by strip."""

    def __init__(self, judge: Callable[[Tensor], Scores], tissue: Tensor, stride: int, reach: int, most: int) -> None:
        self._judge, self._tissue, self._stride, self._reach, self._most = judge, tissue, stride, reach, most
        self._anywhere = tissue.any(0).cpu().numpy()
        self._found: list[tuple[tuple[slice, slice], Scores]] = []

    def fill(self, strip: Strip[Tensor]) -> None:
        """Compute the blocks of a strip that hold tissue."""
        stride, (rows, cols) = self._stride, self._anywhere.shape
        first, last, top = strip.first // stride, min(-(-strip.last // stride), rows), strip.top // stride
        view = padded(strip.pixels, ((min(last + self._reach, rows) - top) * stride, cols * stride))
        for down, right in blocks_with(self._anywhere[first:last], self._most, 2 * self._reach):
            place = slice(first + down.start, first + down.stop), right
            self._found.append((place, self._block(view, place, top)))

    def _block(self, view: Tensor, place: tuple[slice, slice], top: int) -> Scores:
        """Return the values of a block of cells, seen with its surroundings; `view` begins at row `top` of cells."""
        stride, reach, (rows, cols) = self._stride, self._reach, self._anywhere.shape
        starts = [max(one.start - reach, 0) for one in place]
        ends = [min(one.stop + reach, most) for one, most in zip(place, (rows, cols), strict=True)]
        pixels = view[..., (starts[0] - top) * stride : (ends[0] - top) * stride, starts[1] * stride : ends[1] * stride]
        logits, scores = self._judge(pixels)
        down, right = (slice(one.start - start, one.stop - start) for one, start in zip(place, starts, strict=True))
        return logits[..., down, right], None if scores is None else scores[..., down, right]

    def whole(self) -> Scores:
        """Return logits (b, rows, cols) and scores (b, classes, rows, cols), 0 where nothing was computed."""
        shape = self._tissue.shape
        if not self._found:
            return torch.zeros(shape, device=self._tissue.device), None
        known, scored = self._found[0][1]
        logits = known.new_zeros(shape)
        scores = None if scored is None else scored.new_zeros(shape[0], scored.shape[1], *shape[1:])
        for place, (values, more) in self._found:
            logits[(..., *place)] = values
            if scores is not None and more is not None:
                scores[(..., *place)] = more
        return logits, scores


def blocks_with(tissue: NDArray[np.bool_], most: int, apart: int) -> Iterator[tuple[slice, slice]]:
    """Yield the blocks of a grid (rows, cols) that hold all its tissue, cut close to it.

    Args:
        tissue: (rows, cols).
        most: cells that a block has, about, if that is possible with all rows.
        apart: columns without tissue between two blocks, more than these.
    """
    there = np.flatnonzero(tissue.any(0))
    for run in np.split(there, np.flatnonzero(np.diff(there) > apart + 1) + 1):
        if not len(run):
            continue
        begin, end = int(run[0]), int(run[-1]) + 1
        parts = math.ceil((end - begin) * len(tissue) / most)
        edges = np.linspace(begin, end, min(parts, end - begin) + 1).round().astype(int).tolist()
        for left, right in pairwise(edges):
            rows = np.flatnonzero(tissue[:, left:right].any(1))
            if len(rows):
                yield slice(int(rows[0]), int(rows[-1]) + 1), slice(left, right)


class SquareView(NamedTuple):
    """An image in the middle of a square, filled up with background.

    Attributes:
        pixels: (b, c, size, size), as the source gave them.
        origin: (x, y) of the square's top left corner in level-0 pixels; not above 0.
        side: of the square in level-0 pixels.
    """

    pixels: Tensor
    origin: tuple[float, float]
    side: float

    def grid(self, cells: int) -> Grid:
        """Return the square as a grid of cells × cells."""
        return Grid(cells, cells, (self.side / cells, self.side / cells), self.origin)


def square_view(source: TileSource, size: int) -> SquareView:
    """Read the whole image so that its longer side has `size` pixels; a smaller image is not enlarged.

    Args:
        source: b images.
        size: pixels a side.
    """
    downsample = max(1.0, max(source.extent) / size)
    view = source.overview(downsample)[..., :size, :size]
    free = size - view.shape[-1], size - view.shape[-2]
    left, top = free[0] // 2, free[1] // 2
    pixels = functional.pad(view, (left, free[0] - left, top, free[1] - top), value=background(view))
    return SquareView(pixels, (-left * downsample, -top * downsample), size * downsample)
