"""How well a reader feeds a GPU: tiles a second encoded, share of the time the GPU waits, peak GPU memory.

    python tests/benchmarks/gpu_feed.py [--encoders resnet50 vit_large_patch16_224] [--tiles 8192]

Readers `openslide` and `tiff` on one generated slide, aligned 256-px tissue tiles cropped to 224 on the device; timm's
networks with random weights in bfloat16, channels last. Tiles go to the device as uint8 from pinned memory and are
normalised there; a thread pool reads ahead of the device by a few batches. "limit" encodes one batch again and again:
what the GPU does when nothing has to be read. Without a GPU it says so and ends with status 0.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from common import large_slide, machine, options_parser, save, table
from reader_sides import Locations, StoredTiles

SIDE, CROP, AHEAD = 256, 224, 4


def encoder(name: str) -> Any:
    """A timm network with random weights in bfloat16 on the GPU.

    Raises:
        SystemExit: timm is missing.
    """
    import torch

    try:
        import timm
    except ImportError:
        raise SystemExit("gpu_feed needs timm: pip install 'wsi-attention[encoders]'") from None
    model = timm.create_model(name, pretrained=False, num_classes=0)
    return model.eval().to("cuda", torch.bfloat16, memory_format=torch.channels_last)


def batches(slide: Any, locations: Locations, batch: int, threads: int) -> Iterator[Any]:
    """Pinned uint8 batches (n, h, w, 3), read ahead by threads, each its share of a batch, in order."""
    import torch

    def start(part: Locations) -> tuple[Any, list[Future[Any]]]:
        pinned = torch.empty((len(part), SIDE, SIDE, 3), dtype=torch.uint8, pin_memory=torch.cuda.is_available())
        out, shares = pinned.numpy(), np.array_split(np.arange(len(part)), threads)
        read = partial(slide.read_regions, level=0, size=(SIDE, SIDE))
        jobs = [pool.submit(read, part[s], out=out[s[0] : s[-1] + 1]) for s in shares if len(s)]
        return pinned, jobs

    parts = [locations[first : first + batch] for first in range(0, len(locations), batch)]
    with ThreadPoolExecutor(threads) as pool:
        coming = deque(start(part) for part in parts[:AHEAD])
        for index in range(len(parts)):
            pinned, jobs = coming.popleft()
            for job in jobs:
                if failed := [why for why in job.result() if why]:
                    raise RuntimeError(failed[0])
            if index + AHEAD < len(parts):
                coming.append(start(parts[index + AHEAD]))
            yield pinned


def encode(model: Any, pinned: Any, events: list[Any]) -> None:
    """One batch: to the device, normalise, encode; the events enclose the device's work."""
    import torch

    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    tiles = pinned.to("cuda", non_blocking=True).permute(0, 3, 1, 2)
    at = (SIDE - CROP) // 2
    tiles = tiles[..., at : at + CROP, at : at + CROP].to(torch.bfloat16, memory_format=torch.channels_last)
    model((tiles / 255 - 0.5) / 0.25)
    ended.record()
    events.append((began, ended, pinned))


def fed(model: Any, source: Iterator[Any]) -> dict[str, float]:
    """Encode all batches: tiles a second, share of the time in which the GPU had nothing to do, peak memory."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    events: list[Any] = []
    start, count = time.perf_counter(), 0
    with torch.inference_mode():
        for pinned in source:
            encode(model, pinned, events)
            count += len(pinned)
            if len(events) > AHEAD:
                events[-AHEAD][1].synchronize()  # the host may not run away from the device
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    busy = sum(began.elapsed_time(ended) for began, ended, _ in events) / 1000
    peak = torch.cuda.max_memory_allocated() / 2**20
    return {"tiles_s": count / seconds, "waiting": max(0.0, 1 - busy / seconds), "peak_gpu_mb": peak}


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every encoder with every reader and with none, in turns."""
    from wsi_attention import open_slide

    path = large_slide(folder, options.size)
    cells = StoredTiles(path).tissue * SIDE
    rng = np.random.default_rng(0)
    locations = cells[np.sort(rng.choice(len(cells), min(options.tiles, len(cells)), replace=False))]
    found: dict[str, Any] = {}
    for name in options.encoders:
        model = encoder(name)
        with open_slide(path) as any_slide:
            one = next(batches(any_slide, locations[: options.batch], options.batch, options.threads))
        fed(model, iter([one] * 3))
        found[name] = {"limit": [], "openslide": [], "tiff": []}
        for _ in range(options.repeats):
            found[name]["limit"].append(fed(model, iter([one] * max(1, len(locations) // options.batch))))
            for reader in ("openslide", "tiff"):
                with open_slide(path, reader=reader) as slide:
                    found[name][reader].append(fed(model, batches(slide, locations, options.batch, options.threads)))
        del model
    return found


def report(found: dict[str, Any], options: argparse.Namespace) -> None:
    """Print a table, and how many times faster the tiff reader feeds."""
    rows, lines = [], []
    for name, sides in found.items():
        middle = {
            side: {key: float(np.median([run[key] for run in runs])) for key in runs[0]} for side, runs in sides.items()
        }
        for side, of in middle.items():
            budget = f"{of['peak_gpu_mb']:,.0f}", f"{of['peak_gpu_mb'] / 1024 / options.budget_gb:.2f}"
            rows.append((name, side, f"{of['tiles_s']:,.0f}", f"{of['waiting']:.2f}", *budget))
        tiff = middle["tiff"]["tiles_s"]
        over, of_limit = tiff / middle["openslide"]["tiles_s"], tiff / middle["limit"]["tiles_s"]
        lines.append(f"ratio {name}: tiff / openslide {over:.2f}x, tiff / limit {of_limit:.2f}")
    print(table(("encoder", "reader", "tiles/s", "GPU waits", "peak GPU MB", "of budget"), rows))
    print("\n".join(lines))


def main() -> None:
    """The command line."""
    import torch

    parser = options_parser(__doc__, "gpu_feed", repeats=3)
    parser.add_argument("--encoders", nargs="+", default=["resnet50", "vit_large_patch16_224"])
    parser.add_argument("--size", type=int, default=40_000)
    parser.add_argument("--tiles", type=int, default=8_192)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--budget-gb", type=float, default=8.0, help="GPU memory that may be used")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu_feed: no GPU here that torch can use; nothing measured")
        return
    began = machine() | {"gpu": torch.cuda.get_device_name()}
    with TemporaryDirectory() as folder:
        found = run(options, Path(folder))
    report(found, options)
    save(options.json, options, found, began)


if __name__ == "__main__":
    main()
