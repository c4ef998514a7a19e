"""Slides whose tiles need not be read, because their features are known: beside the slide, or without it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_attention.bags.bag import Bag
from wsi_attention.geometry import Grid, same_scale
from wsi_attention.protocols import InStrips, Remembering, TileSource
from wsi_attention.structures import Counters, Strip, TileBatch, TileSet

FINEST = 4
"""Pixels along a side of a tile in the finest overview of a bag without a slide."""


class StoredTiles:
    """The tiles of a bag, to be found by place; features have length 1 and are float32.

    Files of TRIDENT, CLAM and STAMP hold features as their encoder gives them; ours give features of length 1, and so
    all are scaled to that here.

    Args:
        bag: with features.
        pixels: side of a tile as the model reads it.
    """

    def __init__(self, bag: Bag, pixels: int) -> None:
        assert bag.features is not None
        raw = torch.from_numpy(np.asarray(bag.features, np.float32))
        self.features = torch.nn.functional.normalize(raw, dim=-1)
        self.side, self.size = bag.side, (pixels, pixels)
        self.locations = bag.locations
        self._order = np.lexsort((bag.locations[:, 1], bag.locations[:, 0]))
        self._sorted = bag.locations[self._order]

    def fits(self, size: tuple[int, int], downsample: float) -> bool:
        """Return whether tiles of this size are those of the bag, within 5 %."""
        return size == self.size and same_scale(size[0] * downsample, self.side)

    def nearest(self, locations: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the index of the stored tile nearest to each location (n, 2); −1 where none is within half a tile."""
        half = self.side / 2
        first = np.searchsorted(self._sorted[:, 0], locations[:, 0] - half, "left")
        last = np.searchsorted(self._sorted[:, 0], locations[:, 0] + half, "right")
        found = [self._in_columns(*one) for one in zip(locations, first.tolist(), last.tolist(), strict=True)]
        return np.array(found, np.int64).reshape(len(locations))

    def _in_columns(self, location: NDArray[np.int64], first: int, last: int) -> int:
        """Return the nearest of the tiles first … last of the sorted ones, whose columns are near enough."""
        away = self._sorted[first:last] - location
        near = np.abs(away[:, 1]) <= self.side / 2
        if not near.any():
            return -1
        distance = np.where(near, (away.astype(np.float64) ** 2).sum(axis=1), np.inf)
        return int(self._order[first + int(np.argmin(distance))])


class StoredSource:
    """Base of both sources: tiles move to the nearest stored one, whose feature is known.

    Attributes:
        failures: one line for each tile that has no feature and cannot be read.
        taken: stored tiles whose feature a model has asked for.
    """

    def __init__(self, stored: StoredTiles) -> None:
        self._stored = stored
        self.failures: list[str] = []
        self.taken: set[int] = set()

    def remembered(self, tiles: TileSet) -> tuple[Tensor, Tensor] | None:
        """Return the features (b, n, d) of the nearest stored tiles, and which have one within half a tile, (b, n)."""
        if not self._stored.fits(tiles.size, tiles.downsample):
            return None
        index = torch.from_numpy(self._nearest(tiles))
        known = index >= 0
        self.taken.update(index[known].tolist())
        features = self._stored.features[index.clamp(min=0)]
        return features.masked_fill(~known.unsqueeze(-1), 0.0), known

    def remember(self, tiles: TileSet, features: Tensor, valid: Tensor) -> None:
        """Keep nothing: the files are others'."""

    def listed(self, size: tuple[int, int], downsample: float) -> TileSet | None:
        """Return all tiles of the bag; None where tiles of this size and scale are not in it."""
        if not self._stored.fits(size, downsample):
            return None
        return TileSet(self._stored.locations, size, downsample)

    def _moved(self, tiles: TileSet, otherwise: TileSet) -> TileSet:
        """Return the tiles, each at the place of the nearest stored one; where there is none, as in `otherwise`."""
        index = self._nearest(tiles)
        places = self._stored.locations[index.clip(min=0)]
        return replace(tiles, locations=np.where((index >= 0)[..., None], places, otherwise.locations))

    def _nearest(self, tiles: TileSet) -> NDArray[np.int64]:
        flat = tiles.locations.reshape(-1, 2)
        return self._stored.nearest(flat).reshape(tiles.locations.shape[:2])

    def _failed(self, tiles: TileSet, channels: int, why: str) -> TileBatch:
        b, n = tiles.locations.shape[:2]
        self.failures += [f"{why} ({x}, {y})" for x, y in tiles.locations.reshape(-1, 2).tolist()]
        nothing = torch.zeros((), dtype=torch.uint8).expand(b, n, channels, tiles.size[1], tiles.size[0])
        return TileBatch(nothing, torch.zeros((b, n), dtype=torch.bool))


def _shares(starts: NDArray[np.int64], side: float, step: float) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Return the pixels (n,) along one axis that each tile reaches, one after the other, and how much of each."""
    first = np.floor(starts / step).astype(np.int64)
    found = []
    for pixel in (first + i for i in range(math.ceil(side / step) + 1)):
        covered = np.minimum(starts + side, (pixel + 1) * step) - np.maximum(starts, pixel * step)
        found.append((pixel, covered.clip(min=0) / step))
    return found


def _covering(
    starts: NDArray[np.int64], side: int, shape: tuple[int, int], downsample: float
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield tiles (n,) bool, the pixels (m,) of a picture that these reach, and how much of each they cover.

    Args:
        starts: (n, 2), (x, y) of tiles from the picture's corner on, in level-0 pixels.
        side: of a tile.
        shape: (rows, cols) of the picture.
        downsample: level-0 pixels per pixel of it.
    """
    rows, cols = shape
    across = [_shares(starts[:, i], float(side), downsample) for i in (0, 1)]
    for (col, wide), (row, high) in itertools.product(*across):
        inside = torch.from_numpy((col >= 0) & (col < cols) & (row >= 0) & (row < rows) & (wide * high > 0))
        cells, area = torch.from_numpy(row * cols + col), torch.from_numpy(wide * high).float()
        yield inside, cells[inside], area[inside]


def _pooled(
    features: Tensor, starts: NDArray[np.int64], side: int, shape: tuple[int, int], downsample: float
) -> Tensor:
    """Return a picture (d, rows, cols) of the mean feature over each pixel's area, 0 where there is none.

    `features` (n, d) are those of the tiles; all else as for `_covering`.
    """
    size = shape[0] * shape[1]
    sums, areas = features.new_zeros(size, features.shape[1]), torch.zeros(size)
    for inside, cells, area in _covering(starts, side, shape, downsample):
        sums.index_add_(0, cells, features[inside] * area.unsqueeze(-1))
        areas.index_add_(0, cells, area)
    mean = sums / areas.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(-1)
    return mean.T.reshape(-1, *shape)


class FeaturedSource(StoredSource):
    """A slide's `TileSource` some of whose tiles have known features; overview and tissue are the slide's.

    Attributes:
        extent: (w, h) in level-0 pixels.
        batch: 1, one slide.
        failures: one line for each tile that has no feature and cannot be read.
    """

    def __init__(self, source: TileSource, stored: StoredTiles, readable: bool = True) -> None:
        """Take the slide as it is.

        Args:
            source: one slide.
            stored: its tiles with features.
            readable: whether the model can encode tiles without a feature; they count as failed otherwise.
        """
        super().__init__(stored)
        self._source, self._readable = source, readable
        self.extent: tuple[int, int] = source.extent
        self.batch = source.batch

    def remembered(self, tiles: TileSet) -> tuple[Tensor, Tensor] | None:
        """Return features (b, n, d) that the bag knows, or else the slide's source, and which these are, (b, n)."""
        own = super().remembered(tiles)
        more = self._source.remembered(tiles) if isinstance(self._source, Remembering) else None
        if own is None or more is None:
            return own or more
        return torch.where(own[1].unsqueeze(-1), own[0], more[0].to(own[0])), own[1] | more[1].to(own[1].device)

    def remember(self, tiles: TileSet, features: Tensor, valid: Tensor) -> None:
        """Hand what was read on to the slide's source."""
        if isinstance(self._source, Remembering):
            self._source.remember(tiles, features, valid)

    @property
    def counters(self) -> Counters:
        """What reading has cost so far; a known feature costs nothing."""
        return self._source.counters

    def downsample(self, mpp: float) -> float:
        """Return what the slide's source returns."""
        return self._source.downsample(mpp)

    def overview_downsample(self, mpp: float) -> float:
        """Return what the slide's source returns."""
        return self._source.overview_downsample(mpp)

    def overview(self, downsample: float) -> Tensor:
        """Return what the slide's source returns."""
        return self._source.overview(downsample)

    def tissue(self, grid: Grid) -> Tensor:
        """Return what the slide's source returns."""
        return self._source.tissue(grid)

    def aligned(self, tiles: TileSet) -> TileSet:
        """Return the tiles at the nearest stored ones; where none is within half a tile, as the slide's source does."""
        otherwise = self._source.aligned(tiles)
        return self._moved(tiles, otherwise) if self._stored.fits(tiles.size, tiles.downsample) else otherwise

    def read(self, tiles: TileSet) -> TileBatch:
        """Read tiles from the slide; those that would have to be encoded and cannot be are not valid."""
        if not self._readable and self._stored.fits(tiles.size, tiles.downsample):
            return self._failed(tiles, 3, "the model has no encoder, and no feature is stored near the tile at")
        return self._source.read(tiles)


class FeaturedStripSource(FeaturedSource):
    """The same for a source that can show its overview in strips."""

    def overview_strips(self, downsample: float, rows: int, halo: int) -> Iterator[Strip[Tensor]]:
        """Yield what the slide's source yields."""
        return cast(InStrips, self._source).overview_strips(downsample, rows, halo)


def featured(source: TileSource, stored: StoredTiles, readable: bool = True) -> FeaturedSource:
    """Return a slide's source that knows the features of some tiles; arguments as in `FeaturedSource`."""
    kind = FeaturedStripSource if isinstance(source, InStrips) else FeaturedSource
    return kind(source, stored, readable)


class BagSource(StoredSource):
    """A bag without its slide as a `TileSource`: tissue is where tiles are, the overview a grid of mean features.

    Attributes:
        extent: (w, h) in level-0 pixels, as far as tiles reach where the file does not say.
        batch: 1, one slide.
        mpp: µm per level-0 pixel, as it follows from the tiles.
        failures: one line for each tile that has no feature.
        counters: always zero; nothing is read.
    """

    counters: Counters = Counters()

    def __init__(self, bag: Bag, stored: StoredTiles, tile_mpp: float) -> None:
        """Take the tiles.

        Args:
            bag: the tiles.
            stored: the same, to be found by place.
            tile_mpp: µm per pixel of a tile as the model reads it; level 0 is taken to be as fine as that makes it.
        """
        super().__init__(stored)
        self.batch = 1
        self.mpp = tile_mpp * stored.size[0] / bag.side
        self._centres = bag.locations + bag.side / 2
        width, height = bag.extent or (bag.locations.max(axis=0) + bag.side).tolist()
        self.extent: tuple[int, int] = (max(1, int(width)), max(1, int(height)))

    def downsample(self, mpp: float) -> float:
        """Return level-0 pixels per pixel at the wanted µm/px, never below 1."""
        return max(1.0, mpp / self.mpp)

    def overview_downsample(self, mpp: float) -> float:
        """Return the same, but at least a quarter of a tile: features say nothing finer."""
        return max(self.downsample(mpp), self._stored.side / FINEST)

    def overview(self, downsample: float) -> Tensor:
        """Return (1, d, h, w) float32: the mean feature over a pixel's area, as far as tiles cover it; 0 elsewhere."""
        stored = self._stored
        return _pooled(stored.features, stored.locations, stored.side, self._shape(downsample), downsample)[None]

    def covered(self) -> tuple[NDArray[np.bool_], float]:
        """Return where tiles are, (h, w) bool, true where they cover half a pixel, and level-0 pixels per pixel."""
        downsample = self._stored.side / FINEST
        rows, cols = self._shape(downsample)
        areas = torch.zeros(rows * cols)
        for _, cells, area in _covering(self._stored.locations, self._stored.side, (rows, cols), downsample):
            areas.index_add_(0, cells, area)
        return (areas >= 0.5).reshape(rows, cols).numpy(), downsample

    def tissue(self, grid: Grid) -> Tensor:
        """Return (1, rows, cols) bool: the cells in which the centre of a tile lies."""
        cells = np.zeros(grid.rows * grid.cols, np.bool_)
        cells[self._cells(grid)] = True
        return torch.from_numpy(cells.reshape(1, *grid.shape))

    def aligned(self, tiles: TileSet) -> TileSet:
        """Return the tiles at the nearest stored ones, where one is within half a tile."""
        return self._moved(tiles, tiles) if self._stored.fits(tiles.size, tiles.downsample) else tiles

    def read(self, tiles: TileSet) -> TileBatch:
        """Return views as grids of mean features (1, n, d, h, w), all valid.

        What is finer than a quarter of a stored tile is a tile itself: there is no slide to read it from, so it is not
        valid.
        """
        if tiles.downsample < self._stored.side / FINEST:
            return self._failed(tiles, 3, "no feature is stored near the tile at")
        views = [self._view(location, tiles.size, tiles.downsample) for location in tiles.locations[0]]
        return TileBatch(torch.stack(views)[None], torch.ones(1, len(views), dtype=torch.bool))

    def _view(self, location: NDArray[np.int64], size: tuple[int, int], downsample: float) -> Tensor:
        """Return the mean features (d, h, w) in a region whose top left corner is given in level-0 pixels."""
        stored, starts = self._stored, self._stored.locations - location
        near = ((starts > -self._stored.side) & (starts < np.array(size) * downsample)).all(axis=1)
        return _pooled(stored.features[torch.from_numpy(near)], starts[near], stored.side, size[::-1], downsample)

    def _shape(self, downsample: float) -> tuple[int, int]:
        """Return rows and columns of an overview."""
        return math.ceil(self.extent[1] / downsample), math.ceil(self.extent[0] / downsample)

    def _cells(self, grid: Grid) -> NDArray[np.int64]:
        """Return the flat index (n,) of the cell in which each tile's centre lies."""
        col, row = (np.floor((self._centres[:, i] - grid.origin[i]) / grid.step[i]) for i in (0, 1))
        inside = row.clip(0, grid.rows - 1) * grid.cols + col.clip(0, grid.cols - 1)
        return np.asarray(inside, np.int64)


def notes_of(source: StoredSource, read: int) -> Sequence[str]:
    """Return what a reader of a result should know: how many tiles were not read, and how many were all the same."""
    more = f"; {read} tiles that have none were read" if read else ""
    return (f"features of {len(source.taken)} tiles were taken from a file{more}",)
