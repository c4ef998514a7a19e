"""Pixels: transparency laid on white, and means over areas."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Pixels = NDArray[np.uint8]
"""Pixels as bytes, (h, w, 3) where nothing else is said."""

BAND_VALUES = 1_000_000
"""Values averaged at once: few enough for memory and the processor's cache, but a whole tile, for each step lets go of
Python's lock, and threads that ask for it all the time wait for each other."""
MOST_WHOLE = 16
"""Cells of at most so many pixels a side are summed as whole numbers of 16 bits."""
MANY_VALUES = 200_000
"""Values from which on means are sparse products, in a half to a quarter of the time and the steps."""


def overlaps(start: float, step: float, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the share of each source pixel in each of `count` cells of width `step`, the first beginning at `start`.

    Args:
        start: left border of the first cell, in source pixels; need not be whole.
        step: width of a cell in source pixels, > 0.
        count: number of cells.

    Returns:
        The first source pixel that each cell touches, (count,), and the shares of that pixel and those after it,
        (count, span); every row sums to 1.
    """
    edges = np.round(start + step * np.arange(count + 1), 6)
    first = np.floor(edges[:-1]).astype(np.int64)
    span = int((np.ceil(edges[1:]) - first).max(initial=1))
    pixels = first[:, None] + np.arange(span)
    inside = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shares = np.clip(inside, 0.0, None)
    return first, (shares / shares.sum(1, keepdims=True)).astype(np.float32)


def _along_rows(
    pixels: NDArray[np.generic], first: NDArray[np.int64], shares: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return means of rows, with the shares of `overlaps`."""
    flat, count = pixels.reshape(pixels.shape[0], -1), len(first)
    mean = np.zeros((count, flat.shape[1]), np.float32)
    part = np.empty_like(mean)
    for k in range(shares.shape[1]):
        np.multiply(flat.take(first + k, axis=0, mode="clip"), shares[:, k, None], out=part)
        mean += part
    return mean.reshape(count, *pixels.shape[1:])


def area_mean(
    pixels: NDArray[np.uint8], start: tuple[float, float], step: float, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return the mean colour of each step × step cell of an image.

    A box filter that counts a source pixel either wholly or not at all shifts the picture by up to half a source
    pixel where the step is not whole; here a pixel on a border counts by the share of it that lies inside.

    Args:
        pixels: (h, w, c) uint8; must cover all cells.
        start: (x, y) of the first cell's top left corner, in source pixels.
        step: side of a cell in source pixels.
        size: (w, h) of the result.

    Returns:
        (size[1], size[0], c) uint8, rounded half up.
    """
    result = np.empty((size[1], size[0], pixels.shape[2]), np.uint8)
    x, y, side = (round(float(value), 6) for value in (*start, step))
    if x.is_integer() and y.is_integer() and side.is_integer() and 1 < side <= MOST_WHOLE:
        left, top, n = int(x), int(y), int(side)
        _means_of_squares(pixels[top : top + n * size[1], left : left + n * size[0]], n, result)
        return result
    down, across = overlaps(start[1], step, size[1]), overlaps(start[0], step, size[0])
    if pixels.size >= MANY_VALUES:
        _means_by_products(pixels, down, across, result)
        return result
    rows = max(1, BAND_VALUES // pixels[0].size)
    for top in range(0, size[1], rows):
        band = _along_rows(pixels, down[0][top : top + rows], down[1][top : top + rows])
        columns = _along_rows(np.ascontiguousarray(band.swapaxes(0, 1)), *across)
        columns += 0.5
        result[top : top + rows] = columns.swapaxes(0, 1)
    return result


Overlaps = tuple[NDArray[np.int64], NDArray[np.float32]]


def _means_by_products(pixels: NDArray[np.uint8], down: Overlaps, across: Overlaps, out: NDArray[np.uint8]) -> None:
    """Write means of cells, rounded half up; the same numbers, as the shares of a cell are added in the same order."""
    (height, width, channels), flat = pixels.shape, pixels.reshape(len(pixels), -1)
    columns = _shares(*across, width, channels)
    rows = max(1, BAND_VALUES // flat.shape[1])
    for top in range(0, len(out), rows):
        first, shares = down[0][top : top + rows], down[1][top : top + rows]
        begin, end = int(first[0]), min(int(first[-1]) + shares.shape[1], height)
        band = _shares(first - begin, shares, end - begin) @ flat[begin:end].astype(np.float32)
        means = columns @ np.ascontiguousarray(band.T)
        means += np.float32(0.5)
        out[top : top + rows] = means.T.reshape(-1, *out.shape[1:])


def _shares(first: NDArray[np.int64], shares: NDArray[np.float32], pixels: int, channels: int = 1) -> csr_array:
    """Return the shares of `overlaps` as a matrix (count · channels, pixels · channels), channels innermost."""
    from scipy.sparse import csr_array

    columns = np.minimum(first[:, None] + np.arange(shares.shape[1]), pixels - 1) * channels
    columns = (columns[:, None] + np.arange(channels)[:, None]).reshape(-1, shares.shape[1])
    shares = np.repeat(shares, channels, axis=0)
    there = shares > 0
    ends = np.concatenate([[0], np.cumsum(there.sum(1))])
    return csr_array((shares[there], columns[there], ends), shape=(len(columns), pixels * channels))


def _means_of_squares(pixels: NDArray[np.uint8], side: int, out: NDArray[np.uint8]) -> None:
    """Write means of side × side pixels, rounded half up: the same numbers in a fifth of the time."""
    area = side * side
    rows = max(1, BAND_VALUES // pixels[0].size)
    for top in range(0, len(out), rows):
        band = pixels[side * top : side * (top + rows)]
        sums = np.add(band[::side], band[1::side], dtype=np.uint16)
        for k in range(2, side):
            sums += band[k::side]
        for channel in range(out.shape[2]):
            cells = sums[:, ::side, channel] + np.uint16(area // 2)
            for k in range(1, side):
                cells += sums[:, k::side, channel]
            out[top : top + rows, :, channel] = cells // np.uint16(area)


Crop = Callable[[slice, slice], NDArray[np.uint8]]


def on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay pixels (h, w, 3 or 4) on white, contiguous (h, w, 3); round to the nearest grey level."""
    if pixels.shape[2] == 3:
        return np.ascontiguousarray(pixels)
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    if int(alpha.min(initial=255)) == 255:
        opaque = np.empty((*pixels.shape[:2], 3), np.uint8)
        for channel in range(3):  # seven times as fast as ascontiguousarray
            opaque[..., channel] = colour[..., channel]
        return opaque
    share = alpha.astype(np.uint16)
    laid = colour.astype(np.uint16) * share + np.uint16(255) * (np.uint16(255) - share)
    return ((laid + np.uint16(127)) // np.uint16(255)).astype(np.uint8)


def level_location(location: tuple[int, int], downsample: float) -> tuple[int, int]:
    """Return the whole pixel of a level nearest to a level-0 location; halves go up.

    OpenSlide interpolates between pixels where a location falls between them; readers that go through this
    function take the nearest pixel, so the two differ by at most half a pixel of the level.
    """
    return int(np.floor(location[0] / downsample + 0.5)), int(np.floor(location[1] / downsample + 0.5))


def padded(crop: Crop, extent: tuple[int, int], corner: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Read a (w, h) rectangle of a level that may reach outside it; outside is white.

    Args:
        crop: returns (h, w, 3 or 4) for a slice of rows and one of columns, both inside the level.
        extent: (w, h) of the level.
        corner: (x, y) of the rectangle in the level's pixels.
        size: (w, h) of the rectangle.
    """
    left, top = max(corner[0], 0), max(corner[1], 0)
    right, bottom = min(corner[0] + size[0], extent[0]), min(corner[1] + size[1], extent[1])
    if right <= left or bottom <= top:
        return np.full((size[1], size[0], 3), 255, np.uint8)
    inside = crop(slice(top, bottom), slice(left, right))
    if inside.shape[:2] != (bottom - top, right - left):
        raise ValueError(f"{inside.shape[1]}×{inside.shape[0]} pixels came instead of {right - left}×{bottom - top}")
    if (right - left, bottom - top) == size:
        return inside
    canvas = np.full((size[1], size[0], inside.shape[2]), 255, np.uint8)
    canvas[top - corner[1] : bottom - corner[1], left - corner[0] : right - corner[0]] = inside
    return canvas
