"""Coordinates to pixels through dask: one task a batch of tiles, never one a tile, never an array over level 0."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import local
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsi_attention.defaults import BATCH
from wsi_attention.slide.slide import Slide
from wsi_attention.slide.view import View
from wsi_attention.structures import TileSet
from wsi_attention.tiles.cutting import busy_batch, cut

_IMPORTED_BY = os.getpid()


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


def _block(pixels: NDArray[np.uint8], errors: list[str | None], asked: int) -> TileBlock:
    valid = np.array([error is None for error in errors], np.bool_)
    return TileBlock(pixels, valid, asked, tuple(error for error in errors if error is not None))


class _Elsewhere(NamedTuple):
    """Tiles that could not be read at their level, and the bytes of those that a finer one had."""

    tiles: NDArray[np.int64]
    bytes: int


def _read(
    view: View, locations: NDArray[np.int64], size: tuple[int, int], out: NDArray[np.uint8]
) -> tuple[list[str | None], _Elsewhere]:
    """Read tiles and say why each failed; where a level is damaged, the next finer one is averaged."""
    errors = view.read_many(locations, size, out)
    failed = left = _failed(errors)
    elsewhere = 0
    for finer in view.finer_ones() if len(failed) else ():
        pixels = np.zeros((len(left), *out.shape[1:]), np.uint8)
        again = finer.read_many(locations[left], size, pixels)
        out[left] = pixels
        for i, error in zip(left.tolist(), again, strict=True):
            errors[i] = error
        still = _failed(again)
        elsewhere += finer.bytes_of(np.delete(locations[left], still, axis=0), size)
        left = left[still]
        if not len(left):
            break
    return errors, _Elsewhere(failed, elsewhere)


def _failed(errors: Sequence[str | None]) -> NDArray[np.int64]:
    return np.array([i for i, error in enumerate(errors) if error is not None], np.int64)


def _bytes(view: View, locations: NDArray[np.int64], size: tuple[int, int], elsewhere: Sequence[_Elsewhere]) -> int:
    """Return the file bytes of a request as a whole, whatever tasks it was cut into."""
    bad = np.concatenate([one.tiles for one in elsewhere])
    return view.bytes_of(np.delete(locations, bad, axis=0), size) + sum(one.bytes for one in elsewhere)


def read_tiles(slide: Slide, tiles: TileSet, batch: int = BATCH) -> TileBlock:
    """Read all tiles, in the order asked: dask runs one task a batch of neighbours in threads of this process.

    Args:
        slide: where to read.
        tiles: what to read, b = 1.
        batch: tiles per task; fewer where the processor has more cores than there would be tasks.
    """
    from dask import config
    from dask.system import CPU_COUNT
    from dask.threaded import get

    locations, view = _locations(tiles), View(slide, tiles.downsample)
    level = view.stored
    stored = level.tile and (level.tile[0] * level.downsample, level.tile[1] * level.downsample)
    threads = config.get("num_workers", None) or CPU_COUNT
    step = busy_batch(len(locations), batch, threads)
    parts = cut(locations, tiles.footprint, stored, step)
    pixels = np.empty((len(locations), tiles.size[1], tiles.size[0], 3), np.uint8)
    fill = partial(_fill, pixels=pixels, slide=slide, tiles=tiles, scratch=local())
    graph = {("tiles", number): (fill, part) for number, part in enumerate(parts)}
    given = config.get("pool", None) if os.getpid() == _IMPORTED_BY else None
    done = get(graph, list(graph), pool=given or _POOLS.get(threads))
    errors: list[str | None] = [None] * len(locations)
    for part, (found, _) in zip(parts, done, strict=True):
        for i, error in zip(part.tolist(), found, strict=True):
            errors[i] = error
    elsewhere = [_Elsewhere(part[one.tiles], one.bytes) for part, (_, one) in zip(parts, done, strict=True)]
    return _block(pixels, errors, _bytes(view, locations, tiles.size, elsewhere) if parts else 0)


class _Pools(local):
    """The threads that read for the calling thread; they end when it ends.

    Dask's own would stay in memory until the process ends, a pool for each slide of a batch, and a forked child would
    inherit them without their threads and wait for ever. No pool for all: a slide that hangs would hold up the others.
    """

    process = threads = 0
    pool: ThreadPoolExecutor

    def get(self, threads: int) -> ThreadPoolExecutor:
        """Return the pool of this thread, a new one where it was made in another process or for another number."""
        if self.process != os.getpid() or self.threads != threads:
            self.process, self.threads = os.getpid(), threads
            self.pool = ThreadPoolExecutor(threads, thread_name_prefix="tiles")
        return self.pool


_POOLS = _Pools()


def _fill(
    part: NDArray[np.int64], pixels: NDArray[np.uint8], slide: Slide, tiles: TileSet, scratch: local
) -> tuple[list[str | None], _Elsewhere]:
    """Do one task: read the tiles at these positions to their places; threads share the pixels, no place twice.

    Each thread of a request decodes into memory of its own that it used before: fresh memory costs half a decode.
    """
    if getattr(scratch, "block", None) is None or len(scratch.block) < len(part):
        scratch.block = np.empty((len(part), *pixels.shape[1:]), np.uint8)
    block = scratch.block[: len(part)]
    errors, elsewhere = _read(View(slide, tiles.downsample), tiles.locations[0, part], tiles.size, block)
    block[[error is not None for error in errors]] = 0
    pixels[part] = block
    return errors, elsewhere


def _locations(tiles: TileSet) -> NDArray[np.int64]:
    if tiles.locations.shape[0] != 1:
        raise ValueError(f"a slide is one image: locations must be (1, n, 2), got {tiles.locations.shape}")
    locations: NDArray[np.int64] = tiles.locations[0]
    return locations
