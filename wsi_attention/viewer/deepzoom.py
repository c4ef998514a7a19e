"""A slide as a Deep Zoom pyramid: levels a power of two apart, square tiles, computed from a `View` on demand.

Level numbers are those of Deep Zoom: the last is the slide's level 0, each one before has half its size, rounded up.
Tiles do not overlap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from wsi_attention.errors import InputError
from wsi_attention.export.layers import jpeg_bytes
from wsi_attention.slide.slide import Slide
from wsi_attention.slide.view import View

SIDE = 256
"""Width and height of a tile in pixels; smaller at the right and bottom edge."""
AFFORDABLE = 16_000_000
"""Stored pixels that may be read for one tile; coarser levels of a slide without a pyramid are not offered."""
QUALITY = 82


@dataclass(frozen=True)
class DeepZoom:
    """The pyramid of a (w, h) slide.

    Attributes:
        extent: (w, h) of level 0 of the slide.
    """

    extent: tuple[int, int]

    @property
    def last(self) -> int:
        """The number of the finest level."""
        return math.ceil(math.log2(max(self.extent)))

    def downsample(self, level: int) -> int:
        """Return how many level-0 pixels a pixel of a level is wide."""
        return int(2 ** (self.last - level))

    def size(self, level: int) -> tuple[int, int]:
        """Return (w, h) of a level in its pixels."""
        return -(-self.extent[0] // self.downsample(level)), -(-self.extent[1] // self.downsample(level))

    def place(self, level: int, col: int, row: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return a tile's location in level-0 pixels and its (w, h) in the level's pixels.

        Raises:
            InputError: the pyramid has no such tile.
        """
        if not 0 <= level <= self.last:
            raise InputError(f"level {level} was asked; there are 0 to {self.last}")
        width, height = self.size(level)
        left, top = col * SIDE, row * SIDE
        if not (0 <= left < width and 0 <= top < height):
            raise InputError(f"tile {col}, {row} of level {level} was asked, which has {width} x {height} pixels")
        downsample = self.downsample(level)
        return (left * downsample, top * downsample), (min(SIDE, width - left), min(SIDE, height - top))

    def coarsest(self, slide: Slide) -> int:
        """Return the coarsest level whose tiles need at most `AFFORDABLE` stored pixels."""
        stored = slide.level_downsamples
        for level in range(self.last + 1):
            downsample = float(self.downsample(level))
            side = min(SIDE * downsample, max(self.extent)) / stored[slide.best_level(downsample)]
            if side**2 <= AFFORDABLE:
                return level
        return self.last

    def tile(self, slide: Slide, level: int, col: int, row: int) -> bytes:
        """Return a tile as JPEG.

        Raises:
            InputError: the pyramid has no such tile, or it is coarser than `coarsest`.
            TileReadError: the file's pixels could not be read.
        """
        location, size = self.place(level, col, row)
        if level < self.coarsest(slide):
            raise InputError(f"level {level} was asked; this slide has no coarse pixels stored to make it from")
        return jpeg_bytes(View(slide, self.downsample(level)).read(location, size), QUALITY)
