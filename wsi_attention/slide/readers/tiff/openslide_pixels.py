"""Where OpenSlide draws stored tiles that do not lie on whole pixels of the result, and how it blends them.

OpenSlide's rules (openslide.c, openslide-grid.c, and cairo's for surfaces moved by a fraction of a pixel):

- A region of more than 4,096 pixels a side is drawn in parts, each at a level-0 location rounded towards zero.
- A location left of or above the slide moves the picture by whole pixels, rounded towards zero.
- A location within 1/512 of a whole pixel in x and y is taken as whole; any other is kept to 1/65,536 pixel and the
  pixels around it are blended.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsi_attention.slide.resample import Pixels, on_white

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
    """Cut a region into parts.

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
    """Return the place of a level-0 location; it is never negative."""
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


Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

ROWS = 32
"""Rows that are blended at once, so that they stay in the processor's cache."""
BYTE = np.float32(1) / np.float32(255)

TOP_LEFT, TOP_RIGHT, BOTTOM_LEFT, BOTTOM_RIGHT = range(4)
WITHIN = ((TOP_LEFT, TOP_RIGHT, BOTTOM_LEFT, BOTTOM_RIGHT),)
ACROSS_COLUMNS = ((TOP_RIGHT, BOTTOM_RIGHT), (TOP_LEFT, BOTTOM_LEFT))
ACROSS_ROWS = ((BOTTOM_LEFT, BOTTOM_RIGHT), (TOP_LEFT, TOP_RIGHT))
ACROSS_BOTH = ((BOTTOM_RIGHT,), (BOTTOM_LEFT,), (TOP_RIGHT,), (TOP_LEFT,))
"""Which neighbours lie in one tile, in the order in which the tiles are drawn."""


def blended(
    stored: Pixels, there: NDArray[np.bool_] | None, corner: tuple[int, int], tile: tuple[int, int],
    fraction: tuple[int, int],
) -> Pixels:  # fmt: skip
    """Draw a region that begins between stored pixels, on white.

    Args:
        stored: (h + 1, w + 1, 3), the stored pixels around it.
        there: (h + 1, w + 1), False where nothing is stored; None where all is.
        corner: (x, y) of the first stored pixel in the level.
        tile: (w, h) of the level's tiles.
        fraction: how far to the right and below the region begins, in 1/65,536 pixel.

    Returns:
        (h, w, 3).
    """
    weights = _weights(fraction)
    rows, columns = np.arange(stored.shape[0] - 1), np.arange(stored.shape[1] - 1)
    out = _opaque(stored, weights) if there is None else _drawn(stored, there, rows, columns, weights, WITHIN)
    between_rows = rows[(corner[1] + rows + 1) % tile[1] == 0]
    between_columns = columns[(corner[0] + columns + 1) % tile[0] == 0]
    for some_rows, some_columns, order in (
        (rows, between_columns, ACROSS_COLUMNS),
        (between_rows, columns, ACROSS_ROWS),
        (between_rows, between_columns, ACROSS_BOTH),
    ):
        if len(some_rows) and len(some_columns):
            out[np.ix_(some_rows, some_columns)] = _drawn(stored, there, some_rows, some_columns, weights, order)
    return out


def _weights(fraction: tuple[int, int]) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    x, y = (np.float32(part) / np.float32(FINE) for part in fraction)
    one = np.float32(1)
    return (one - x) * (one - y), x * (one - y), (one - x) * y, x * y


def _opaque(stored: Pixels, weights: Sequence[np.float32]) -> Pixels:
    """Draw all pixels as if they lay within one tile; the bulk of the work."""
    height, width = stored.shape[0] - 1, stored.shape[1] - 1
    out = np.empty((height, width, 3), np.uint8)
    alpha = ((weights[0] + weights[1]) + weights[2]) + weights[3]
    share = min(np.float32(1), np.float32(1) / alpha)
    for top in range(0, height, ROWS):
        part = stored[top : top + ROWS + 1].astype(np.float32)
        part *= BYTE
        upper, lower = part[:-1], part[1:]
        total = upper[:, :-1] * weights[TOP_LEFT]
        total += upper[:, 1:] * weights[TOP_RIGHT]
        total += lower[:, :-1] * weights[BOTTOM_LEFT]
        total += lower[:, 1:] * weights[BOTTOM_RIGHT]
        if share != 1:
            total *= share
        out[top : top + ROWS] = _bytes(total)
    return out


def _drawn(
    stored: Pixels, there: NDArray[np.bool_] | None, rows: Indices, columns: Indices,
    weights: Sequence[np.float32], order: Sequence[Sequence[int]],
) -> Pixels:  # fmt: skip
    """Draw some rows and columns tile by tile."""
    neighbours = [_premultiplied(stored, there, rows + down, columns + right) for down in (0, 1) for right in (0, 1)]
    drawn = np.zeros((len(rows), len(columns), 4), np.uint8)
    for together in order:
        source = neighbours[together[0]] * weights[together[0]]
        for which in together[1:]:
            source += neighbours[which] * weights[which]
        drawn = _saturated(source, drawn)
    return on_white(_straight(drawn))


def _premultiplied(stored: Pixels, there: NDArray[np.bool_] | None, rows: Indices, columns: Indices) -> Floats:
    """Return some pixels as RGBA in [0, 1], transparent ones black."""
    where = np.ix_(rows, columns)
    found = np.ones((len(rows), len(columns), 4), np.float32)
    found[..., :3] = stored[where].astype(np.float32) * BYTE
    if there is not None:
        found *= there[where][..., None]
    return found


def _saturated(source: Floats, drawn: Pixels) -> Pixels:
    """Lay a tile on what is drawn, where that is still transparent (Porter and Duff)."""
    below = drawn.astype(np.float32) * BYTE
    alpha, free = source[..., 3:], np.float32(1) - below[..., 3:]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(alpha > 0, np.clip(free / alpha, 0, 1), np.float32(1)).astype(np.float32)
    return _bytes(source * share + below)


def _bytes(fractions: Floats) -> Pixels:
    """Turn values in [0, 1] into bytes as pixman does; the argument is overwritten."""
    np.minimum(fractions, np.float32(1), out=fractions)
    fractions *= np.float32(256)
    found = fractions.astype(np.uint16)
    found -= found >> np.uint16(8)
    return found.astype(np.uint8)


def _straight(drawn: Pixels) -> Pixels:
    """Divide colours by their alpha, rounded down, as openslide-python does."""
    alpha = drawn[..., 3:].astype(np.uint16)
    partly = (alpha > 0) & (alpha < 255)
    colours = np.minimum(np.uint16(255) * drawn[..., :3] // np.maximum(alpha, 1), 255)
    found = drawn.copy()
    found[..., :3] = np.where(partly, colours, drawn[..., :3])
    return found
