"""TNet's tree of regions: read level by level, and drawn as maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wsi_attention.errors import NoTissueError
from wsi_attention.geometry import Grid
from wsi_attention.methods.overview import SquareView
from wsi_attention.methods.tnet.crops import CropGrid, overlaps
from wsi_attention.protocols import TileSource
from wsi_attention.structures import AttentionMap, Glimpse, TileBatch, TileSet

See = Callable[[TileBatch], tuple[Tensor, Tensor]]
"""Tiles (b, m) to features (b, m, d) and maps (b, m, c, h, w), whatever where a tile is not valid."""


class Regions(NamedTuple):
    """Square regions of one level, image after image, siblings in the order they were drawn.

    Attributes:
        image: (v,) which image of the batch each lies in.
        places: (v, 2) int64 (x, y) of the top left corners in level-0 pixels.
        positions: (v, 3) int64 (y, x, s).
        probability: (v,) p of the cell that each was chosen for.
        log_probability: (v,) of having been chosen among its siblings.
        side: of all of them, in level-0 pixels.
    """

    image: Tensor
    places: Tensor
    positions: Tensor
    probability: Tensor
    log_probability: Tensor
    side: int

    def only(self, kept: Tensor) -> Regions:
        """Those that `kept` picks, (v,) bool, or (v, k) bool where regions stand in rows of k."""
        image, places, positions, probability, log_probability, side = self
        return Regions(image[kept], places[kept], positions[kept], probability[kept], log_probability[kept], side)


class Level(NamedTuple):
    """Regions that were read, with what the encoder saw in them.

    Attributes:
        regions: v of them.
        features: (v, d).
        maps: (v, c, h, w).
    """

    regions: Regions
    features: Tensor
    maps: Tensor

    def only(self, kept: Tensor) -> Level:
        """Those that (v,) bool picks."""
        return Level(self.regions.only(kept), self.features[kept], self.maps[kept])


class Read(NamedTuple):
    """One request, and what became of it.

    Attributes:
        regions: asked for.
        tiles: (b, m), rows filled up where an image has fewer.
        valid: (v,) bool, which could be read.
    """

    regions: Regions
    tiles: TileSet
    valid: Tensor


class Bag(NamedTuple):
    """All that was read of b images, up to N regions each.

    Attributes:
        features: (b, N, d).
        positions: (b, N, 3).
        valid: (b, N) bool; all else is 0 where False.
        level: (b, N), 0 of the overview.
        log_probability: (b, N).
        places: of each level (v,), where along N its regions stand.
    """

    features: Tensor
    positions: Tensor
    valid: Tensor
    level: Tensor
    log_probability: Tensor
    places: tuple[Tensor, ...]


def slots(image: Tensor, b: int) -> Tensor:
    """(v,) the how-manieth of its image each one is, from 0."""
    before = functional.one_hot(image, b).cumsum(dim=0) - 1
    return before.gather(-1, image.unsqueeze(-1)).squeeze(-1)


def padded_rows(values: Tensor, image: Tensor, b: int) -> Tensor:
    """(v, ...) -> (b, m, ...): those of each image in their order, filled up with 0 or False."""
    place = slots(image, b)
    rows = values.new_zeros((b, int(place.max()) + 1, *values.shape[1:]))
    return rows.index_put((image, place), values)


def overview_level(view: SquareView, side: int, see: See) -> Level:
    """The overviews of all images as regions of which there is one each, at position (0, 0, 0).

    Args:
        view: of b images.
        side: of the view in level-0 pixels.
        see: encodes tiles.
    """
    b = len(view.pixels)
    features, maps = see(TileBatch(view.pixels.unsqueeze(1), torch.ones(b, 1, dtype=torch.bool)))
    image, one = torch.arange(b, device=features.device), torch.ones(b, device=features.device)
    places = torch.tensor([[round(at) for at in view.origin]], device=features.device).expand(b, -1)
    return Level(Regions(image, places, places.new_zeros(b, 3), one, one.log(), side), features[:, 0], maps[:, 0])


def read_level(source: TileSource, regions: Regions, base: int, see: See) -> tuple[Read, Level]:
    """Reads all regions of a level in one request; those that fail are not in the level.

    Args:
        source: b images.
        regions: v of them.
        base: pixels a side.
        see: encodes tiles.
    """
    image, b = regions.image, source.batch
    place, tiles = slots(image, b), _tiles(regions, b, base)
    batch = source.read(tiles)
    valid = batch.valid.to(image.device)[image, place]
    features, maps = see(TileBatch(batch.pixels, padded_rows(valid, image, b)))
    level = Level(regions, features[image, place], maps[image, place])
    return Read(regions, tiles, valid), level.only(valid)


def _tiles(regions: Regions, b: int, base: int) -> TileSet:
    """Regions of b images as tiles of base² pixels; rows are filled up with a region of this request."""
    filled = padded_rows(torch.ones_like(regions.image), regions.image, b) > 0
    locations = padded_rows(regions.places, regions.image, b).where(filled.unsqueeze(-1), regions.places[0])
    return TileSet(locations.cpu().numpy(), (base, base), regions.side / base)


def gathered(levels: Sequence[Level], b: int) -> Bag:
    """The regions of all levels side by side, the overview first."""
    regions = [level.regions for level in levels]
    image = torch.cat([one.image for one in regions])
    number = torch.cat([torch.full_like(one.image, i) for i, one in enumerate(regions)])
    place = torch.split(slots(image, b), [len(one.image) for one in regions])
    return Bag(
        padded_rows(torch.cat([level.features for level in levels]), image, b),
        padded_rows(torch.cat([one.positions for one in regions]), image, b),
        padded_rows(torch.ones_like(image), image, b) > 0,
        padded_rows(number, image, b),
        padded_rows(torch.cat([one.log_probability for one in regions]), image, b),
        tuple(place),
    )


def glimpses(reads: Sequence[Read], shares: Sequence[Tensor], b: int) -> tuple[tuple[Glimpse, ...], ...]:
    """For each image a glimpse a level, "level-1" and so on; none of a level where it has no region.

    Args:
        reads: one a level.
        shares: π of the regions of each read that could be read; a glimpse's are scaled to sum 1. All are 0 where a
            whole level of an image failed.
        b: number of images.
    """
    names = [f"level-{number}" for number in range(1, len(reads) + 1)]
    found = [_of_images(read, share, b, name) for read, share, name in zip(reads, shares, names, strict=True)]
    return tuple(tuple(one[i] for one in found if i in one) for i in range(b))


def _of_images(read: Read, share: Tensor, b: int, name: str) -> dict[int, Glimpse]:
    valid, image = read.valid.cpu().numpy(), read.regions.image.cpu().numpy()
    attention = read.regions.probability.detach().cpu().numpy().astype(np.float64)
    weights = np.zeros(len(image))
    weights[valid] = share.detach().cpu().numpy()
    result = {}
    for i in range(b):
        own = image == i
        total = weights[own].sum() or 1.0
        tiles = TileSet(read.tiles.locations[i, : own.sum()], read.tiles.size, read.tiles.downsample)
        if own.any():
            result[i] = Glimpse(tiles, weights[own] / total, attention[own], valid[own], name)
    return result


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
