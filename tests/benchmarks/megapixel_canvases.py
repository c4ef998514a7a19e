"""Megapixel MNIST, streamed: canvases by the rules of Katharopoulos & Fleuret (ICML 2019), made when asked for.

A canvas of 1500² pixels holds five digits of 28², three of one class, which is its label, and two of any other, none
over another; then 50 scribbles of 28² at random places, each one of 50 patterns of straight lines. Whatever comes later
replaces what it covers. Five thousand canvases share their patterns, as those of one published data set do; a stream
goes on with the next five thousand and new patterns. Nothing is kept: a canvas follows from the seed and its number.

    python tests/benchmarks/megapixel_canvases.py OUT --digits FOLDER --count 1000 [--part test] [--seed 0]

writes canvases as one zarr array (n, h, w) of bytes with a labels.csv beside it, for `wsi-attention train`. FOLDER
holds the four idx files of MNIST, with or without .gz.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_attention.structures import TileBatch, TileSet
from wsi_attention.tiles.tensors import TensorSource

SIDE, DIGIT = 1500, 28
DIGITS, SCRIBBLES, PATTERNS = 5, 50, 50
SAME = 3
"""Digits of the class that is the label."""
SET = 5_000
"""Canvases that share their patterns."""
VIEW = 180
"""Pixels along the view: 0.12 of the canvas."""
PARTS = {"train": "train", "test": "t10k"}


@dataclass(frozen=True, eq=False)
class Digits:
    """The digits of one part of MNIST: `images` (n, 28, 28) uint8, `labels` (n,) int64, sorted by label."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def load_digits(folder: Path, part: str) -> Digits:
    """Read the idx files of a part, "train" or "test"."""
    images = _idx(folder, f"{PARTS[part]}-images-idx3-ubyte")
    labels = _idx(folder, f"{PARTS[part]}-labels-idx1-ubyte").astype(np.int64)
    order = np.argsort(labels, kind="stable")
    return Digits(images[order], labels[order])


def _idx(folder: Path, name: str) -> NDArray[np.uint8]:
    packed = folder / f"{name}.gz"
    content = gzip.decompress(packed.read_bytes()) if packed.is_file() else (folder / name).read_bytes()
    zero, kind, axes = struct.unpack(">HBB", content[:4])
    if zero or kind != 8:
        raise SystemExit(f"{folder / name}: no idx file of bytes; give the folder with MNIST's four files")
    shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


@dataclass(frozen=True, eq=False)
class Plan:
    """Where everything lies on the canvases of one set.

    Attributes:
        labels: (n,) classes.
        digits: (n, 5) indices into the digits.
        digit_places: (n, 5, 2) top left corners (y, x).
        patterns: (50, 28, 28) uint8.
        scribbles: (n, 50) indices into the patterns.
        scribble_places: (n, 50, 2) corners (y, x).
    """

    labels: NDArray[np.int64]
    digits: NDArray[np.int64]
    digit_places: NDArray[np.int64]
    patterns: NDArray[np.uint8]
    scribbles: NDArray[np.int64]
    scribble_places: NDArray[np.int64]


class Stream:
    """Canvases without end, by number.

    Args:
        digits: to paint.
        seed: of everything random.
        side: pixels along a canvas.
    """

    def __init__(self, digits: Digits, seed: int, side: int = SIDE) -> None:
        self.digits, self.seed, self.side = digits, seed, side
        self.plan = lru_cache(maxsize=2)(self._plan)

    def canvases(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
        """Of canvases in a row: classes (b,), blocks (b, 55, 28, 28) in the order of painting, corners (b, 55, 2)."""
        sets = numbers // SET
        parts = [self._taken(int(one), numbers[sets == one] % SET) for one in np.unique(sets)]
        labels, blocks, places = zip(*parts, strict=True)
        return np.concatenate(labels), np.concatenate(blocks), np.concatenate(places)

    def _taken(
        self, number: int, at: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
        plan = self.plan(number)
        blocks = np.concatenate([self.digits.images[plan.digits[at]], plan.patterns[plan.scribbles[at]]], axis=1)
        return plan.labels[at], blocks, np.concatenate([plan.digit_places[at], plan.scribble_places[at]], axis=1)

    def _plan(self, number: int) -> Plan:
        rng = np.random.default_rng([self.seed, number])
        labels = rng.integers(10, size=SET)
        return Plan(
            labels,
            self._choose(labels, rng),
            self._places(rng),
            scribble_patterns(rng),
            rng.integers(PATTERNS, size=(SET, SCRIBBLES)),
            (rng.random((SET, SCRIBBLES, 2)) * (self.side - 2 * DIGIT) + DIGIT).astype(np.int64),
        )

    def _choose(self, labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Three digits of the label, two of the others, all with replacement; digits are sorted by label."""
        every = len(self.digits.labels)
        count = np.bincount(self.digits.labels, minlength=10)[labels][:, None]
        start = np.searchsorted(self.digits.labels, labels)[:, None]
        same = start + (rng.random((SET, SAME)) * count).astype(np.int64)
        other = (rng.random((SET, DIGITS - SAME)) * (every - count)).astype(np.int64)
        return np.concatenate([same, other + count * (other >= start)], axis=1)

    def _places(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Corners of digits, drawn one after the other, and again while one covers an earlier one."""
        places = np.empty((SET, DIGITS, 2), np.int64)
        for k in range(DIGITS):
            left = np.arange(SET)
            while len(left):
                places[left, k] = np.round(rng.random((len(left), 2)) * (self.side - DIGIT))
                apart = np.abs(places[left, :k] - places[left, k : k + 1])
                left = left[(apart < DIGIT).all(-1).any(-1)]
        return places


def scribble_patterns(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pairs of straight lines through a corner, of uneven brightness: (50, 28, 28) uint8.

    The second line of a pair is mirrored twice, each time by chance and along the same axis, as in the released code.
    """
    slopes = np.tan(rng.random(PATTERNS) * np.pi / 2.5)
    lines = np.zeros((PATTERNS, DIGIT, DIGIT), bool)
    for line, slope in zip(lines, slopes, strict=True):
        along = np.linspace(0, min(27.49, 27.49 / slope), 2 * DIGIT)
        line[np.round(along).astype(int), np.round(slope * along).astype(int)] = True
    second = lines[rng.permutation(PATTERNS)]
    for _ in range(2):
        mirrored = rng.random(PATTERNS) < 0.33
        second[mirrored] = np.flip(second[mirrored], 2)
    bright = rng.random(lines.shape) * 0.2 + 0.8
    return ((lines | second) * bright * 255).astype(np.uint8)


class CanvasSource(TensorSource):
    """Some canvases of a stream side by side, as a model sees them; no canvas is in memory as a whole.

    View and tiles come from the blocks alone, and have the very pixels that a `TensorSource` of the painted canvases
    gives (compared in `tests/tiles`).

    Args:
        stream: to show.
        batch: canvases at a time.
    """

    def __init__(self, stream: Stream, batch: int) -> None:
        self._stream, side = stream, stream.side
        super().__init__(torch.zeros(1, dtype=torch.uint8).expand(batch, 1, side, side))
        self._blocks = np.empty((batch, 0, DIGIT, DIGIT), np.uint8)
        self._places = np.empty((batch, 0, 2), np.int64)
        self._shares = _Shares()

    def show(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Show other canvases from now on; return their classes."""
        labels, blocks, self._places = self._stream.canvases(numbers)
        self._blocks = visible(blocks, self._places)
        return labels

    def painted(self) -> Tensor:
        """The canvases themselves, (b, 1, 1500, 1500) uint8."""
        canvases = np.zeros(self.images.shape, np.uint8)
        for image, (blocks, places) in enumerate(zip(self._blocks, self._places, strict=True)):
            for block, (y, x) in zip(blocks, places, strict=True):
                canvases[image, 0, y : y + DIGIT, x : x + DIGIT] += block
        return torch.from_numpy(canvases)

    def overview(self, downsample: float) -> Tensor:
        """The view: area means."""
        if (self.extent[0] / downsample) != VIEW or self.extent[0] != SIDE:
            return TensorSource(self.painted()).overview(downsample)
        return self._shares.view(self._blocks, self._places)

    def read(self, tiles: TileSet) -> TileBatch:
        """Tiles at full resolution."""
        if tiles.downsample != 1:
            return TensorSource(self.painted()).read(tiles)
        size = np.array(tiles.size[::-1])
        pixels = np.zeros((*tiles.locations.shape[:2], 1, *size), np.uint8)
        offset = self._places[:, None] - tiles.locations[..., None, ::-1]
        for image, tile, number in np.argwhere(((offset > -DIGIT) & (offset < size)).all(-1)):
            y, x = offset[image, tile, number]
            block = self._blocks[image, number, max(0, -y) :, max(0, -x) :]
            part = pixels[image, tile, 0, max(0, y) : y + DIGIT, max(0, x) : x + DIGIT]
            part += block[: part.shape[0], : part.shape[1]]
        return TileBatch(torch.from_numpy(pixels), torch.ones(pixels.shape[:2], dtype=torch.bool))


def visible(blocks: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Blocks (b, k, 28, 28) without the pixels that a later one at places (b, k, 2) covers."""
    short = places.astype(np.int16).transpose(2, 0, 1)
    near = np.abs(short[..., None] - short[..., None, :]) < DIGIT
    left = blocks.copy()
    for image, first, second in np.argwhere(np.triu(near[0] & near[1], 1)):
        apart = places[image, second] - places[image, first]
        rows, cols = (slice(max(0, d), DIGIT + min(0, d)) for d in apart)
        left[image, first, rows, cols] = 0
    return left


class _Shares:
    """Area means of blocks that lie anywhere: three cells of the view are 25 pixels, so that 25 offsets are all."""

    cells = 5
    """Cells that a block of 28 pixels can touch, along an axis."""

    def __init__(self) -> None:
        step = SIDE / VIEW
        self._first = np.floor(np.arange(25) / step + 1e-9).astype(np.int64)
        edges = (self._first[:, None] + np.arange(self.cells + 1)) * step - np.arange(25)[:, None]
        pixel = np.arange(DIGIT)
        inside = np.minimum(edges[:, 1:, None], pixel + 1) - np.maximum(edges[:, :-1, None], pixel)
        self._shares = torch.from_numpy((inside.clip(0) / step).astype(np.float32))

    def view(self, blocks: NDArray[np.uint8], places: NDArray[np.int64]) -> Tensor:
        """The views (b, 1, 180, 180) of canvases with blocks (b, k, 28, 28) at places (b, k, 2)."""
        batch = len(places)
        rows, cols = (self._shares[places[..., axis].ravel() % 25] for axis in (0, 1))
        pixels = torch.from_numpy(blocks).view(-1, DIGIT, DIGIT).float()
        means = torch.bmm(torch.bmm(rows, pixels), cols.mT)
        first = torch.from_numpy(places // 25 * 3 + self._first[places % 25])
        side = VIEW + self.cells
        corner = (torch.arange(batch)[:, None] * side + first[..., 0]) * side + first[..., 1]
        window = torch.arange(self.cells)[:, None] * side + torch.arange(self.cells)
        view = torch.zeros(batch * side * side)
        view.index_add_(0, (corner[..., None, None] + window).flatten(), means.flatten())
        return (view + 0.5).to(torch.uint8).view(batch, 1, side, side)[..., :VIEW, :VIEW]


def write(folder: Path, stream: Stream, count: int) -> None:
    """Write the first canvases of a stream: canvases.zarr, an array (n, h, w), a chunk a canvas, and labels.csv."""
    import zarr

    folder.mkdir(parents=True, exist_ok=True)
    shape = (count, stream.side, stream.side)
    array = zarr.create_array(folder / "canvases.zarr", shape=shape, chunks=(1, *shape[1:]), dtype="uint8")
    source, rows = CanvasSource(stream, 1), []
    for number in range(count):
        (label,) = source.show(np.array([number]))
        array[number] = source.painted()[0, 0].numpy()
        rows.append((number, label))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("slide", "label"), *rows])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--digits", type=Path, required=True, help="folder with the idx files of MNIST")
    parser.add_argument("--part", choices=tuple(PARTS), default="train")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write(given.out, Stream(load_digits(given.digits, given.part), given.seed), given.count)


if __name__ == "__main__":
    main()
