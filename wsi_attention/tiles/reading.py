"""Coordinates to pixels through dask: one task a batch of tiles, never one a tile, never an array over level 0.

A batch is one of stored tiles where tiles share them (`tiles.sharing`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import local
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from wsi_attention.defaults import BATCH
from wsi_attention.slide.slide import Slide
from wsi_attention.slide.view import View
from wsi_attention.structures import TileSet
from wsi_attention.tiles.cutting import batch_of, busy_batch, cut
from wsi_attention.tiles.lending import Memory
from wsi_attention.tiles.sharing import Shares, shares_of

MOST_THREADS = 8
"""On 16 cores eight threads read 10,600 tiles/s, four 8,700 and sixteen 9,000 (tests/benchmarks/RESULTS.md)."""
LEAST_THREADS = 2
"""One may decode while the other waits for the disk."""
_IMPORTED_BY = os.getpid()
Found = TypeVar("Found")


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
    bad = np.concatenate([np.zeros(0, np.int64), *(one.tiles for one in elsewhere)])
    return view.bytes_of(np.delete(locations, bad, axis=0), size) + sum(one.bytes for one in elsewhere)


def read_tiles(slide: Slide, tiles: TileSet, batch: int = BATCH) -> TileBlock:
    """Read all tiles, in the order asked: dask runs one task a batch of neighbours in threads of this process.

    Where tiles share stored tiles, a task is a batch of these, so that none is decoded twice.

    Args:
        slide: where to read.
        tiles: what to read, b = 1.
        batch: tiles per task; fewer where the processor has more cores than there would be tasks.
    """
    locations, view = _locations(tiles), View(slide, tiles.downsample)
    pixels = _MEMORY.lend((len(locations), tiles.size[1], tiles.size[0], 3))
    errors: list[str | None] = [None] * len(locations)
    left, elsewhere = np.arange(len(locations)), list[_Elsewhere]()
    shares = shares_of(view, locations, tiles.size)
    if shares is not None:
        left = _read_shared(view, shares, pixels, batch)
    if len(left):
        parts, done = _read_apart(slide, tiles, left, pixels, batch)
        for part, (found, one) in zip(parts, done, strict=True):
            elsewhere.append(_Elsewhere(part[one.tiles], one.bytes))
            for i, error in zip(part.tolist(), found, strict=True):
                errors[i] = error
    return _block(pixels, errors, _bytes(view, locations, tiles.size, elsewhere) if len(locations) else 0)


def _read_apart(
    slide: Slide, tiles: TileSet, which: NDArray[np.int64], pixels: NDArray[np.uint8], batch: int
) -> tuple[list[NDArray[np.int64]], list[tuple[list[str | None], _Elsewhere]]]:
    """Read some tiles to their places; return the tiles of each task, and what it found."""
    view = View(slide, tiles.downsample)
    locations, level = _locations(tiles)[which], view.stored
    stored = level.tile and (level.tile[0] * level.downsample, level.tile[1] * level.downsample)
    parts = [which[part] for part in cut(locations, tiles.footprint, stored, _step(len(locations), batch))]
    return parts, _in_tasks(partial(_fill, pixels=pixels, slide=slide, tiles=tiles, scratch=local()), parts)


def _read_shared(view: View, shares: Shares, pixels: NDArray[np.uint8], batch: int) -> NDArray[np.int64]:
    """Read tiles by the stored tiles they share; return those still to be read, because some of them is damaged."""
    pixels[shares.partly] = 255
    cells = np.arange(len(shares.cells))
    tasks = math.ceil(len(cells) / batch_of(len(cells), _step(len(cells), batch)))
    parts = np.array_split(cells, min(len(cells), math.ceil(tasks / _threads()) * _threads()))
    bad = _in_tasks(partial(_fill_shared, view=view, shares=shares, pixels=pixels, scratch=local()), parts)
    return shares.tiles_of(np.concatenate(bad))


def _step(count: int, batch: int) -> int:
    """Return how many tiles go into a task, of so many."""
    return busy_batch(count, batch, _threads())


def _threads() -> int:
    """Return how many threads read: as many as dask is told, else as many as there are cores for this process.

    More than `MOST_THREADS` are slower, because they wait for Python's lock; processes side by side are not.
    """
    from dask import config
    from dask.system import CPU_COUNT

    return int(config.get("num_workers", None) or min(CPU_COUNT, MOST_THREADS))


def share_cores(processes: int) -> None:
    """Let no more threads read in this process than its share of the cores, where dask is not told how many."""
    from dask import config
    from dask.system import CPU_COUNT

    if not config.get("num_workers", None):
        config.set(num_workers=min(CPU_COUNT, MOST_THREADS, max(LEAST_THREADS, CPU_COUNT // processes)))


def _in_tasks(do: Callable[[NDArray[np.int64]], Found], parts: Sequence[NDArray[np.int64]]) -> list[Found]:
    """Return what each part gives, done by dask in threads that read for the calling thread."""
    from dask import config
    from dask.threaded import get

    graph = {("tiles", number): (do, part) for number, part in enumerate(parts)}
    given = config.get("pool", None) if os.getpid() == _IMPORTED_BY else None
    return list(get(graph, list(graph), pool=given or _POOLS.get(_threads())))


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
_MEMORY = Memory()


def _fill(
    part: NDArray[np.int64], pixels: NDArray[np.uint8], slide: Slide, tiles: TileSet, scratch: local
) -> tuple[list[str | None], _Elsewhere]:
    """Do one task: read the tiles at these positions to their places; threads share the pixels, no place twice.

    Each thread of a request decodes into memory of its own that it used before: fresh memory costs half a decode.
    """
    block = _used(scratch, len(part), pixels.shape[1:])
    errors, elsewhere = _read(View(slide, tiles.downsample), tiles.locations[0, part], tiles.size, block)
    block[[error is not None for error in errors]] = 0
    pixels[part] = block
    return errors, elsewhere


def _fill_shared(
    part: NDArray[np.int64], view: View, shares: Shares, pixels: NDArray[np.uint8], scratch: local
) -> NDArray[np.int64]:
    """Do one task: decode these stored tiles and cut them to their places; return those that could not be read.

    Those that are not in the file count among them where an overview says what should be there: whether a tile is lost
    with them is a matter of the tile.
    """
    cells = shares.cells[part]
    block = _used(scratch, len(part), (shares.side[1], shares.side[0], 3))
    errors = view.read_many(cells * shares.side, shares.side, block)
    bad = np.array([error is not None for error in errors], np.bool_)
    if view.slide.seen is not None:
        bad |= view.slide.absent(0, cells)
    for cell, stored, failed in zip(part.tolist(), block, bad.tolist(), strict=True):
        if not failed:
            shares.paste(cell, stored, pixels)
    return part[bad]


def _used(scratch: local, count: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return memory of a thread that it used before, (count, *shape)."""
    if getattr(scratch, "block", None) is None or len(scratch.block) < count:
        scratch.block = np.empty((count, *shape), np.uint8)
    found: NDArray[np.uint8] = scratch.block[:count]
    return found


def _locations(tiles: TileSet) -> NDArray[np.int64]:
    if tiles.locations.shape[0] != 1:
        raise ValueError(f"a slide is one image: locations must be (1, n, 2), got {tiles.locations.shape}")
    locations: NDArray[np.int64] = tiles.locations[0]
    return locations
