"""Coordinates to pixels through dask: one task a batch of tiles, never one a tile, never an array over level 0."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import SlideOpenError, TileReadError
from wsi_attention.slide.slide import Slide
from wsi_attention.slide.view import View
from wsi_attention.structures import TileSet

if TYPE_CHECKING:
    from dask.array import Array

MAX_TASKS = 500
"""Tasks of one request; beyond this, batches grow. dask costs 0.1-0.5 ms a task, and more the more there are."""


@dataclass(frozen=True, eq=False)
class TileBlock:
    """The pixels of one batch, in the order asked.

    Attributes:
        pixels: (n, h, w, 3) uint8; 0 where `valid` is False.
        valid: (n,) bool; False where a tile could not be read.
        bytes: file bytes asked for, 0 where the reader cannot tell.
        errors: one line for each tile that failed, in the order asked.
    """

    pixels: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    bytes: int
    errors: tuple[str, ...]


def read_block(locations: NDArray[np.int64], slide: Slide, size: tuple[int, int], downsample: float) -> TileBlock:
    """Reads one batch of tiles, neighbours one after the other so that decoded pixels are used again.

    Args:
        locations: (n, 2) top left corners in level-0 pixels.
        slide: where to read; reopened where the task lands.
        size: (w, h) of a tile in output pixels.
        downsample: level-0 pixels per output pixel.
    """
    view = View(slide, downsample)
    pixels = np.zeros((len(locations), size[1], size[0], 3), np.uint8)
    valid = np.zeros(len(locations), np.bool_)
    errors: dict[int, str] = {}
    asked = 0
    for i in along_rows(locations, size[1] * downsample):
        place = int(locations[i, 0]), int(locations[i, 1])
        try:
            pixels[i], cost = _tile(view, place, size)
        except (TileReadError, SlideOpenError) as error:
            errors[i] = str(error)
        else:
            valid[i] = True
            asked += cost
    return TileBlock(pixels, valid, asked, tuple(errors[i] for i in sorted(errors)))


def _tile(view: View, place: tuple[int, int], size: tuple[int, int]) -> tuple[NDArray[np.uint8], int]:
    """Pixels and file bytes of one tile; where its stored level is damaged, averaged from the next finer one."""
    try:
        return view.read(place, size), view.bytes_read(place, size)
    except TileReadError:
        finer = view.finer()
        if finer is None:
            raise
        return _tile(finer, place, size)


def along_rows(locations: NDArray[np.int64], height: float) -> list[int]:
    """The order of (n, 2) locations by bands of `height` level-0 pixels, from left to right within a band."""
    band = np.floor(locations[:, 1] / height)
    return [int(i) for i in np.lexsort((locations[:, 1], locations[:, 0], band))]


def batch_of(n: int, batch: int) -> int:
    """Tiles per task: as wanted, or as many as keep a request within `MAX_TASKS`."""
    return max(1, batch, math.ceil(n / MAX_TASKS))


def read_tiles(
    slide: Slide, tiles: TileSet, batch: int = 32, scheduler: str = "threads"
) -> Iterator[tuple[NDArray[np.int64], TileBlock]]:
    """Reads all tiles now, with dask, in batches of neighbours.

    Args:
        slide: where to read.
        tiles: what to read, b = 1.
        batch: tiles per task.
        scheduler: one of dask's schedulers: "threads", "sync", "processes" or "distributed".

    Yields:
        Batches in an order of their own: the positions (m,) of their tiles in `tiles`, and what was read.
    """
    from dask.base import compute
    from dask.delayed import delayed

    locations = _locations(tiles)
    order = np.array(along_rows(locations, tiles.size[1] * tiles.downsample), np.int64)
    step = batch_of(len(order), batch)
    parts = [order[start : start + step] for start in range(0, len(order), step)]
    task = delayed(read_block, pure=False)
    blocks = [task(locations[part], slide, tiles.size, tiles.downsample) for part in parts]
    read = compute(*blocks, scheduler=scheduler)  # type: ignore[no-untyped-call]
    yield from zip(parts, read, strict=True)


def lazy_tiles(slide: Slide, tiles: TileSet, batch: int = 32) -> Array:
    """The tiles as a dask array (n, h, w, 3) uint8, one task a batch; computing it gives the order of `tiles`.

    Each task carries the slide's path and its own coordinates, so it can run in any process that sees the file.
    Computing raises `TileReadError` at the first tile that cannot be read; `read_tiles` goes on without it.

    Args:
        slide: where to read.
        tiles: what to read, b = 1.
        batch: tiles per task.
    """
    from dask.array import blockwise, from_array

    locations = _locations(tiles)
    chunks = batch_of(len(locations), batch), 2
    coordinates = from_array(locations, chunks=chunks, name=False)  # type: ignore[no-untyped-call]
    pixels: Array = blockwise(  # type: ignore[no-untyped-call]
        partial(_pixels_or_raise, slide=slide, size=tiles.size, downsample=tiles.downsample),
        "nhwc",
        coordinates,
        "nk",
        new_axes={"h": tiles.size[1], "w": tiles.size[0], "c": 3},
        concatenate=True,
        dtype=np.uint8,
        meta=np.empty((0, 0, 0, 0), np.uint8),
        name=f"tiles-{uuid4().hex}",
    )
    return pixels


def _pixels_or_raise(
    locations: NDArray[np.int64], slide: Slide, size: tuple[int, int], downsample: float
) -> NDArray[np.uint8]:
    block = read_block(locations, slide, size, downsample)
    if block.errors:
        raise TileReadError(block.errors[0])
    return block.pixels


def _locations(tiles: TileSet) -> NDArray[np.int64]:
    if tiles.locations.shape[0] != 1:
        raise ValueError(f"a slide is one image: locations must be (1, n, 2), got {tiles.locations.shape}")
    locations: NDArray[np.int64] = tiles.locations[0]
    return locations
