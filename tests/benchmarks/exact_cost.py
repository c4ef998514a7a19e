"""A slide's label from a sample of its tiles, beside the same model over all tissue; and the bytes that were read.

    python tests/benchmarks/exact_cost.py [--size 100000] [--tiles 256] [--encode 1024] [--repeats 3]

ATS with a ResNet-18 and random weights on a generated slide (256-px JPEG tiles, 0.25 µm/px, 40 % tissue), every side in
a process of its own that has classified a small slide before. "all tissue" reads and encodes every tile of the model's
size and scale that lies on tissue, side by side, through the same reader and encoder; only --encode of them, evenly
spread over the tissue, and that time is scaled to all (0 does all). The model's own exact sum (`--exact`) takes one
tile from the middle of each of its cells of 128 µm, which is a quarter of that; its cost is scaled by their number.
"alone" is what no order of work can avoid: reading the overview, decoding the sampled tiles, and the forward passes of
the two networks, each by itself on the very same pixels; the sample also opens the file, finds the tissue, draws, and
keeps count. Bytes are those that were read of the slide's own file, counted by strace in a run of its own (where there
is no strace, all that the process asked of files: rchar of /proc/self/io, in which an excerpt that is compared in
memory counts too); and those that the disk delivered from a cold cache (read_bytes: whole pages, and what the system
reads ahead), beside the bytes that the slide's counters claim, and the size of the file. "sampled" is the reader
`auto`: OpenSlide has opened the small slide, to compare a tile with it, and not the large one of the same kind; "first
of its kind" is `auto` where the small slide was read by name, so that the large one is compared; "openslide by name"
reads everything through OpenSlide.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import drop_cache, in_own_process, large_slide, machine, options_parser, ratio, save, table
from one_slide import classified, model_folder, peak_mb

SMALL = 10_000
SIDES = ("sampled", "all tissue", "alone")
BY_READER = {
    "sampled": ("auto", "auto"),
    "first of its kind": ("auto", "tiff"),
    "tiff by name": ("tiff", "tiff"),
    "openslide by name": ("openslide", "openslide"),
}
"""The reader of the large slide, and of the small one before."""


def over_all_tissue(path: str, model: str, first: str, most: int) -> dict[str, Any]:
    """Every tile on tissue read and encoded in parts as `exact` does it, or `most` of them and scaled."""
    import numpy as np
    import torch

    from wsi_attention import load_model, open_slide
    from wsi_attention.devices import autocast, placed, precision_on
    from wsi_attention.geometry import Grid
    from wsi_attention.inference.predict import prepare
    from wsi_attention.methods.rounds import Reading
    from wsi_attention.structures import TileSet

    classified(first, model)
    classifier, device = load_model(model), torch.device("cpu")
    cpu, start = time.process_time(), time.perf_counter()
    with open_slide(path) as slide, torch.inference_mode(), autocast(device, precision_on(device, "auto")):
        source, network = prepare(slide, classifier), placed(classifier.model, device)
        own_cells = int((network.score(source)[0] > -torch.inf).sum())
        size, downsample = network.options.tile_size, source.downsample(network.tile_mpp)
        grid = Grid.covering(slide.dimensions, (size * downsample, size * downsample))
        cells = np.flatnonzero(source.tissue(grid).numpy())
        before = time.perf_counter() - start, time.process_time() - cpu
        picked = cells[np.linspace(0, len(cells) - 1, min(most or len(cells), len(cells))).astype(int)]
        tiles = TileSet(grid.locations(picked[None], (size, size), downsample), (size, size), downsample)
        Reading(source, tiles, network.preprocess, network.encoder).first(len(tiles))
    after = time.perf_counter() - start, time.process_time() - cpu
    wall, own = (b + (a - b) * len(cells) / len(picked) for a, b in zip(after, before, strict=True))
    return {
        "seconds": wall,
        "cpu_seconds": own,
        "tiles": len(cells),
        "own_cells": own_cells,
        "encoded": len(picked),
        "rss_mb": peak_mb(),
    }


def alone(path: str, model: str, first: str, most: int) -> dict[str, Any]:
    """The overview read, the sampled tiles decoded, the two networks run: each timed by itself, then added up."""
    import numpy as np
    import torch

    from wsi_attention import load_model, open_slide
    from wsi_attention.devices import autocast, placed, precision_on
    from wsi_attention.inference.predict import predict
    from wsi_attention.methods.overview import look_over
    from wsi_attention.nn.bags import encode
    from wsi_attention.slide.view import View
    from wsi_attention.structures import TileBatch
    from wsi_attention.tiles.source import SlideSource

    classified(first, model)
    classifier, device = load_model(model), torch.device("cpu")
    parts: dict[str, tuple[float, float]] = {}

    def done(name: str, since: tuple[float, float]) -> None:
        parts[name] = time.perf_counter() - since[0], time.process_time() - since[1]

    def now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    with open_slide(path) as slide, torch.inference_mode(), autocast(device, precision_on(device, "auto")):
        tiles = predict(slide, classifier).glimpses[0].tiles
        source, network = SlideSource(slide), placed(classifier.model, device)
        downsample = source.overview_downsample(network.overview_mpp)
        since = now()
        View(slide, downsample).read_whole()
        done("overview", since)
        pixels = np.empty((len(tiles), tiles.size[1], tiles.size[0], 3), np.uint8)
        since = now()
        View(slide, tiles.downsample).read_many(tiles.locations[0], tiles.size, pixels)
        done("decode", since)
        batch = TileBatch(torch.from_numpy(pixels).permute(0, 3, 1, 2)[None], torch.ones((1, len(tiles)), dtype=bool))
        logits, _, grid = network.score(source)
        tissue = (logits > -torch.inf).reshape(1, *grid.shape)
        since = now()
        look_over(source, network.attention, network.preprocess, (grid, downsample), tissue, network.evidence)
        encode(batch, network.preprocess, network.encoder)
        done("forward", since)
    wall, own = (sum(part[k] for part in parts.values()) for k in (0, 1))
    named = {name: seconds for name, (seconds, _) in parts.items()}
    return {"seconds": wall, "cpu_seconds": own, "tiles": len(tiles), "rss_mb": peak_mb(), **named}


def cold(readers: tuple[str, str], path: str, model: str, first: str, most: int) -> dict[str, Any]:
    """What `classify` does for one slide that the system has no page of."""
    del most
    classified(first, model, reader=readers[1])
    drop_cache(Path(path))
    return classified(path, model, reader=readers[0])


ONE_SLIDE = "import sys; from one_slide import classified as c; c(*sys.argv[3:5], reader=sys.argv[1]); "
ONE_SLIDE += "c(sys.argv[5], sys.argv[4], reader=sys.argv[2])"
"""Classifies the small slide and the large one: their readers, the small slide, the model, the large slide."""
CALL = re.compile(
    r"^(\d+) +(?:p?read(?:64|v2?)?\(\d+<([^>]*)>.*?|<\.\.\. \w+ resumed>.*)(?: = (\d+)| <unfinished \.\.\.>)$"
)


def read_of(path: Path, model: str, first: str, readers: tuple[str, str]) -> int | None:
    """Bytes that a process reads of the large slide's file when it classifies both; None where there is no strace."""
    strace = shutil.which("strace")
    if strace is None:
        return None
    with TemporaryDirectory() as folder:
        log = Path(folder) / "calls"
        calls = ["-f", "-y", "-qq", "-s", "0", "-e", "trace=read,pread64,readv,preadv,preadv2", "-o", str(log)]
        side = [sys.executable, "-c", ONE_SLIDE, readers[1], readers[0], first, model, str(path)]
        subprocess.run([strace, *calls, *side], check=True, cwd=Path(__file__).parent)
        return bytes_in(log.read_text(encoding="utf-8", errors="replace").splitlines(), str(path.resolve()))


def bytes_in(lines: list[str], path: str) -> int:
    """Bytes that calls in strace's lines read of a file; a call that another thread interrupts has two lines."""
    total, waiting = 0, dict[str, str]()
    for line in lines:
        if (call := CALL.match(line)) is None:
            continue
        thread, of, count = call.groups()
        of = waiting.pop(thread, "") if of is None else of
        if count is None:
            waiting[thread] = of
        elif of == path:
            total += int(count)
    return total


def report(rounds: dict[str, list[dict[str, Any]]], file_bytes: int) -> None:
    """Print the sides, the ratios and the bytes."""
    for kind in ("seconds", "cpu_seconds"):
        taken = {side: [one[kind] for one in rounds[side]] for side in SIDES}
        rows = [[side, rounds[side][0]["tiles"], f"{statistics.median(taken[side]):.2f}"] for side in SIDES]
        print(f"\n{kind}, medians of {len(taken['sampled'])} rounds\n{table(('side', 'tiles', kind), rows)}")
        print("all tissue / sampled: {:.0f}x ({:.0f} to {:.0f}), target 100".format(*ratio(taken, SIDES[1], SIDES[0])))
        print("alone / sampled: {:.2f} ({:.2f} to {:.2f}), target 0.85".format(*ratio(taken, SIDES[2], SIDES[0])))
    every = rounds["all tissue"][0]
    share = every["own_cells"] / every["tiles"]
    exact = statistics.median(all_["cpu_seconds"] for all_ in rounds["all tissue"]) * share
    few = statistics.median(one["cpu_seconds"] for one in rounds["sampled"])
    print(f"the model's own exact sum ({every['own_cells']:,} tiles), scaled, / sampled: {exact / few:.0f}x of cpu")
    print(f"all tissue measured on {every['encoded']:,} of {every['tiles']:,} tiles and scaled")
    print(f"peak memory, sampled: {statistics.median(one['rss_mb'] for one in rounds['sampled']):.0f} MB, target 900")
    for name in BY_READER:
        report_bytes(name, rounds[name][-1], file_bytes)


def report_bytes(name: str, one: dict[str, Any], file_bytes: int) -> None:
    """Print what was asked of files and of the disk, beside what cannot be avoided."""
    needed = one["bytes_counted"] + one["bytes_index"]
    print(
        f"bytes, {name}: {one['bytes_counted'] / 1e6:.2f} MB counted for tiles and overview"
        f" and {one['bytes_index'] / 1e6:.2f} in the index of a file of {file_bytes / 1e6:,.0f}"
    )
    asked = ("read of the file", "bytes_file") if "bytes_file" in one else ("asked of files", "bytes_read")
    for what, kind in (asked, ("from a cold disk", "bytes_storage")):
        print(
            f"  {what}: {one[kind] / 1e6:.2f} MB, {one[kind] / needed:.2f}x of these, target 1.15;"
            f" {one[kind] / file_bytes:.2%} of the file, target 1 %"
        )


def main() -> None:
    """Make the slides, take turns, print, save the raw figures."""
    parser = options_parser(__doc__, "exact_cost", repeats=3)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--tiles", type=int, default=256)
    parser.add_argument("--encode", type=int, default=1024, help="tissue tiles to encode; 0 for all")
    parser.add_argument("--folder", type=Path, help="where slides are kept between runs; a temporary one by default")
    options, began = parser.parse_args(), machine()
    sides = {name: partial(cold, readers) for name, readers in BY_READER.items()}
    sides |= {"all tissue": over_all_tissue, "alone": alone}
    with TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        path, first = large_slide(folder, options.size), str(large_slide(folder, SMALL))
        model = str(model_folder(Path(temporary), options.tiles))
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for turn in range(options.repeats):
            for name in (*list(sides)[turn % len(sides) :], *list(sides)[: turn % len(sides)]):
                rounds[name].append(in_own_process(sides[name], str(path), model, first, options.encode))
        for name, readers in BY_READER.items():
            counted = {} if (read := read_of(path, model, first, readers)) is None else {"bytes_file": read}
            rounds[name][-1] |= counted
        size = path.stat().st_size
    report(rounds, size)
    save(options.json, options, {"file_bytes": size, "rounds": rounds}, began)


if __name__ == "__main__":
    main()
