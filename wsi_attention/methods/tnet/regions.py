"""Regions inside regions, those of all images in one row: on their way to a request, to padded tensors, to records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from wsi_attention.models.square_view import SquareView
from wsi_attention.protocols import TileSource
from wsi_attention.structures import Glimpse, TileBatch, TileSet

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
