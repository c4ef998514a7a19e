"""Tiles a second of our readers, OpenSlide, tiffslide and of decoding alone, in one run of turns.

    python tests/benchmarks/readers.py [--size 10240] [--tiles 256] [--threads 1 2 4 8] [--cache warm cold]

One generated slide of 256-px JPEG tiles (4:2:0, quality 80), and the same pixels as OME-Zarr. Tissue tiles only:
aligned 256 px at random places; unaligned 224 px at random places; unaligned 224 px in blocks of 6 × 6. Every side gets
the same locations, sorted along rows, and writes RGB into one array; with several threads each gets an equal part.
Decoding alone takes each stored tile once, from memory into one buffer, and crops nothing; "into batch" decodes whole
tiles into their places of the output. "cold" drops the file from the page cache first. "cpu" is processor time, which
other jobs on the machine disturb less than the clock. The sides of dask get all locations at once and use as many
threads as the others; a prediction takes their array as it is, without the copy of "tiff dask, copied".
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from common import (
    Seconds,
    drop_cache,
    in_turns,
    large_slide,
    median,
    options_parser,
    ratio_line,
    run_and_save,
    table,
)
from reader_sides import Locations, Pixels, Read, StoredTiles, ThroughDask, decoders, libraries, ours

from wsi_attention.registry import READERS, names

SIZES = {"aligned": (256, 256), "unaligned": (224, 224), "clustered": (224, 224)}
BLOCK = 6


def places(pattern: str, stored: StoredTiles, count: int, rng: np.random.Generator) -> Locations:
    """(count, 2) locations of a pattern, sorted along rows."""
    tissue, side = stored.tissue, stored.side
    limit = np.array(stored.inner) * side - 224
    if pattern == "clustered":
        corners = tissue[rng.choice(len(tissue), -(-count // BLOCK**2), replace=False)] * side
        corners += rng.integers(1, side, corners.shape)
        steps = np.stack(np.meshgrid(np.arange(BLOCK), np.arange(BLOCK)), axis=-1).reshape(-1, 2) * 224
        found = (corners[:, None] + steps[None]).reshape(-1, 2)[:count]
    else:
        found = tissue[rng.choice(len(tissue), count, replace=len(tissue) < count)] * side
        found += 0 if pattern == "aligned" else rng.integers(1, side, found.shape)
    found = found if pattern == "aligned" else np.clip(found, 0, limit)
    return found[np.lexsort((found[:, 0], found[:, 1] // SIZES[pattern][1]))]


def as_zarr(path: Path) -> Path:
    """The same pixels as OME-Zarr, written once."""
    import openslide

    from wsi_attention.testing.slide_levels import pyramid
    from wsi_attention.testing.slide_writers import write_ome_zarr
    from wsi_attention.testing.slides import replacing

    out = path.with_suffix(".ome.zarr")
    if not out.exists():
        with openslide.OpenSlide(path) as slide, replacing(out) as part:
            rgb = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
            write_ome_zarr(part, pyramid(np.ascontiguousarray(rgb), 4), 0.25, "0.5")
    return out


def spread(read: Read, pool: ThreadPoolExecutor, threads: int, locations: Locations, out: Pixels) -> None:
    """One side on so many threads, each with an equal part."""
    size = (out.shape[2], out.shape[1])
    parts = np.array_split(np.arange(len(locations)), threads)
    jobs = [pool.submit(read, locations[part], size, out[part[0] : part[-1] + 1]) for part in parts]
    for job in jobs:
        job.result()


def check_pixels(sides: dict[str, Read], locations: Locations, size: tuple[int, int]) -> dict[str, int]:
    """How many pixels each side gives otherwise than OpenSlide."""
    wanted = np.empty((len(locations), size[1], size[0], 3), np.uint8)
    sides["OpenSlide"](locations, size, wanted)
    found = {}
    for name, read in sides.items():
        out = np.zeros_like(wanted)
        read(locations, size, out)
        given = read.pixels if isinstance(read, ThroughDask) else out
        found[name] = int((given != wanted).any(axis=-1).sum())
    return found


def measure(
    sides: dict[str, Read], locations: Locations, size: tuple[int, int], threads: int, repeats: int, before: object
) -> tuple[Seconds, Seconds]:
    """Seconds of every side for all locations, by the clock and of processor time."""
    import dask

    processor: Seconds = {}
    out = np.empty((len(locations), size[1], size[0], 3), np.uint8)
    with ThreadPoolExecutor(threads) as pool, dask.config.set(num_workers=threads):
        jobs = {
            name: partial(read, locations, size, out)
            if name.startswith("tiff dask")
            else partial(spread, read, pool, threads, locations, out)
            for name, read in sides.items()
        }
        return in_turns(jobs, repeats, before=before, processor=processor), processor  # type: ignore[arg-type]


def report(seconds: Seconds, processor: Seconds, count: int) -> None:
    """Print a table of one run of turns; "cpu" columns are of processor time."""
    head, rows = ["side", "tiles/s", "x OpenSlide", "tiles/cpu s", "x OpenSlide"], []
    limits = [name for name in seconds if name.startswith("decode")]
    for name in seconds:
        row = [name]
        for taken in (seconds, processor):
            took = median(taken, name)
            row += [f"{count / took:,.0f}", f"{median(taken, 'OpenSlide') / took:.2f}"]
        rows.append(row + [f"{median(processor, limit) / median(processor, name):.2f}" for limit in limits])
    print(table((*head, *(f"of {limit} (cpu)" for limit in limits)), rows))


def ratios(seconds: Seconds, processor: Seconds) -> None:
    """Print the ratios that have targets, by the clock and of processor time."""
    for words, taken in (("by the clock", seconds), ("of processor time", processor)):
        for name in (name for name in ("tiff reader", "tiff View", "tiff dask") if name in taken):
            print(words, ratio_line(taken, "OpenSlide", name, ">= 4 where aligned or clustered"))
            for limit in (limit for limit in ("decode imagecodecs", "decode into batch") if limit in taken):
                print(words, ratio_line(taken, limit, name, ">= 0.85 where aligned"))


def make_sides(path: Path, zarr: Path) -> dict[str, Read]:
    """All sides that read, by name."""
    sides = {**libraries(path), "openslide View": ours(path, "openslide")["openslide View"]}
    if "tiff" in names(READERS):
        dask = ThroughDask(path, "tiff")
        sides |= ours(path, "tiff") | {"tiff dask": dask, "tiff dask, copied": dask.copied}
    return sides | {"zarr reader": ours(zarr, "zarr")["zarr reader"]}


def run(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """All patterns, thread counts and cache states; the raw seconds of each."""
    path = large_slide(folder, options.size)
    zarr, stored, rng = as_zarr(path), StoredTiles(path), np.random.default_rng(0)
    reading, figures = make_sides(path, zarr), {}
    reading = {name: read for name, read in reading.items() if not options.sides or name in options.sides}
    for pattern in options.patterns:
        size, locations = SIZES[pattern], places(pattern, stored, options.tiles, rng)
        stored.load(locations, size)
        sides = reading | ({} if options.sides else decoders(stored, pattern == "aligned"))
        differing = check_pixels(reading, locations, size)
        print(f"\n{pattern} {size[0]} px, {len(locations)} tiles on {len(stored.touched(locations, size))} stored ones")
        print("pixels other than OpenSlide's:", {name: n for name, n in differing.items() if n} or "none")
        figures[pattern] = {"pixels_differing": differing}
        for threads in options.threads:
            for cache in options.cache:
                chosen = sides if cache == "warm" else reading
                before = partial(forget, path, zarr) if cache == "cold" else None
                seconds, processor = measure(chosen, locations, size, threads, options.repeats, before)
                figures[pattern][f"{threads} threads {cache}"] = {"clock": seconds, "processor": processor}
                print(f"\n{pattern}, {threads} threads, {cache}")
                report(seconds, processor, len(locations))
                ratios(seconds, processor)
    return figures


def forget(*paths: Path) -> None:
    """Drop files, and all files of folders, from the page cache."""
    for path in paths:
        for file in path.rglob("*") if path.is_dir() else (path,):
            if file.is_file():
                drop_cache(file)


def main() -> None:
    """The command line."""
    parser = options_parser(__doc__, "readers")
    parser.add_argument("--size", type=int, default=10_240, help="side of the slide in pixels")
    parser.add_argument("--tiles", type=int, default=256)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--cache", nargs="+", choices=("warm", "cold"), default=["warm", "cold"])
    parser.add_argument("--patterns", nargs="+", choices=tuple(SIZES), default=list(SIZES))
    parser.add_argument("--sides", nargs="+", help='only these, "OpenSlide" among them [all, and decoding alone]')
    parser.add_argument("--work", type=Path, help="keeps the slides here for the next run")
    run_and_save(parser, run)


if __name__ == "__main__":
    main()
