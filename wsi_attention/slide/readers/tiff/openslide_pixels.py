"""Where a region lies in a level's own pixels, as OpenSlide places it .

OpenSlide's rules (openslide.c, openslide-grid.c, and cairo's for surfaces moved by a fraction of a pixel):

- A region of more than 4,096 pixels a side is drawn in parts, each at a level-0 location rounded towards zero.
- A location left of or above the slide moves the picture by whole pixels, rounded towards zero.
- A location within 1/512 of a whole pixel in x and y is taken as whole; any other is kept to 1/65,536 pixel and the
  pixels around it are blended.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

PART = 4096
"""Pixels a side that OpenSlide draws at once."""
FINE = 65536
"""Steps of a pixel in which a fraction counts."""
COARSE = 256
"""Steps of a pixel that make a location whole, where it lies nearest to one."""


WHOLE = (0, 0)
"""The fraction of a place that needs no blending."""


class Place(NamedTuple):
    """A region in a level's pixels.

    Attributes:
        x: column of its first pixel in the level.
        y: row of it.
        fraction: of a pixel that it lies further to the right and below, in 1/65,536; `WHOLE` where it does not.
    """

    x: int
    y: int
    fraction: tuple[int, int]


class Part(NamedTuple):
    """A part of a region that is drawn at once.

    Attributes:
        left: its first column in the region.
        top: its first row.
        size: (w, h); 0 × 0 where nothing of the slide is in it.
        place: of its first pixel.
    """

    left: int
    top: int
    size: tuple[int, int]
    place: Place


def parts(location: tuple[int, int], downsample: float, tile: tuple[int, int], size: tuple[int, int]) -> Iterator[Part]:
    """The parts of a region.

    Args:
        location: (x, y) in level-0 pixels.
        downsample: the level's.
        tile: (w, h) of its stored tiles.
        size: (w, h) of the region in the level's pixels.
    """
    if min(location) >= 0 and max(size) <= PART:
        yield Part(0, 0, size, placed(*location, downsample, tile))
        return
    for row in range(-(-size[1] // PART)):
        for column in range(-(-size[0] // PART)):
            x = int(location[0] + column * PART * downsample)
            y = int(location[1] + row * PART * downsample)
            left, top = column * PART, row * PART
            wide, high = min(size[0] - left, PART), min(size[1] - top, PART)
            beyond_x, beyond_y = int(max(-x, 0) / downsample), int(max(-y, 0) / downsample)
            place = placed(max(x, 0), max(y, 0), downsample, tile)
            yield Part(left + beyond_x, top + beyond_y, (max(wide - beyond_x, 0), max(high - beyond_y, 0)), place)


def placed(x: int, y: int, downsample: float, tile: tuple[int, int]) -> Place:
    """The place of a level-0 location, which is nowhere negative."""
    across, down = x / downsample, y / downsample
    if across.is_integer() and down.is_integer():
        return Place(int(across), int(down), WHOLE)
    # the same steps in floating point as OpenSlide's, which counts from the first tile that a region meets
    first = math.floor(across / tile[0]) * tile[0], math.floor(down / tile[1]) * tile[1]
    inside = across - first[0], down - first[1]
    if all(_steps(part, COARSE) % COARSE == 0 for part in inside):
        return Place(first[0] + math.floor(inside[0] + 0.5), first[1] + math.floor(inside[1] + 0.5), WHOLE)
    (whole_x, part_x), (whole_y, part_y) = (divmod(round(part * FINE), FINE) for part in inside)
    return Place(first[0] + whole_x, first[1] + whole_y, (part_x, part_y))


def _steps(value: float, steps: int) -> int:
    return math.floor(value * steps + 0.5)
