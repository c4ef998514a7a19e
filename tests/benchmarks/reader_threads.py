"""Tiles a second by threads and by processes: where more of them stop being faster, on a machine with many cores.

    python tests/benchmarks/reader_threads.py [--counts 1 2 4 8 16] [--tiles 1024] [--size 40000]

Tissue tiles of a generated slide of 256-px JPEG tiles, at 0.25 µm/px. "decode" is imagecodecs alone on streams in
memory, which holds no lock of Python's: what the cores can do. "tiles" are whole stored tiles of 256 px, read by the
package; "averaged" are tiles of 224 px at 0.5 µm/px, each the mean of 2 × 2 pixels of four stored tiles. Threads are
those of one process; processes have one thread each, started before the clock. "switches" are voluntary changes of
context a tile: each is a thread that waited, mostly for Python's lock.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from common import large_slide, options_parser, run_and_save, table
from numpy.typing import NDArray
from reader_sides import StoredTiles

from wsi_attention import open_slide
from wsi_attention.slide.view import View

STEP = 16
"""Tiles of a request."""
Part = NDArray[np.int64]
Work = Callable[[Part], None]


def decode(path: Path, places: Part) -> Work:
    """Decode stored tiles whose streams are in memory."""
    stored, out = StoredTiles(path), np.zeros((len(places), 256, 256, 3), np.uint8)
    stored.load(places, (256, 256))
    into = stored.into_batch(lambda content, pixels: imagecodecs.jpeg_decode(content, out=pixels))
    return lambda part: into(places[part], (256, 256), out[part[0] : part[-1] + 1])


def read(path: Path, places: Part, side: int, downsample: float) -> Work:
    """Read tiles of a side in pixels at a downsample."""
    view, out = View(open_slide(path), downsample), np.zeros((len(places), side, side, 3), np.uint8)

    def do(part: Part) -> None:
        for first in range(0, len(part), STEP):
            some = part[first : first + STEP]
            failed = [why for why in view.read_many(places[some], (side, side), out[some[0] : some[-1] + 1]) if why]
            assert not failed, failed

    return do


SIDES: dict[str, Callable[[Path, Part], Work]] = {
    "decode": decode,
    "tiles": partial(read, side=256, downsample=1.0),
    "averaged": partial(read, side=224, downsample=2.0),
}


def by_threads(work: Work, tiles: int, count: int) -> dict[str, float]:
    """Do all tiles in so many threads: tiles a second, and changes of context a tile."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    with ThreadPoolExecutor(count) as pool:
        start = time.perf_counter()
        list(pool.map(work, np.array_split(np.arange(tiles), count)))
        seconds = time.perf_counter() - start
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before
    return {"tiles_per_second": tiles / seconds, "switches": switches / tiles}


def by_processes(side: str, path: Path, places: Part, count: int) -> dict[str, float]:
    """Do all tiles in so many processes, each its share."""
    context = multiprocessing.get_context("spawn")
    ready, go = context.Barrier(count + 1), context.Barrier(count + 1)
    parts = np.array_split(np.arange(len(places)), count)
    processes = [context.Process(target=_share, args=(side, path, places, part, ready, go)) for part in parts]
    for process in processes:
        process.start()
    ready.wait()
    go.wait()
    start = time.perf_counter()
    for process in processes:
        process.join()
    assert not any(process.exitcode for process in processes)
    return {"tiles_per_second": len(places) / (time.perf_counter() - start)}


def _share(side: str, path: Path, places: Part, part: Part, ready: Any, go: Any) -> None:
    work = SIDES[side](path, places)
    work(part[:STEP])
    ready.wait()
    go.wait()
    work(part)
    os._exit(0)  # to be timed without the end of an interpreter


def run(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Measure all sides, threads first."""
    path = large_slide(folder, options.size)
    cells = StoredTiles(path).tissue * 256
    places = cells[np.random.default_rng(0).choice(len(cells), options.tiles, replace=False)]
    places = places[np.lexsort((places[:, 0], places[:, 1]))]
    rows: list[dict[str, Any]] = []
    for side, made in SIDES.items():
        work = made(path, places)
        work(np.arange(options.tiles))
        for count in options.counts:
            rounds = [by_threads(work, options.tiles, count) for _ in range(options.repeats)]
            best = sorted(rounds, key=lambda one: one["tiles_per_second"])[options.repeats // 2]
            rows.append({"side": side, "by": "threads", "count": count, **best})
        if side != "decode":
            for count in options.counts:
                rows.append({"side": side, "by": "processes", "count": count})
                rows[-1] |= by_processes(side, path, places, count)
    told = [
        (f"{row['side']}, {row['count']} {row['by']}", f"{row['tiles_per_second']:.0f}", _switches(row)) for row in rows
    ]
    print(table(("", "tiles/s", "switches"), told))
    return rows


def _switches(row: dict[str, Any]) -> str:
    return f"{row['switches']:.1f}" if "switches" in row else ""


if __name__ == "__main__":
    parser = options_parser(__doc__, "reader_threads", repeats=3)
    cores = os.cpu_count() or 1
    parser.add_argument("--counts", type=int, nargs="+", default=[n for n in (1, 2, 4, 8, 16, 32) if n <= cores])
    parser.add_argument("--tiles", type=int, default=1024)
    parser.add_argument("--size", type=int, default=40_000, help="side of the slide in pixels")
    parser.add_argument("--work", type=Path, help="folder for the slide, made once; a temporary one otherwise")
    run_and_save(parser, run)
