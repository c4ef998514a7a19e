"""Overlapping square regions on a regular grid over the image: the tissue in each, and maps painted from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_attention.attention.glimpse_grid import CropGrid, overlaps
from wsi_attention.errors import NoTissueError
from wsi_attention.geometry import Grid
from wsi_attention.models.region_tree import Regions
from wsi_attention.protocols import TileSource
from wsi_attention.structures import AttentionMap

LEAST_TISSUE = 0.1
"""Share of a region that must be tissue for it to be looked at, as for any other cell."""
MOST_CELLS = 512
"""Along the longer side: a map is no finer, however small the smallest region is."""


class RegionCanvas:
    """A grid over the whole image with its tissue, for regions that are no cells of any grid.

    Args:
        source: b images.
        smallest: side of the smallest region in level-0 pixels; a cell is half of it.

    Attributes:
        grid: of the maps.
        tissue: (b, rows, cols) float32, 1 where there is tissue.

    Raises:
        NoTissueError: an image has no cell of tissue.
    """

    def __init__(self, source: TileSource, smallest: int) -> None:
        step = max(smallest / 2, max(source.extent) / MOST_CELLS)
        self.grid, self._extent = Grid.covering(source.extent, (step, step)), source.extent
        self.tissue = source.tissue(self.grid).cpu().float()
        if not bool(self.tissue.flatten(1).any(dim=-1).all()):
            raise NoTissueError(
                f"no tissue in any of the {self.grid.rows} × {self.grid.cols} cells: there is nothing to look at"
            )

    def candidates(self, regions: Regions, crop: CropGrid, n: int) -> Tensor:
        """Which of the n × n crops of each region hold tissue: at least 10 % of the crop, or else those with the most.

        Args:
            regions: v parents.
            crop: grid of the crops, along x and y.
            n: crops along an axis.

        Returns:
            (v, n²) bool, row by row; all False only where no tissue lies in any crop.
        """
        columns, rows = self._crops(regions, crop, n)
        tissue = self.tissue[regions.image.cpu()]
        with torch.autocast("cpu", enabled=False):
            share = (rows @ tissue @ columns.mT).flatten(1) * (self.grid.step[0] / crop.patch) ** 2
        enough, most = share >= LEAST_TISSUE, share.amax(dim=-1, keepdim=True)
        return torch.where(enough.any(dim=-1, keepdim=True), enough, (share > 0) & (share >= most))

    def spread(self, levels: Sequence[Regions], masses: Sequence[Tensor]) -> list[AttentionMap]:
        """A map "attention" for each image: each region's mass lies evenly over the tissue in it.

        Args:
            levels: regions, all of which hold tissue.
            masses: (v,) of each level; they sum to 1 over an image.
        """
        total = torch.zeros_like(self.tissue)
        with torch.autocast("cpu", enabled=False):
            for regions, mass in zip(levels, masses, strict=True):
                image = regions.image.cpu()
                columns, rows = self._overlaps(regions.places.cpu(), regions.side)
                area = ((rows.unsqueeze(1) @ self.tissue[image]).squeeze(1) * columns).sum(dim=-1)
                density = rows * (mass.detach().cpu().float() / area).unsqueeze(-1)
                for i in range(len(total)):
                    total[i] += density[image == i].mT @ columns[image == i]
        return self._maps(total, "attention")

    def highest(self, regions: Regions, crop: CropGrid, values: Tensor, name: str) -> list[AttentionMap]:
        """A map for each image: the highest value of the crops that touch a cell, 0 where none does.

        Args:
            regions: v parents.
            crop: grid of the crops, along x and y.
            values: (v, n²) of the crops, not below 0.
            name: of the maps.
        """
        total, n = np.zeros(tuple(self.tissue.shape), np.float32), math.isqrt(values.shape[-1])
        columns, rows = (_touched(share) for share in self._crops(regions, crop, n))
        found = values.detach().cpu().float().numpy()
        for v, image in enumerate(regions.image.tolist()):
            for cell in range(n * n):
                part = total[image, slice(*rows[v, cell // n]), slice(*columns[v, cell % n])]
                np.maximum(part, found[v, cell], out=part)
        return self._maps(torch.from_numpy(total), name)

    def _crops(self, regions: Regions, crop: CropGrid, n: int) -> tuple[Tensor, Tensor]:
        starts = torch.arange(n) * crop.stride - crop.before
        return self._overlaps(regions.places.cpu().unsqueeze(-2) + starts.unsqueeze(-1), crop.patch, self._extent)

    def _overlaps(
        self, places: Tensor, side: int, extent: tuple[float, float] = (math.inf, math.inf)
    ) -> tuple[Tensor, Tensor]:
        """Of squares at places (..., 2) with columns (..., cols) and with rows (..., rows), in cells, up to extent."""
        (x, y), (width, height) = places.unbind(dim=-1), extent
        columns = overlaps(x, side, self.grid.step[0], self.grid.cols, width)
        return columns.float(), overlaps(y, side, self.grid.step[1], self.grid.rows, height).float()

    def _maps(self, values: Tensor, name: str) -> list[AttentionMap]:
        return [AttentionMap(one.numpy(), self.grid, name) for one in values.masked_fill(self.tissue == 0, torch.nan)]


def _touched(share: Tensor) -> NDArray[np.int64]:
    """First and last but one of the cells, all side by side, with a share above 0: (..., cells) -> (..., 2)."""
    touched = (share > 0).long()
    first = touched.argmax(dim=-1)
    ends: NDArray[np.int64] = torch.stack([first, first + touched.sum(dim=-1)], dim=-1).numpy()
    return ends
