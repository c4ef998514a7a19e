"""A slide as napari reads it: one array a level, of which nothing is in memory until a part is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_attention import Slide, View

COARSEST = 4_000_000
"""Pixels of the last level at most: napari holds it whole."""

LARGEST = 2**28
"""Pixels that may be asked for at once."""


class Level:
    """A slide at one downsample, with as much of an array (h, w, 3) uint8 as napari asks for.

    A dask array of a slide's tiles would have 150,000 chunks at 100,000²: slicing it takes a hundred times as long as
    reading the pixels. Here a slice is one read.

    Attributes:
        view: the slide at that downsample.
        shape: (h, w, 3).
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, view: View) -> None:
        self.view = view
        self.shape = (view.size[1], view.size[0], 3)

    def __repr__(self) -> str:
        return f"Level({self.view.slide.path!r}, downsample={self.view.downsample:g}, shape={self.shape})"

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """Numbers in the array."""
        return math.prod(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        pixels = self[...]
        return pixels if dtype is None else pixels.astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        """Pixels, as NumPy's indexing by numbers, slices and an ellipsis gives them.

        Raises:
            IndexError: a number outside the array, or another kind of index.
            ValueError: more pixels at once than fit into memory.
            TileReadError: the file's pixels could not be read.
        """
        rows, columns, channels = (_indices(one, n) for one, n in zip(_whole(key), self.shape, strict=True))
        (top, bottom, row), (left, right, column) = _span(rows), _span(columns)
        if (bottom - top) * (right - left) > LARGEST:
            raise ValueError(f"{self!r}: {right - left} x {bottom - top} pixels were asked for at once; ask for a part")
        pixels: NDArray[np.uint8] = self._read(left, top, right - left, bottom - top)[row, column][
            ..., _picked(channels)
        ]
        return pixels

    def _read(self, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
        if not width or not height:
            return np.empty((height, width, 3), np.uint8)
        return self.view.read_part((left, top), (width, height))


def levels_of(slide: Slide) -> list[Level]:
    """Every stored level of a slide; coarser ones after them where the last is still too large to be held whole."""
    return [Level(View(slide, downsample)) for downsample in _downsamples(slide)]


def _downsamples(slide: Slide) -> Iterator[float]:
    width, height = slide.dimensions
    downsample = 1.0
    for stored in sorted(slide.level_downsamples[level] for level in slide.levels):
        downsample = stored
        yield downsample
    while width * height / downsample**2 > COARSEST:
        downsample *= 4
        yield downsample


def _whole(key: Any) -> tuple[Any, Any, Any]:
    """An index for each of three axes."""
    given = key if isinstance(key, tuple) else (key,)
    if sum(one is Ellipsis for one in given) > 1 or len([one for one in given if one is not Ellipsis]) > 3:
        raise IndexError(f"three axes at most, found {key!r}")
    if Ellipsis not in given:
        given = (*given, Ellipsis)
    at = given.index(Ellipsis)
    found = [*given[:at], *[slice(None)] * (4 - len(given)), *given[at + 1 :]]
    return found[0], found[1], found[2]


def _indices(one: Any, length: int) -> range | int:
    """The positions that an index picks on an axis; a number picks one and drops the axis."""
    if isinstance(one, slice):
        return range(length)[one]
    if isinstance(one, int | np.integer):
        if not -length <= one < length:
            raise IndexError(f"index {one} is outside of an axis of {length}")
        return int(one) % length
    raise IndexError(f"numbers, slices and an ellipsis can be read, found {one!r}")


def _span(picked: range | int) -> tuple[int, int, Any]:
    """Where to read from and to, and which of what was read is wanted."""
    if isinstance(picked, int):
        return picked, picked + 1, 0
    if not len(picked):
        return 0, 0, slice(None)
    first, last = min(picked[0], picked[-1]), max(picked[0], picked[-1])
    return first, last + 1, np.s_[:: picked.step]


def _picked(channels: range | int) -> Any:
    return channels if isinstance(channels, int) else list(channels)
