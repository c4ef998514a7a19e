"""How well slides feed a GPU: images a second, and the share of the time in which it computes, by reader threads.

    python tests/gpu/feed.py [--encoders resnet50 vit-l] [--threads 1 4 16] [--seconds 15] [--json FILE]
    python tests/gpu/feed.py --device cpu --encoders resnet50 --threads 1 2 --seconds 1 --batch 2 --size 8192

The second command tries the script without a GPU.

Aligned 256-px tissue tiles of a generated slide, cropped to 224 px on the device; ResNet-50 and ViT-L/16 with random
weights, bfloat16 and channels last on a GPU. Three things go on at once: threads decode tiles as uint8 into pinned
buffers of which there are a few, a stream of its own copies a full one to the card, and the card normalises and encodes
the one before. "limit" encodes one batch, which lies on the card already, again and again; "reading" decodes and
encodes nothing. "computes" is the time between the events around each forward pass, waits for the host's next
instruction included, so "of limit" says more: threads that decode keep the host from giving instructions. First of all,
features by this way are compared with those of the same tiles read, copied and encoded one step after the other.

It needs this package and torch alone. At the defaults it ends within eight minutes: 15 seconds for each of 11 rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from common import large_slide, machine, table
from reader_sides import Locations, StoredTiles

from wsi_attention import Slide, open_slide
from wsi_attention.nn.vit import VisionTransformer

SIDE, CROP = 256, 224
BUFFERS, SHARE, IN_FLIGHT = 6, 16, 2
"""Pinned buffers; tiles that a thread reads at once; batches that the card may be behind."""
COMPARED = BUFFERS + 2
"""Batches whose features are compared."""


class Bottleneck(nn.Module):
    """A block of ResNet-50 (He et al., CVPR 2016), the stride in its 3 × 3 convolution."""

    def __init__(self, before: int, inner: int, stride: int) -> None:
        super().__init__()
        after = 4 * inner
        layers = [(before, inner, 1, 1), (inner, inner, 3, stride), (inner, after, 1, 1)]
        parts: list[nn.Module] = []
        for number, (less, more, side, step) in enumerate(layers):
            parts += [nn.Conv2d(less, more, side, step, side // 2, bias=False), nn.BatchNorm2d(more)]
            parts += [nn.ReLU(inplace=True)] if number < 2 else []
        self.layers = nn.Sequential(*parts)
        shortcut = nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
        self.shortcut = nn.Identity() if before == after and stride == 1 else nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, before, h, w) to (b, 4 · inner, h / stride, w / stride)."""
        return torch.relu(self.layers(x) + self.shortcut(x))


def resnet50() -> nn.Module:
    """ResNet-50 up to its global mean, (b, 3, 224, 224) to (b, 2048)."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    layers += [nn.MaxPool2d(3, 2, 1)]
    before = 64
    for inner, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for number in range(blocks):
            layers.append(Bottleneck(before, inner, 2 if number == 0 and inner > 64 else 1))
            before = 4 * inner
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "resnet50": resnet50,
    "vit-l": partial(VisionTransformer, 3, 16, (14, 14), 1024, 24, 16),
}


def encoder(name: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A network with random weights that takes uint8 tiles (b, 256, 256, 3) on the device."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = ENCODERS[name]().eval().to(device, dtype, memory_format=torch.channels_last)
    at = (SIDE - CROP) // 2

    def encode(tiles: Tensor) -> Tensor:
        pixels = tiles[:, at : at + CROP, at : at + CROP].permute(0, 3, 1, 2)
        features: Tensor = model((pixels.to(dtype) / 255 - 0.5) / 0.25)
        return features

    return encode


class Full(NamedTuple):
    """A buffer that threads have filled, and who may write to it next waits for `free`."""

    tiles: Tensor
    free: Callable[[Callable[[], object]], None]


def filled(slide: Slide, places: Iterator[Locations], threads: int, pinned: bool) -> Iterator[Full]:
    """Yield batches (b, 256, 256, 3) in order, read ahead by threads into buffers that are used in turn."""

    def start(places_of_batch: Locations, buffer: Tensor) -> list[Future[list[str | None]]]:
        out = buffer.numpy()
        read = partial(slide.read_regions, level=0, size=(SIDE, SIDE))
        parts = range(0, len(places_of_batch), SHARE)
        return [pool.submit(read, places_of_batch[i : i + SHARE], out=out[i : i + SHARE]) for i in parts]

    with ThreadPoolExecutor(threads) as pool:
        coming: deque[tuple[Tensor, list[Future[list[str | None]]]]] = deque()
        for batch in islice(places, BUFFERS):
            buffer = torch.empty((len(batch), SIDE, SIDE, 3), dtype=torch.uint8, pin_memory=pinned)
            coming.append((buffer, start(batch, buffer)))
        waits: dict[int, Callable[[], object]] = {}
        while coming:
            buffer, jobs = coming.popleft()
            if failed := [why for job in jobs for why in job.result() if why]:
                raise RuntimeError(failed[0])
            yield Full(buffer, partial(waits.__setitem__, id(buffer)))
            batch = next(places, None)
            if batch is not None:
                waits.pop(id(buffer), lambda: None)()
                coming.append((buffer, start(batch, buffer)))


class Card:
    """A GPU that copies on one stream while it encodes on another; the processor does one after the other."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.cuda = device, device.type == "cuda"
        self.copies = torch.cuda.Stream(device) if self.cuda else None
        self.spans: list[tuple[Any, Any]] = []
        self.seconds = 0.0

    def encode(self, full: Full, network: Callable[[Tensor], Tensor]) -> Tensor:
        """Copy a batch and encode it; on a GPU nothing is waited for but the batch before the last."""
        tiles = self._copied(full)
        start = time.perf_counter()
        began, ended = self._mark(), None
        features = network(tiles)
        ended = self._mark()
        self.spans.append((began, ended))
        self.seconds += time.perf_counter() - start
        if self.cuda and len(self.spans) > IN_FLIGHT:
            self.spans[-1 - IN_FLIGHT][1].synchronize()  # the host may not run away from the card
        return features

    def _copied(self, full: Full) -> Tensor:
        if self.copies is None:
            return full.tiles
        with torch.cuda.stream(self.copies):
            tiles = full.tiles.to(self.device, non_blocking=True)
        done = self.copies.record_event()
        full.free(done.synchronize)
        here = torch.cuda.current_stream(self.device)
        here.wait_event(done)
        tiles.record_stream(here)
        return tiles

    def _mark(self) -> Any:
        if not self.cuda:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def finish(self) -> float:
        """Wait for all that was asked; return the seconds of computing since the last call."""
        if self.cuda:
            torch.cuda.synchronize(self.device)
            self.seconds = sum(began.elapsed_time(ended) for began, ended in self.spans) / 1000
        spent, self.seconds = self.seconds, 0.0
        self.spans.clear()
        return spent


def batches(cells: Locations, size: int, seconds: float | None = None, count: int | None = None) -> Iterator[Locations]:
    """Yield batches of places in a random order, over and over, until the time is over or so many were given."""
    rng, end, given = np.random.default_rng(0), time.perf_counter() + (seconds or 0), 0
    while (count is not None and given < count) or (count is None and time.perf_counter() < end):
        picked = cells[rng.integers(len(cells), size=size)]
        given += 1
        yield picked[np.lexsort((picked[:, 0], picked[:, 1]))]


def timed(card: Card, source: Iterator[Full], network: Callable[[Tensor], Tensor] | None) -> dict[str, float]:
    """Encode all batches, or only read them: images a second, and the share of time in which the card computes."""
    card.finish()
    start, images = time.perf_counter(), 0
    with torch.inference_mode():
        for full in source:
            images += len(full.tiles)
            if network is not None:
                card.encode(full, network)
        busy = card.finish()
    seconds = time.perf_counter() - start
    return {"images": images, "images_per_second": images / seconds, "computes": busy / seconds}


def limit(card: Card, full: Full, network: Callable[[Tensor], Tensor], seconds: float) -> dict[str, float]:
    """Encode one batch on the card again and again."""
    here = Full(full.tiles.to(card.device), full.free)

    def again() -> Iterator[Full]:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            yield here

    return timed(card, again(), network)


def largest_difference(
    card: Card, slide: Slide, cells: Locations, size: int, network: Callable[[Tensor], Tensor]
) -> float:
    """How much features of overlapped work differ from those of one step after the other, relative to the largest."""
    most = 0.0
    with torch.inference_mode():
        source = filled(slide, batches(cells, size, count=COMPARED), 4, card.cuda)
        overlapped = [card.encode(full, network).float().cpu() for full in source]
        for found, places in zip(overlapped, batches(cells, size, count=COMPARED), strict=True):
            pixels = np.empty((len(places), SIDE, SIDE, 3), np.uint8)
            slide.read_regions(places, 0, (SIDE, SIDE), pixels)
            plain = network(torch.from_numpy(pixels).to(card.device)).float().cpu()
            most = max(most, float((found - plain).abs().max() / plain.abs().max()))
    card.finish()
    return most


def rows_of(
    name: str, card: Card, slide: Slide, cells: Locations, asked: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one encoder: the limit, and each number of threads."""
    network = encoder(name, card.device)
    difference = largest_difference(card, slide, cells, asked.batch, network)
    print(f"{name}: overlapped and one after the other differ by {difference:.1e} of the largest feature", flush=True)
    first = next(filled(slide, batches(cells, asked.batch, count=1), 4, card.cuda))
    limit(card, first, network, 1)
    yield {"encoder": name, "side": "limit", **limit(card, first, network, asked.seconds), "difference": difference}
    for threads in asked.threads:
        source = filled(slide, batches(cells, asked.batch, asked.seconds), threads, card.cuda)
        yield {"encoder": name, "side": f"{threads} threads", **timed(card, source, network)}


def main() -> int:
    """Run all rows; 1 where features differ."""
    asked = _arguments()
    device = torch.device(asked.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no GPU here; --device cpu tries the script without one")
        return 0
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    whole: AbstractContextManager[object] = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    with TemporaryDirectory() as folder, whole:
        path = asked.slide or large_slide(Path(folder), asked.size)
        cells = StoredTiles(path).tissue * SIDE
        card, rows = Card(device), []
        with open_slide(path, reader=asked.reader) as slide:
            for threads in asked.threads:
                source = filled(slide, batches(cells, asked.batch, asked.seconds), threads, card.cuda)
                rows.append({"encoder": "reading", "side": f"{threads} threads", **timed(card, source, None)})
            for encoder_name in asked.encoders:
                for row in rows_of(encoder_name, card, slide, cells, asked):
                    rows.append(row)
                    print(f"{row['encoder']}, {row['side']}: {row['images_per_second']:.3g} images/s", flush=True)
    limits = {row["encoder"]: row["images_per_second"] for row in rows if row["side"] == "limit"}
    shown = [(row["encoder"], row["side"], f"{row['images_per_second']:.3g}", *_shares(row, limits)) for row in rows]
    print(f"{name}, batches of {asked.batch}\n{table(('encoder', 'side', 'images/s', 'of limit', 'computes'), shown)}")
    if asked.json:
        asked.json.write_text(json.dumps({"card": name, "machine": machine(), "rows": rows}, indent=1) + "\n")
    return int(any(row.get("difference", 0.0) > asked.close for row in rows))


def _shares(row: dict[str, Any], limits: dict[str, float]) -> tuple[str, str]:
    if row["encoder"] == "reading":
        return "-", "-"
    return f"{row['images_per_second'] / limits[row['encoder']]:.0%}", f"{row['computes']:.0%}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--encoders", nargs="+", choices=tuple(ENCODERS), default=list(ENCODERS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4, 16], help="that read")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each row")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=40_000, help="side of the slide in pixels")
    parser.add_argument("--reader", default="tiff")
    parser.add_argument("--slide", type=Path, help="a tiled JPEG TIFF of 256-px tiles, in place of a generated slide")
    parser.add_argument("--close", type=float, default=1e-2, help="largest difference of features, as a share")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
