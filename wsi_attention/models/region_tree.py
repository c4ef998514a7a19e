"""Regions inside regions, those of all images in one row: on their way to a request, to padded tensors, to records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from wsi_attention.structures import Glimpse, TileSet


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
        return Regions(*(values[kept] for values in self[:-1]), self.side)


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


def slots(image: Tensor, b: int) -> Tensor:
    """(v,) the how-manieth of its image each one is, from 0."""
    before = functional.one_hot(image, b).cumsum(dim=0) - 1
    return before.gather(-1, image.unsqueeze(-1)).squeeze(-1)


def padded_rows(values: Tensor, image: Tensor, b: int) -> Tensor:
    """(v, ...) -> (b, m, ...): those of each image in their order, filled up with 0 or False."""
    place = slots(image, b)
    rows = values.new_zeros((b, int(place.max()) + 1, *values.shape[1:]))
    return rows.index_put((image, place), values)


def request(regions: Regions, b: int, base: int) -> TileSet:
    """The regions of b images as tiles of base² pixels; rows are filled up with a region of this request."""
    filled = padded_rows(torch.ones_like(regions.image), regions.image, b) > 0
    locations = padded_rows(regions.places, regions.image, b).where(filled.unsqueeze(-1), regions.places[0])
    return TileSet(locations.cpu().numpy(), (base, base), regions.side / base)


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
