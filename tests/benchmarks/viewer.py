"""The viewer on a slide of 100,000² pixels: seconds to the first view in a real browser, milliseconds a deep-zoom tile.

    python tests/benchmarks/viewer.py [--size 100000] [--tiles 60] [--work FOLDER]

The slide is generated, classified with the demo model, and served from this process. First view: from asking for the
page to overview, attention and boxes on the screen, and to every tile of the slide sharp; the server is new each time,
the slide not yet open. Tiles: 256 px within the tissue, none asked for twice, at each level from full resolution to the
whole slide; beside OpenSlide's own Deep Zoom generator, and beside decoding alone: the same region of the same stored
level, neither resampled nor encoded (a reader that keeps decoded tiles finds some that the other side decoded).
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
import time
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from common import Seconds, large_slide, options_parser, ratio_line, run_and_save, table

from wsi_attention.checkpoint import load_model
from wsi_attention.inference.batch.classify import classify
from wsi_attention.inference.results.state import stored_predictions
from wsi_attention.slide.levels import best_level
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.structures import Prediction
from wsi_attention.viewer.content import Content
from wsi_attention.viewer.deepzoom import SIDE, DeepZoom
from wsi_attention.viewer.library import Library
from wsi_attention.viewer.server import Server

Tile = tuple[int, int, int]


def first_views(results: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds to the first view, and until it is sharp, each time with a new server and a new browser window."""
    from playwright.sync_api import sync_playwright

    found: dict[str, list[float]] = {"view": [], "sharp": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(repeats + 1):
            library = Library(results)
            with Server(Content(library)) as server:
                Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                start = time.perf_counter()
                page.goto(server.page)
                page.wait_for_selector("body[data-ready='0']")
                found["view"].append(time.perf_counter() - start)
                page.wait_for_selector("body[data-slide='0'] #view[data-waiting='0']")
                found["sharp"].append(time.perf_counter() - start)
                page.close()
                server.shutdown()
            library.close()
    return {name: seconds[1:] for name, seconds in found.items()}


def tissue_tiles(pyramid: DeepZoom, prediction: Prediction, count: int) -> dict[int, list[Tile]]:
    """By downsample, tiles (level, column, row) in the tissue, none twice, from full resolution to the whole slide."""
    rng = np.random.default_rng(0)
    rows, columns = np.nonzero(prediction.tissue.mask)
    step, found = prediction.tissue.downsample, {}
    for level in range(pyramid.last, -1, -1):
        downsample = pyramid.downsample(level)
        if max(pyramid.size(level)) < SIDE:
            break
        picked = rng.permutation(len(rows))[: 40 * count]
        places = np.stack([columns[picked], rows[picked]], 1) * step / downsample / SIDE
        once = np.unique(places.astype(int), axis=0)
        found[downsample] = [(level, int(c), int(r)) for c, r in rng.permutation(once)[:count]]
    return found


def decode(slide: Slide, pyramid: DeepZoom, tile: Tile) -> None:
    """Read the stored pixels that a tile is made of."""
    (x, y), (w, h) = pyramid.place(*tile)
    level = best_level(slide.level_downsamples, pyramid.downsample(tile[0]))
    step = pyramid.downsample(tile[0]) / slide.level_downsamples[level]
    slide.read((x, y), level, (max(1, round(w * step)), max(1, round(h * step))))


def openslide_tile(generator: Any, tile: Tile) -> None:
    """What OpenSlide's own Deep Zoom generator makes, encoded alike."""
    generator.get_tile(tile[0], tile[1:]).save(io.BytesIO(), format="JPEG", quality=82)


def tile_seconds(path: Path, tiles: dict[int, list[Tile]]) -> dict[int, Seconds]:
    """By downsample and side, the seconds of every tile; sides take turns tile by tile."""
    import openslide
    from openslide.deepzoom import DeepZoomGenerator

    slides = {name: open_slide(path, reader=name) for name in ("tiff", "openslide")}
    pyramid = DeepZoom(slides["tiff"].dimensions)
    generator = DeepZoomGenerator(openslide.OpenSlide(str(path)), SIDE, 0, False)
    sides = {name: lambda tile, slide=slide: pyramid.tile(slide, *tile) for name, slide in slides.items()}
    sides |= {f"decode {n}": lambda tile, slide=slide: decode(slide, pyramid, tile) for n, slide in slides.items()}
    sides["OpenSlide DeepZoom"] = lambda tile: openslide_tile(generator, tile)
    found: dict[int, Seconds] = {}
    for downsample, listed in tiles.items():
        found[downsample] = {name: [] for name in sides}
        for turn, tile in enumerate(listed):
            names = list(sides)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                start = time.perf_counter()
                sides[name](tile)
                found[downsample][name].append(time.perf_counter() - start)
    return found


def run(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Measure, print, and return the raw figures."""
    path = large_slide(work, options.size, ".tiff")
    results = work / "results"
    classify([path], results, load_model("demo"))
    [(_, prediction)] = stored_predictions(results)
    views = first_views(results, options.repeats)
    for name, seconds in views.items():
        print(f"first {name}: {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")
    pyramid = DeepZoom(prediction.extent)
    seconds = tile_seconds(path, tissue_tiles(pyramid, prediction, options.tiles))
    names = list(next(iter(seconds.values())))
    rows = [[d, *(f"{1000 * statistics.median(s[n]):.1f}" for n in names)] for d, s in seconds.items()]
    print(table(["downsample, ms a tile", *names], rows))
    pooled: Seconds = {name: [one for each in seconds.values() for one in each[name]] for name in names}
    print(f"all levels, tiff: median {1000 * statistics.median(pooled['tiff']):.1f} ms, target 50")
    print(ratio_line(pooled, "tiff", "decode tiff"))
    print(ratio_line(pooled, "tiff", "OpenSlide DeepZoom"))
    return {"first_view": views, "tiles": seconds}


def main() -> None:
    """The command line."""
    parser = options_parser(__doc__, "viewer")
    parser.add_argument("--size", type=int, default=100_000, help="side of the slide in pixels")
    parser.add_argument("--tiles", type=int, default=60, help="tiles of each level, at most")
    parser.add_argument("--work", type=Path, help="keeps the slide and its results here for the next run")
    run_and_save(parser, run)


if __name__ == "__main__":
    main()
