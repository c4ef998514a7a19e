"""A `TileSource` over plain tensors, so that any model runs on any image."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_attention.errors import NoTissueError
from wsi_attention.geometry import Grid, downsample_of, same_scale
from wsi_attention.structures import Counters, Strip, TileBatch, TileSet, TissueMask
from wsi_attention.tiles.cells import cells_with_tissue


class TensorSource:
    """Images side by side as level 0; what lies outside them is 0.

    Attributes:
        extent: (w, h) of the images.
        batch: number of images.
        counters: what reading has cost so far; bytes are those of the crops.
    """

    def __init__(self, images: Tensor, tissue: Tensor | None = None, mpp: float = 1.0) -> None:
        """Take the images as they are.

        Args:
            images: (b, c, h, w), uint8 or floating.
            tissue: (b, h, w) bool, where to look; everywhere if None.
            mpp: µm per pixel.

        Raises:
            ValueError: shapes do not fit together.
        """
        if images.ndim != 4:
            raise ValueError(f"images must be (b, c, h, w), got {tuple(images.shape)}")
        b, _, h, w = images.shape
        if tissue is not None and tissue.shape != (b, h, w):
            raise ValueError(f"tissue must be {(b, h, w)} for these images, got {tuple(tissue.shape)}")
        self.images, self.mpp = images, mpp
        self.extent: tuple[int, int] = (w, h)
        self.batch: int = b
        self.counters = Counters()
        self._tissue = tissue

    def downsample(self, mpp: float) -> float:
        """Return pixels per pixel at the wanted µm/px, 1 within 5 %, never below 1."""
        wanted = downsample_of(mpp, self.mpp)
        return 1.0 if same_scale(wanted, 1.0) else max(1.0, wanted)

    def overview_downsample(self, mpp: float) -> float:
        """Return `downsample`: tensors are small enough to be seen whole."""
        return self.downsample(mpp)

    def overview(self, downsample: float) -> Tensor:
        """Return (b, c, ceil(h / downsample), ceil(w / downsample)): exact area means, 0 beyond the images."""
        start = time.perf_counter()
        height, width = math.ceil(self.extent[1] / downsample), math.ceil(self.extent[0] / downsample)
        view = _area_mean(self.images, (width, height), downsample)
        pixels = self.batch * height * width
        self._count(Counters(pixels=pixels, bytes=self.images.nbytes, seconds=time.perf_counter() - start))
        return view

    def overview_strips(self, downsample: float, rows: int, halo: int) -> Iterator[Strip[Tensor]]:
        """Yield the overview in strips of some rows, with up to `halo` rows of their surroundings."""
        view = self.overview(downsample)
        for first in range(0, view.shape[-2], rows):
            last, top = min(first + rows, view.shape[-2]), max(first - halo, 0)
            yield Strip(first, last, top, view[..., top : last + halo, :])

    def tissue(self, grid: Grid) -> Tensor:
        """Return (b, rows, cols) bool: the cells worth looking at; without a mask, those that lie on the image.

        Raises:
            NoTissueError: an image has none.
        """
        if self._tissue is None:
            rows, cols = (self._on_image(grid, axis) for axis in (1, 0))
            return (rows[:, None] & cols).expand(self.batch, -1, -1).clone().to(self.images.device)
        masks = [TissueMask(mask.cpu().numpy(), 1.0, "given") for mask in self._tissue]
        empty = [i for i, mask in enumerate(masks) if not mask.mask.any()]
        if empty:
            raise NoTissueError(f"image {empty[0]} of {self.batch} has no tissue: its mask is empty")
        cells = np.stack([cells_with_tissue(mask, grid) for mask in masks])
        return torch.from_numpy(cells).to(self.images.device)

    def aligned(self, tiles: TileSet) -> TileSet:
        """Return the tiles as they are: every place costs the same."""
        return tiles

    def read(self, tiles: TileSet) -> TileBatch:
        """Read all tiles in the order given: pixels (b, n, c, h, w) of the images' dtype; all are valid.

        Raises:
            ValueError: the locations are not those of b images, or finer than the images.
        """
        if tiles.locations.shape[0] != self.batch or tiles.downsample < 1:
            raise ValueError(
                f"{self.batch} images at downsample >= 1 can be read, got locations {tiles.locations.shape} at "
                f"downsample {tiles.downsample}"
            )
        start = time.perf_counter()
        size = math.ceil(tiles.size[0] * tiles.downsample), math.ceil(tiles.size[1] * tiles.downsample)
        crops = self._crops(tiles.locations, size)
        pixels = _area_mean(crops, tiles.size, tiles.downsample)
        n = self.batch * len(tiles)
        seconds = time.perf_counter() - start
        self._count(Counters(n, n * tiles.size[0] * tiles.size[1], crops.nbytes, seconds))
        return TileBatch(pixels, torch.ones((self.batch, len(tiles)), dtype=torch.bool, device=pixels.device))

    def _crops(self, locations: NDArray[np.int64], size: tuple[int, int]) -> Tensor:
        """Return (b, n, c, h, w) at full resolution, 0 outside."""
        corners = torch.from_numpy(locations).to(self.images.device)
        x = corners[..., 0, None] + torch.arange(size[0], device=corners.device)
        y = corners[..., 1, None] + torch.arange(size[1], device=corners.device)
        inside_x, inside_y = (x >= 0) & (x < self.extent[0]), (y >= 0) & (y < self.extent[1])
        image = torch.arange(self.batch, device=corners.device)[:, None, None, None]
        rows, columns = y.clamp(0, self.extent[1] - 1), x.clamp(0, self.extent[0] - 1)
        crops = self.images.movedim(1, -1)[image, rows[..., :, None], columns[..., None, :]].movedim(-1, 2)
        inside = inside_y[..., :, None] & inside_x[..., None, :]
        return crops * inside[:, :, None].to(crops.dtype)

    def _on_image(self, grid: Grid, axis: int) -> Tensor:
        """Tell which columns (axis 0) or rows (axis 1) of a grid overlap the image."""
        start = grid.origin[axis] + torch.arange(grid.shape[1 - axis], dtype=torch.float64) * grid.step[axis]
        return (start < self.extent[axis]) & (start + grid.step[axis] > 0)

    def _count(self, cost: Counters) -> None:
        self.counters = self.counters + cost


def _area_mean(images: Tensor, size: tuple[int, int], downsample: float) -> Tensor:
    """Return the mean of each downsample × downsample cell, (..., h, w) -> (..., size[1], size[0]); 0 outside."""
    if downsample == 1 and (images.shape[-1], images.shape[-2]) == size:
        return images
    dtype = images.dtype if images.is_floating_point() else torch.float32
    columns = _shares(images.shape[-1], size[0], downsample).to(images.device, dtype)
    rows = _shares(images.shape[-2], size[1], downsample).to(images.device, dtype)
    mean = rows @ (images.to(dtype) @ columns.T)
    return mean if images.is_floating_point() else (mean + 0.5).floor().to(images.dtype)


def _shares(pixels: int, cells: int, step: float) -> Tensor:
    """Return (cells, pixels) float64: the share of each cell that each pixel takes up."""
    edges = torch.arange(cells + 1, dtype=torch.float64)[:, None] * step
    left = torch.arange(pixels, dtype=torch.float64)
    inside = torch.minimum(edges[1:], left + 1) - torch.maximum(edges[:-1], left)
    return inside.clamp(min=0) / step
