"""What one slide costs: the demo model by attention, beside the same encoder over all tissue tiles, in one run.

    python tests/benchmarks/slide_cost.py [--size 100000] [--encode 1024] [--json FILE]

Each side runs in a process of its own, so that its peak memory is its own. "All tissue" reads and encodes every tissue
tile of the slide; with --encode N only N of them, evenly spread, and the time is scaled (the output says so).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

Figures = dict[str, Any]


def by_attention(path: str, most: int) -> Figures:
    """Open, overview, attention, read, classify: what `classify` does for one slide."""
    from wsi_attention import load_model, open_slide, predict

    classifier = load_model("demo")
    start = time.perf_counter()
    with open_slide(path) as slide:
        prediction = predict(slide, classifier)
    seconds = time.perf_counter() - start
    counters = prediction.counters
    return {
        "seconds": seconds,
        "tiles": counters.tiles,
        "bytes": counters.bytes,
        "overview_pixels": prediction.overview_pixels,
    }


def over_all_tissue(path: str, most: int) -> Figures:
    """The same encoder over every tissue tile, through the same reader and the same batches."""
    import numpy as np
    import torch

    from wsi_attention import SlideSource, TileSet, load_model, open_slide
    from wsi_attention.geometry import Grid
    from wsi_attention.nn.bags import encode

    model = load_model("demo").model
    with open_slide(path) as slide, torch.inference_mode():
        source = SlideSource(slide)
        downsample, size = source.downsample(model.tile_mpp), model.tile_size
        start = time.perf_counter()
        source.overview(source.overview_downsample(model.overview_mpp))
        grid = Grid.covering(slide.dimensions, (size * downsample, size * downsample))
        cells = np.flatnonzero(source.tissue(grid).numpy().ravel())
        overview_seconds = time.perf_counter() - start
        picked = cells[np.linspace(0, len(cells) - 1, min(most or len(cells), len(cells))).astype(int)]
        start = time.perf_counter()
        for part in np.array_split(picked, max(1, len(picked) // 256)):
            tiles = TileSet(grid.locations(part, (size, size), downsample), (size, size), downsample)
            encode(source.read(tiles), model.preprocess, model.encoder)
        tile_seconds = time.perf_counter() - start
    return {
        "seconds": overview_seconds + tile_seconds * len(cells) / len(picked),
        "tiles": len(cells),
        "tiles_measured": len(picked),
        "bytes": round(source.counters.bytes * len(cells) / len(picked)),
    }


def in_own_process(side: Callable[[str, int], Figures], path: str, most: int) -> Figures:
    """Runs one side in a spawned process and adds that process's peak memory in MB."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, side, path, most))
    process.start()
    sender.close()
    try:
        figures: Figures = receiver.recv()
    finally:
        process.join()
    return figures


def _send(sender: Any, side: Callable[[str, int], Figures], path: str, most: int) -> None:
    figures = side(path, most)
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sender.send(figures)


def main() -> None:
    """Makes the slide, runs both sides, prints the table and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--encode", type=int, default=1024, help="tissue tiles to encode; 0 for all")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from wsi_attention.testing.slides import SlideSpec, write_large_slide

    with TemporaryDirectory() as folder:
        path = Path(folder) / "giant.svs"
        start = time.perf_counter()
        write_large_slide(path, SlideSpec((options.size, options.size), mpp=0.25, seed=1, label="lesion"))
        print(f"{options.size} x {options.size} slide, {path.stat().st_size / 1e6:,.0f} MB, ", end="")
        print(f"written in {time.perf_counter() - start:.1f} s")
        sides = {
            side.__name__: in_own_process(side, str(path), options.encode) for side in (by_attention, over_all_tissue)
        }
    report(sides)
    if options.json:
        options.json.write_text(json.dumps({"size": options.size, **sides}, indent=2) + "\n", encoding="utf-8")


def report(sides: dict[str, Figures]) -> None:
    """Prints both sides and how many times cheaper the first one is."""
    print(f"{'':<18}{'tiles':>9}{'seconds':>10}{'MB read':>10}{'peak MB':>10}")
    for name, f in sides.items():
        print(f"{name:<18}{f['tiles']:>9,}{f['seconds']:>10.2f}{f['bytes'] / 1e6:>10.1f}{f['peak_mb']:>10.0f}")
    few, every = sides["by_attention"], sides["over_all_tissue"]
    print(f"overview: {few['overview_pixels'] / 1e6:.2f} Mpx")
    print(f"all tissue measured on {every['tiles_measured']:,} of {every['tiles']:,} tiles")
    print(
        f"ratio: {every['seconds'] / few['seconds']:.0f}x fewer seconds"
        f", {every['tiles'] / few['tiles']:.0f}x fewer tiles"
    )


if __name__ == "__main__":
    main()
