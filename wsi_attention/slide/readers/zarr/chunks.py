"""Many regions of a chunked level: each stored chunk that they meet is read whole and once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from wsi_attention.slide.failures import what_is_wrong
from wsi_attention.slide.resample import Pixels

if TYPE_CHECKING:
    import zarr

    ZarrArray: TypeAlias = zarr.Array[Any]  # of either format

Rectangle = tuple[slice, slice]
"""Rows and columns of a level."""
Fetch = Callable[[list[Rectangle]], Iterable[Pixels | Exception]]
"""Pixels (h, w, 3) of each rectangle in the order given, or why they cannot be read."""


class Codec(TypedDict, total=False):
    """A codec in the metadata of zarr format 3."""

    name: str
    configuration: CodecConfiguration


class CodecConfiguration(TypedDict, total=False):
    """What is read of a codec's configuration: that of shards."""

    codecs: list[Codec]
    index_codecs: list[Codec]
    index_location: str


class Grid(NamedTuple):
    """A level: its size and that of its chunks and shards, (w, h) each; a shard is a chunk where there are none."""

    extent: tuple[int, int]
    chunk: tuple[int, int]
    shard: tuple[int, int]

    def rectangle(self, col: int, row: int) -> Rectangle:
        """Return the pixels of a chunk."""
        (width, height), (w, h) = self.extent, self.chunk
        return slice(row * h, min((row + 1) * h, height)), slice(col * w, min((col + 1) * w, width))


def read_regions(grid: Grid, corners: NDArray[np.int64], out: Pixels, fetch: Fetch) -> list[str | None]:
    """Read regions on white, as `RegionsReader.read_regions` says; zeros where one fails.

    Args:
        grid: of the level.
        corners: (n, 2), (x, y) in the level's pixels.
        out: (n, h, w, 3) to write to.
        fetch: reads chunks.
    """
    wanted = _regions_of_chunks(grid, corners, (out.shape[2], out.shape[1]))
    reasons: list[str | None] = [None] * len(corners)
    ends = corners + np.array([out.shape[2], out.shape[1]])
    out[(corners < 0).any(axis=1) | (ends > grid.extent).any(axis=1)] = 255
    places = [grid.rectangle(col, row) for col, row in wanted]
    for place, regions, pixels in zip(places, wanted.values(), fetch(places), strict=True):
        for i in regions:
            if isinstance(pixels, Exception):
                reasons[i] = what_is_wrong(pixels)
            else:
                _paste(pixels, place, corners[i], out[i])
    out[[i for i, reason in enumerate(reasons) if reason is not None]] = 0
    return reasons


def _regions_of_chunks(
    grid: Grid, corners: NDArray[np.int64], size: tuple[int, int]
) -> dict[tuple[int, int], list[int]]:
    """Return for each chunk (column, row) the regions that meet it, shard after shard."""
    found: dict[tuple[int, int], list[int]] = {}
    for i, corner in enumerate(corners.tolist()):
        cols, rows = (_chunks(corner[axis], size[axis], grid.chunk[axis], grid.extent[axis]) for axis in (0, 1))
        for row in rows:
            for col in cols:
                found.setdefault((col, row), []).append(i)
    (w, h), (shard_w, shard_h) = grid.chunk, grid.shard
    order = sorted(found, key=lambda at: (at[1] * h // shard_h, at[0] * w // shard_w, at[1], at[0]))
    return {at: found[at] for at in order}


def _chunks(start: int, length: int, chunk: int, extent: int) -> range:
    begin, end = max(start, 0), min(start + length, extent)
    return range(begin // chunk, -(-end // chunk)) if end > begin else range(0)


def _paste(pixels: Pixels, place: Rectangle, corner: NDArray[np.int64], out: Pixels) -> None:
    """Copy the part of a chunk that a region covers to its place in the region."""
    (x, y), (h, w) = corner.tolist(), out.shape[:2]
    rows, cols = place
    top, bottom = max(rows.start, y), min(rows.stop, y + h)
    left, right = max(cols.start, x), min(cols.stop, x + w)
    out[top - y : bottom - y, left - x : right - x] = pixels[
        top - rows.start : bottom - rows.start, left - cols.start : right - cols.start
    ]
