"""TNet's tree of regions: they are read level by level, gathered for the classifier, and drawn as maps.

Regions of all images of a batch stand in one list, v long; `image` says which image each belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wsi_attention.geometry import Grid
from wsi_attention.methods.outputs import require_tissue
from wsi_attention.methods.overview import SquareView
from wsi_attention.methods.tnet.crops import CropGrid, overlaps
from wsi_attention.protocols import TileSource
from wsi_attention.structures import AttentionMap, Glimpse, TileBatch, TileSet

See = Callable[[TileBatch, "Regions"], tuple[Tensor, Tensor]]
"""From tiles (b, m), and the regions that they show, to features (b, m, d) and maps (b, m, c, h, w) of the tiles;
values at tiles that are not valid are ignored."""


class Regions(NamedTuple):
    """Square regions of one level, image after image, siblings in the order in which they were chosen.

    Attributes:
        image: (v,) int64, index of the image that each lies in.
        places: (v, 2) int64 (x, y) of the top left corners in level-0 pixels.
        positions: (v, 3) int64 (y, x, s), docs/methods/tnet.md §2.4.
        probability: (v,) p of each region.
        log_probability: (v,) log of the probability that each was chosen, given the siblings before it.
        side: side of every region, in level-0 pixels.
    """

    image: Tensor
    places: Tensor
    positions: Tensor
    probability: Tensor
    log_probability: Tensor
    side: int

    def only(self, kept: Tensor) -> Regions:
        """Return the regions that `kept` selects: (v,) bool, or (v, k) bool if regions stand in rows of k."""
        image, places, positions, probability, log_probability, side = self
        return Regions(image[kept], places[kept], positions[kept], probability[kept], log_probability[kept], side)


class Level(NamedTuple):
    """Regions that were read, with their features and feature maps.

    Attributes:
        regions: v regions.
        features: (v, d).
        maps: (v, c, h, w).
    """

    regions: Regions
    features: Tensor
    maps: Tensor

    def only(self, kept: Tensor) -> Level:
        """Return the regions that `kept`, (v,) bool, selects."""
        return Level(self.regions.only(kept), self.features[kept], self.maps[kept])


class Read(NamedTuple):
    """One request for tiles, and which of them could be read.

    Attributes:
        regions: v regions that were asked for.
        tiles: (b, m) tiles; rows are filled up for images with fewer regions.
        valid: (v,) bool, False where a region could not be read.
    """

    regions: Regions
    tiles: TileSet
    valid: Tensor


class Bag(NamedTuple):
    """All regions that were read, as one row per image: b rows of up to N regions.

    Attributes:
        features: (b, N, d).
        positions: (b, N, 3).
        valid: (b, N) bool; where False, all other values are 0.
        level: (b, N), 0 for the overview.
        log_probability: (b, N).
        places: for each level (v,), the index along N of its regions.
    """

    features: Tensor
    positions: Tensor
    valid: Tensor
    level: Tensor
    log_probability: Tensor
    places: tuple[Tensor, ...]


def slots(image: Tensor, b: int) -> Tensor:
    """Return (v,) the 0-based index of each region within its image."""
    before = functional.one_hot(image, b).cumsum(dim=0) - 1
    return before.gather(-1, image.unsqueeze(-1)).squeeze(-1)


def padded_rows(values: Tensor, image: Tensor, b: int) -> Tensor:
    """Return values (v, ...) as one row per image, (b, m, ...), in their order; rows are filled up with 0 or False."""
    place = slots(image, b)
    rows = values.new_zeros((b, int(place.max()) + 1, *values.shape[1:]))
    return rows.index_put((image, place), values)


def overview_level(view: SquareView, side: int, see: See, device: torch.device) -> Level:
    """Return the overviews as a level: one region per image, at position (0, 0, 0).

    Args:
        view: overviews of b images.
        side: side of the view in level-0 pixels.
        see: encodes tiles.
        device: of the model.
    """
    b, place = len(view.pixels), torch.tensor([round(at) for at in view.origin], device=device)
    image, one = torch.arange(b, device=device), torch.ones(b, device=device)
    regions = Regions(image, place.expand(b, -1), image.new_zeros(b, 3), one, one.log(), side)
    features, maps = see(TileBatch(view.pixels.unsqueeze(1), torch.ones(b, 1, dtype=torch.bool)), regions)
    return Level(regions, features[:, 0], maps[:, 0])


def read_level(source: TileSource, regions: Regions, base: int, see: See) -> tuple[Read, Level]:
    """Read all regions of a level in one request; a region that cannot be read is not in the level.

    Args:
        source: b images.
        regions: v regions.
        base: pixels along a side of a tile.
        see: encodes tiles.
    """
    image, b = regions.image, source.batch
    place, tiles = slots(image, b), _tiles(regions, b, base)
    batch = source.read(tiles)
    valid = batch.valid.to(image.device)[image, place]
    features, maps = see(TileBatch(batch.pixels, padded_rows(valid, image, b)), regions)
    level = Level(regions, features[image, place], maps[image, place])
    return Read(regions, tiles, valid), level.only(valid)


def _tiles(regions: Regions, b: int, base: int) -> TileSet:
    """Return the regions as tiles of base² pixels; rows are filled up with the first region of the request."""
    filled = padded_rows(torch.ones_like(regions.image), regions.image, b) > 0
    locations = padded_rows(regions.places, regions.image, b).where(filled.unsqueeze(-1), regions.places[0])
    return TileSet(locations.cpu().numpy(), (base, base), regions.side / base)


def gathered(levels: Sequence[Level], b: int) -> Bag:
    """Return the regions of all levels as one row per image, the overview first."""
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
    """Return one glimpse per level for each image, "level-1" and so on; none for a level without regions.

    Args:
        reads: the request of each level.
        shares: for each level, π of the regions that could be read. The weights of a glimpse are these, scaled to sum
            1; they are all 0 where a whole level of an image could not be read.
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
"""Least share of a region that must be tissue for it to be looked at, as for the cells of other methods."""
MOST_CELLS = 512
"""Most cells along the longer side of a map, however small the smallest region is."""


class RegionCanvas:
    """A grid over the whole image, on which regions of any size and place are compared with the tissue and drawn.

    Args:
        source: b images.
        smallest: side of the smallest region in level-0 pixels; a cell has half of it.

    Attributes:
        grid: grid of the maps.
        tissue: (b, rows, cols) float32, 1 where there is tissue.

    Raises:
        NoTissueError: an image has no cell with tissue.
    """

    def __init__(self, source: TileSource, smallest: int) -> None:
        step = max(smallest / 2, max(source.extent) / MOST_CELLS)
        self.grid, self._extent = Grid.covering(source.extent, (step, step)), source.extent
        self.tissue = source.tissue(self.grid).cpu().float()
        require_tissue(self.tissue > 0)

    def candidates(self, regions: Regions, crop: CropGrid, n: int) -> Tensor:
        """Return which crops of each region may be chosen: those with 10 % of tissue, or else those with the most.

        Args:
            regions: v parents.
            crop: grid of the crops, along x and y alike.
            n: crops along an axis.

        Returns:
            (v, n²) bool, row by row; all False only where no crop holds tissue.
        """
        columns, rows = self._crops(regions, crop, n)
        tissue = self.tissue[regions.image.cpu()]
        with torch.autocast("cpu", enabled=False):
            share = (rows @ tissue @ columns.mT).flatten(1) * (self.grid.step[0] / crop.patch) ** 2
        enough, most = share >= LEAST_TISSUE, share.amax(dim=-1, keepdim=True)
        return torch.where(enough.any(dim=-1, keepdim=True), enough, (share > 0) & (share >= most))

    def share(self, regions: Regions, cells: int) -> Tensor:
        """Return how much of each cell of a region is tissue, (v, cells, cells) in [0, 1], on the CPU.

        Args:
            regions: v regions.
            cells: along a side of a region.
        """
        side = regions.side / cells
        corners = regions.places.cpu().unsqueeze(-2) + (torch.arange(cells, dtype=torch.float64) * side).unsqueeze(-1)
        columns, rows = self._overlaps(corners, side)
        with torch.autocast("cpu", enabled=False):
            covered = rows @ self.tissue[regions.image.cpu()] @ columns.mT
        return (covered * (self.grid.step[0] * self.grid.step[1] / side**2)).clamp(max=1.0)

    def spread(self, levels: Sequence[Regions], masses: Sequence[Tensor]) -> list[AttentionMap]:
        """Return a map "attention" for each image: the mass of each region, spread evenly over its tissue.

        Args:
            levels: regions of each level, all of which hold tissue.
            masses: (v,) masses of each level; those of an image sum to 1.
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
        """Return a map for each image: in each cell the highest value of the crops that touch it, 0 where none does.

        Args:
            regions: v parents.
            crop: grid of the crops, along x and y alike.
            values: (v, n²) values of the crops, 0 or more.
            name: name of the maps.
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
        self, places: Tensor, side: float, extent: tuple[float, float] = (math.inf, math.inf)
    ) -> tuple[Tensor, Tensor]:
        """Return how much squares at places (..., 2) overlap columns (..., cols) and rows (..., rows), in cells.

        What lies outside `extent`, (w, h), does not count.
        """
        (x, y), (width, height) = places.unbind(dim=-1), extent
        columns = overlaps(x, side, self.grid.step[0], self.grid.cols, width)
        return columns.float(), overlaps(y, side, self.grid.step[1], self.grid.rows, height).float()

    def _maps(self, values: Tensor, name: str) -> list[AttentionMap]:
        return [AttentionMap(one.numpy(), self.grid, name) for one in values.masked_fill(self.tissue == 0, torch.nan)]


def _touched(share: Tensor) -> NDArray[np.int64]:
    """Return (..., 2), start and end (exclusive) of the run of cells whose share (..., cells) is above 0."""
    touched = (share > 0).long()
    first = touched.argmax(dim=-1)
    ends: NDArray[np.int64] = torch.stack([first, first + touched.sum(dim=-1)], dim=-1).numpy()
    return ends
