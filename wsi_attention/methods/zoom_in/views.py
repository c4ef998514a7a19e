"""What Zoom-In reads and where: the cells of each zoom step over the image, and pixels on their way to networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wsi_attention.errors import TileReadError
from wsi_attention.geometry import Grid
from wsi_attention.models.rounds import PART
from wsi_attention.protocols import TileSource
from wsi_attention.structures import TileSet


class Level(NamedTuple):
    """The cells of one zoom step over the whole image, and how the region that holds some of them is seen.

    Attributes:
        grid: the cells.
        tissue: (b, cells) bool, with tissue and inside the image.
        inside: (cells,) bool, beginning inside the image.
        side: cells along a side of a region, which is one cell of the level before; 0 for the first level.
        size: (w, h) of a region's view in pixels.
        downsample: level-0 pixels per pixel of that view, at least 1.
    """

    grid: Grid
    tissue: Tensor
    inside: Tensor
    side: int
    size: tuple[int, int]
    downsample: float

    def within(self, regions: Tensor) -> Tensor:
        """(t,) flat cells of the level before -> (t, side²) flat cells of this one, row by row."""
        cols = self.grid.cols // self.side
        row, col = regions // cols * self.side, regions % cols * self.side
        step = torch.arange(self.side, device=regions.device)
        rows, columns = row[:, None, None] + step[:, None], col[:, None, None] + step
        return (rows * self.grid.cols + columns).flatten(1)

    def reachable(self, cells: Tensor, images: Tensor) -> Tensor:
        """(t, K) bool: which of each region's cells may be drawn, those with tissue.

        A region that counts as tissue only because no other has more may have no such cell; all of its cells inside
        the image then do.

        Args:
            cells: (t, K), of this level.
            images: (t,), where the regions lie.
        """
        tissue = self.tissue[images.unsqueeze(-1), cells]
        return tissue | (~tissue.any(dim=-1, keepdim=True) & self.inside[cells])


def zoom_levels(
    source: TileSource, strides: Sequence[int], mpps: Sequence[float], device: torch.device
) -> tuple[Level, ...]:
    """The cells of every step: a regular grid over the image, each of its cells cut into the next one's.

    Cells are taken by their centres (`Grid.locations`). The paper's rule (`attention.zoom_grid`) instead spreads
    centres from corner to corner: its cells overlap a little, the outermost lie half outside the image, and a map over
    them is no regular grid. Here the cells tile the image without gap or overlap, and a view shows its cell and
    nothing else.

    Args:
        source: b images.
        strides: pixels along the side of a cell, in the view that each step's network looks at.
        mpps: µm per pixel of these views; the first is the overview's. Views are not enlarged: where the image has not
            that many pixels, a region has fewer cells.
        device: where the masks go.
    """
    downsample = source.overview_downsample(mpps[0])
    side = strides[0] * downsample
    grid = Grid.covering(source.extent, (side, side))
    found = [_level(source, grid, 0, (grid.cols * strides[0], grid.rows * strides[0]), downsample, device)]
    for stride, mpp in zip(strides[1:], mpps[1:], strict=True):
        step = found[-1].grid.step[0]
        wanted = round(step / (stride * source.downsample(mpp)))
        cells = max(1, min(wanted, int(step / stride + 1e-9)))
        grid = Grid(found[-1].grid.rows * cells, found[-1].grid.cols * cells, (step / cells, step / cells))
        scale = max(1.0, step / (cells * stride))
        found.append(_level(source, grid, cells, (cells * stride, cells * stride), scale, device))
    return tuple(found)


def _level(
    source: TileSource, grid: Grid, side: int, size: tuple[int, int], downsample: float, device: torch.device
) -> Level:
    corners = grid.boxes()[:, :2]
    inside = torch.from_numpy((corners < np.array(source.extent)).all(axis=-1)).to(device)
    tissue = source.tissue(grid).to(device).flatten(1)
    return Level(grid, tissue & inside if side else tissue, inside, side, size, downsample)


class Reader:
    """Regions of one source through the networks; what has been read is not read again.

    Args:
        source: b images.
        levels: of the zoom steps.
        tile: side in pixels and downsample of the tiles that the last step's cells stand for.
    """

    def __init__(self, source: TileSource, levels: Sequence[Level], tile: tuple[int, float]) -> None:
        self.batch, self.levels = source.batch, tuple(levels)
        self._source, self._tile = source, tile
        self._known: dict[tuple[int, int, int], Tensor | None] = {}

    @property
    def tiles_read(self) -> int:
        """How many different regions and tiles have been asked for."""
        return len(self._known)

    def tiles(self, depth: int, cells: Tensor) -> TileSet:
        """What is read for cells (b, n) of a level: the next level's views, or tiles in the end."""
        last = depth + 1 == len(self.levels)
        size = (self._tile[0], self._tile[0]) if last else self.levels[depth + 1].size
        downsample = self._tile[1] if last else self.levels[depth + 1].downsample
        tiles = TileSet(self.levels[depth].grid.locations(cells.cpu().numpy(), size, downsample), size, downsample)
        return self._source.aligned(tiles) if last else tiles

    def look(
        self, depth: int, cells: Tensor, images: Tensor, network: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """What a network makes of the valid regions, (valid, …), and which are valid, (n,) bool.

        Args:
            depth: level of the cells.
            cells: (n,) flat, image after image.
            images: (n,) that they lie in, increasing.
            network: (m, c, h, w) pixels of any dtype -> (m, …).

        Raises:
            TileReadError: not one of an image's regions could be read.
        """
        keys = [(depth, *key) for key in zip(images.tolist(), cells.tolist(), strict=True)]
        new = [i for i, key in enumerate(keys) if key not in self._known]
        if new:
            index = torch.tensor(new, device=cells.device)
            self._read(depth, cells[index], images[index], network)
        values = [self._known[key] for key in keys]
        valid = torch.tensor([value is not None for value in values], device=cells.device)
        if set(images[valid].tolist()) != set(images.tolist()):
            raise TileReadError(f"none of the {len(keys)} tiles that attention asked for could be read")
        return torch.stack([value for value in values if value is not None]), valid

    def _read(self, depth: int, cells: Tensor, images: Tensor, network: Callable[[Tensor], Tensor]) -> None:
        """Reads all in one request, or in parts where there are very many; images with fewer repeat their first."""
        index, asked = by_image(torch.arange(len(cells), device=cells.device), images, self.batch)
        index = torch.where(asked, index, index[:, :1])
        tiles = self.tiles(depth, cells[index])
        keys = [(depth, *key) for key in zip(images.tolist(), cells.tolist(), strict=True)]
        for start in range(0, len(tiles), PART):
            part = slice(start, start + PART)
            batch = self._source.read(tiles.select(part))
            wanted = asked[:, part].to(batch.valid.device)
            real = batch.valid & wanted
            values = iter(network(batch.pixels[real.to(batch.pixels.device)])) if bool(real.any()) else iter(())
            for i, good in zip(index[:, part].cpu()[wanted.cpu()].tolist(), real[wanted].tolist(), strict=True):
                self._known[keys[i]] = next(values) if good else None


def by_image(values: Tensor, images: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Entries (n, …) in rows of their images, (b, most, …), zeros where an image has fewer; and which are real.

    Args:
        values: (n, …), image after image.
        images: (n,), increasing.
        batch: b.
    """
    counts = torch.bincount(images, minlength=batch)
    real = torch.arange(int(counts.max()), device=images.device) < counts.unsqueeze(-1)
    rows = values.new_zeros(*real.shape, *values.shape[1:])
    return rows.index_put((real,), values), real
