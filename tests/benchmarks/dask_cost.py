"""What reading through dask costs over a bare thread pool: same batches, same threads, alone and with ResNet-18.

    python tests/benchmarks/dask_cost.py [--size 10240] [--tiles 256 1024] [--batch 32] [--reader auto]

Both sides read a generated slide of 256-px JPEG tiles into one array, as a prediction does: `read_tiles` with its dask
tasks, and a `ThreadPoolExecutor` with as many threads over the batches that `read_tiles` cuts. "forward" encodes the
tiles with ResNet-18 afterwards, 224 px, in bfloat16 where the processor has it. "cpu" is processor time of all threads,
which other jobs on the machine change little; dask's own work shows there too. Also counted: tasks of a request.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Seconds, in_turns, large_slide, median, options_parser, ratio_line, run_and_save, table
from numpy.typing import NDArray
from reader_sides import StoredTiles

from wsi_attention import Slide, TileSet, open_slide
from wsi_attention.devices import autocast, precision_on
from wsi_attention.nn.bags import encode
from wsi_attention.nn.encoders import TileEncoder
from wsi_attention.nn.preprocess import Normalise
from wsi_attention.slide.view import View
from wsi_attention.structures import TileBatch
from wsi_attention.tiles.cutting import busy_batch, cut
from wsi_attention.tiles.reading import read_tiles

SIDE = 224
MANY = (1_000, 10_000, 61_000, 150_000)
"""Tiles of requests whose tasks are counted; a 100,000² slide has 61,000 with tissue."""

Pixels = NDArray[np.uint8]


def drawn(stored: StoredTiles, count: int, aligned: bool, rng: np.random.Generator) -> TileSet:
    """Tiles at random places of the tissue, each inside one stored tile or anywhere."""
    found = stored.tissue[rng.choice(len(stored.tissue), count, replace=len(stored.tissue) < count)] * stored.side
    found = found + (0 if aligned else rng.integers(1, stored.side, found.shape))
    return TileSet(np.minimum(found, np.array(stored.inner) * stored.side - SIDE), (SIDE, SIDE), 1.0)


def parts_of(slide: Slide, tiles: TileSet, options: argparse.Namespace) -> list[NDArray[np.int64]]:
    """The batches of a request, as `read_tiles` cuts them."""
    tile, batch = slide.facts.tile_sizes[0], busy_batch(len(tiles), options.batch, options.threads)
    return cut(tiles.locations[0], tiles.footprint, None if tile is None else (float(tile[0]), float(tile[1])), batch)


def by_pool(slide: Slide, tiles: TileSet, options: argparse.Namespace, pool: ThreadPoolExecutor) -> Pixels:
    """The same pixels by a bare pool."""
    out = np.empty((len(tiles), SIDE, SIDE, 3), np.uint8)

    def fill(part: NDArray[np.int64]) -> None:
        block = np.empty((len(part), SIDE, SIDE, 3), np.uint8)
        View(slide, tiles.downsample).read_many(tiles.locations[0, part], tiles.size, block)
        out[part] = block

    list(pool.map(fill, parts_of(slide, tiles, options)))
    return out


def encoded(pixels: Pixels, encoder: torch.nn.Module, normalise: torch.nn.Module) -> torch.Tensor:
    """Features of the tiles."""
    tiles = torch.from_numpy(pixels).permute(0, 3, 1, 2)[None]
    here = torch.device("cpu")
    with torch.inference_mode(), autocast(here, precision_on(here, "auto")):
        return encode(TileBatch(tiles, torch.ones(1, len(pixels), dtype=torch.bool)), normalise, encoder)


def compare(slide: Slide, tiles: TileSet, options: argparse.Namespace, forward: bool) -> tuple[Seconds, Seconds]:
    """Seconds of both sides in turns, by the clock and of the processor; with the forward pass too if asked for."""
    torch.manual_seed(0)
    encoder, normalise = TileEncoder(name="resnet18").build().eval(), Normalise()
    processor: Seconds = {}
    with ThreadPoolExecutor(options.threads) as pool:
        readers: dict[str, Callable[[], Pixels]] = {
            "dask": lambda: read_tiles(slide, tiles, options.batch).pixels,
            "pool": lambda: by_pool(slide, tiles, options, pool),
        }
        assert (readers["dask"]() == readers["pool"]()).all()
        sides: dict[str, Callable[[], object]] = dict(readers)
        seconds = in_turns(sides, options.repeats, processor=processor)
        if forward:
            sides = {
                f"{name} + forward": lambda read=read: encoded(read(), encoder, normalise)  # type: ignore[misc]
                for name, read in readers.items()
            }
            seconds |= in_turns(sides, options.forward_repeats, processor=processor)
    return seconds, processor


def report(seconds: Seconds, processor: Seconds, count: int) -> None:
    """Print the table and the ratios of one request."""
    rows = [[name, *(f"{count / median(taken, name):,.0f}" for taken in (seconds, processor))] for name in seconds]
    print(table(("side", "tiles/s", "tiles/cpu s"), rows))
    for words, taken in (("by the clock", seconds), ("of processor time", processor)):
        print(words, ratio_line(taken, "dask", "pool", "<= 1.15"))
        if "dask + forward" in taken:
            print(words, ratio_line(taken, "dask + forward", "pool + forward", "<= 1.05"))


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All patterns and counts; prints as it goes."""
    import dask

    path = large_slide(folder, options.size)
    stored, rng = StoredTiles(path), np.random.default_rng(0)
    figures: dict[str, Any] = {}
    with open_slide(path, options.reader) as slide, dask.config.set(num_workers=options.threads):
        for count in options.tiles:
            for pattern in ("aligned", "anywhere"):
                tiles = drawn(stored, count, pattern == "aligned", rng)
                seconds, processor = compare(slide, tiles, options, forward=count == min(options.tiles))
                tasks = len(parts_of(slide, tiles, options))
                print(f"\n{count} tiles, {pattern}, {tasks} tasks, reader {slide.reader}, {options.threads} threads")
                report(seconds, processor, count)
                figures[f"{count} {pattern}"] = {"tasks": tasks, "clock": seconds, "processor": processor}
        figures["tasks"] = {n: len(parts_of(slide, drawn(stored, n, False, rng), options)) for n in MANY}
    print("\ntasks of a request by its tiles (target <= 1,000):", figures["tasks"])
    return figures


def main() -> None:
    """The command line."""
    parser = options_parser(__doc__, "dask_cost", repeats=15)
    parser.add_argument("--size", type=int, default=10_240, help="side of the slide in pixels")
    parser.add_argument("--tiles", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--batch", type=int, default=32, help="tiles a task")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--reader", default="auto")
    parser.add_argument("--forward-repeats", type=int, default=5)
    parser.add_argument("--work", type=Path, help="keeps the slide here for the next run")
    run_and_save(parser, run)


if __name__ == "__main__":
    main()
