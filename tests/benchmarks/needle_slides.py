"""The slides of the needle benchmark: real tiles on a grid in a random tissue shape, tumour in one cluster.

    python tests/benchmarks/needle_slides.py OUT --part train --count 400 --fraction 0.005 0.2 [--variant matched]

Every slide is a tiled JPEG pyramid of 5376² pixels at 0.97 µm/px, 56 × 56 cells of one tile each, about 1,900 of them
tissue. A tile is flipped and turned at random each time it is used. The cluster is 4-connected. Training and test
slides are made of different tiles.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tifffile
from needle_stain import load_matched
from needle_tiles import MPP, SIDE, Tiles, load
from numpy.typing import NDArray
from scipy import ndimage

sys.path.append(str(Path(__file__).resolve().parents[1] / "support"))

from slide_sets import write_labels

from wsi_attention.testing.slide_levels import jpeg_encoder, pyramid, reduced
from wsi_attention.testing.slides import SlideTruth, replacing, truth_name, write_truth

CELLS = 56
TISSUE = 0.62
"""Share of the cells that is tissue."""
CLASSES = ("normal", "tumour")
GLASS, QUALITY, SMALLEST = 244, 90, 256
"""Grey value, JPEG quality, and pixels a side below which there is no further level."""
encode = jpeg_encoder(QUALITY)
VARIANTS = ("stained", "matched")


@dataclass(frozen=True)
class NeedleSpec:
    """One slide.

    Attributes:
        part: whose tiles, "train" or "test".
        seed: of everything random in it.
        fraction: share of the tissue that is tumour; 0 for a negative.
        blend: pixels on each side of a border between tiles over which they fade into each other; 0 for none.
        variant: "stained", tiles as they are, or "matched", each brought to one stain (`needle_stain.py`).
    """

    part: str
    seed: int
    fraction: float
    blend: int = 0
    variant: str = "stained"


@dataclass(frozen=True, eq=False)
class Layout:
    """Which tile lies where.

    Attributes:
        tissue: (56, 56), cells with a tile.
        tumour: (56, 56), those of them with a tumour tile.
        index: (56, 56) into the part's tiles, -1 on glass.
        turn: (56, 56), which of its eight sides the tile shows (`turned`), -1 on glass.
    """

    tissue: NDArray[np.bool_]
    tumour: NDArray[np.bool_]
    index: NDArray[np.int64]
    turn: NDArray[np.int64]


def lay_out(spec: NeedleSpec, tiles: Tiles) -> Layout:
    """Where tissue and tumour lie, and which tile shows each cell."""
    rng = np.random.default_rng(spec.seed)
    tissue = _tissue(rng)
    tumour = _cluster(tissue, round(spec.fraction * int(tissue.sum())), rng)
    index = np.full(tissue.shape, -1)
    index[tissue] = rng.choice(tiles.of(0), int(tissue.sum()))
    index[tumour] = _different(tiles.of(1), int(tumour.sum()), rng)
    return Layout(tissue, tumour, index, _turns(spec, tissue))


def _turns(spec: NeedleSpec, tissue: NDArray[np.bool_]) -> NDArray[np.int64]:
    rng = np.random.default_rng([spec.seed, 1])
    turn = np.full(tissue.shape, -1)
    for row, col in np.argwhere(tissue):
        quarters, mirrored = rng.integers(4), rng.integers(2)
        turn[row, col] = 2 * quarters + mirrored
    return turn


def turned(tile: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """One of the eight sides of a tile (h, w, 3): turned by turn // 2 quarters, then mirrored if turn is odd."""
    quarter = np.rot90(tile, turn // 2)
    return quarter[:, ::-1] if turn % 2 else quarter


def _tissue(rng: np.random.Generator) -> NDArray[np.bool_]:
    """One connected blob: smooth noise, higher towards the middle, cut where its share is right."""
    noise = ndimage.gaussian_filter(rng.standard_normal((CELLS, CELLS)), 4)
    rows, cols = (np.mgrid[:CELLS, :CELLS] + 0.5) / CELLS - 0.5
    height = noise / noise.std() - 9 * np.maximum(abs(rows), abs(cols)) ** 2
    mask = height > np.quantile(height, 1 - TISSUE)
    mask[[0, -1]] = mask[:, [0, -1]] = False
    labelled, _ = ndimage.label(mask)
    return np.asarray(labelled == np.bincount(labelled[mask]).argmax())


def _cluster(tissue: NDArray[np.bool_], size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A connected set of tissue cells that grows from one cell, at random, round rather than long."""
    chosen = np.zeros_like(tissue)
    if not size:
        return chosen
    start = rng.choice(np.argwhere(tissue))
    priority = np.hypot(*(np.mgrid[:CELLS, :CELLS] - start[:, None, None])) + 1.5 * rng.random(tissue.shape)
    chosen[tuple(start)] = True
    while chosen.sum() < size:
        edge = ndimage.binary_dilation(chosen) & tissue & ~chosen
        chosen[np.unravel_index(np.where(edge, priority, np.inf).argmin(), tissue.shape)] = True
    return chosen


def _different(pool: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Tiles of the pool, each at most once more often than any other."""
    rounds = [rng.permutation(pool) for _ in range(math.ceil(count / len(pool)))]
    return np.concatenate([*rounds, pool[:0]])[:count]


def paint(layout: Layout, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The slide's pixels, (56 s, 56 s, 3), from tiles (n, s, s, 3)."""
    side = pixels.shape[1]
    canvas = np.full((CELLS, side, CELLS, side, 3), GLASS, np.uint8)
    for row, col in np.argwhere(layout.tissue):
        canvas[row, :, col] = turned(pixels[layout.index[row, col]], int(layout.turn[row, col]))
    return canvas.reshape(CELLS * side, CELLS * side, 3)


def blended(pixels: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Tiles that fade into each other over so many pixels on each side of a border."""
    return _blended(_blended(pixels, width).swapaxes(0, 1), width).swapaxes(0, 1)


def _blended(pixels: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Fades each border between rows of tiles: a pixel d from it takes up to half of its mirror image beyond it."""
    out = pixels.astype(np.float32)
    borders = np.arange(SIDE, len(pixels), SIDE)
    for d in range(width):
        share = 0.5 * (1 - (d + 0.5) / width)
        above, below = pixels[borders - 1 - d].astype(np.float32), pixels[borders + d].astype(np.float32)
        out[borders - 1 - d] = (1 - share) * above + share * below
        out[borders + d] = (1 - share) * below + share * above
    return np.asarray(out.round(), np.uint8)


def levels(spec: NeedleSpec, tiles: Tiles, layout: Layout) -> Iterator[tuple[tuple[int, ...], Iterator[bytes]]]:
    """Shape and encoded tiles of every level, each half as fine as the one before.

    Without blending, level 0 consists of tiles that were encoded before, and level 1 of tiles made half as large.
    """
    if spec.blend:
        finest = blended(paint(layout, tiles.pixels), spec.blend)
        smaller = pyramid(finest, 2, SMALLEST)[1:]
        yield finest.shape, _tiles(finest)
    else:
        smaller = pyramid(paint(layout, _halved(spec.part, spec.variant)), 2, SMALLEST)
        yield (CELLS * SIDE, CELLS * SIDE, 3), _stored_tiles(spec, layout)
    for level in smaller:
        yield level.shape, _tiles(level)


@cache
def _halved(part: str, variant: str) -> NDArray[np.uint8]:
    return np.stack([reduced(tile, 2) for tile in tiles_of(NeedleSpec(part, 0, 0.0, variant=variant)).pixels])


def _stored_tiles(spec: NeedleSpec, layout: Layout) -> Iterator[bytes]:
    for index, turn in zip(layout.index.ravel().tolist(), layout.turn.ravel().tolist(), strict=True):
        yield _stored(spec.part, spec.variant, index, turn)


@cache
def _stored(part: str, variant: str, index: int, turn: int) -> bytes:
    tiles = tiles_of(NeedleSpec(part, 0, 0.0, variant=variant))
    glass = np.full((SIDE, SIDE, 3), GLASS, np.uint8)
    return encode(glass if index < 0 else np.ascontiguousarray(turned(tiles.pixels[index], turn)))


def write_pyramid(path: Path, content: Iterable[tuple[tuple[int, ...], Iterator[bytes]]]) -> None:
    """A generic pyramid of JPEG tiles as large as a cell."""
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for i, (shape, encoded) in enumerate(content):
            pixels_a_cm = 1e4 / (MPP * 2**i)
            file.write(
                encoded,
                shape=shape,
                dtype=np.uint8,
                tile=(SIDE, SIDE),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                resolution=(pixels_a_cm, pixels_a_cm),
                resolutionunit="CENTIMETER",
                subfiletype=int(i > 0),
                metadata=None,
            )


def _tiles(level: NDArray[np.uint8]) -> Iterator[bytes]:
    """Encoded tiles row by row, those at the border filled up with glass."""
    for y in range(0, level.shape[0], SIDE):
        for x in range(0, level.shape[1], SIDE):
            tile = np.full((SIDE, SIDE, 3), GLASS, np.uint8)
            part = level[y : y + SIDE, x : x + SIDE]
            tile[: part.shape[0], : part.shape[1]] = part
            yield encode(tile)


def tiles_of(spec: NeedleSpec) -> Tiles:
    """The tiles that a slide is made of."""
    return load_matched(spec.part) if spec.variant == "matched" else load(spec.part)


def write(folder: Path, spec: NeedleSpec) -> tuple[str, SlideTruth]:
    """Write layout, ground truth and slide, the slide last and unless it is there."""
    tiles = tiles_of(spec)
    layout, name = lay_out(spec, tiles), f"needle_{spec.seed:06d}.tiff"
    truth = _truth(spec, layout)
    if not (folder / name).is_file():
        write_truth(folder / "groundtruth" / truth_name(name), truth)
        _write_layout(folder / "layout" / f"needle_{spec.seed:06d}.json", spec, layout)
        with replacing(folder / name) as made:
            write_pyramid(made, levels(spec, tiles, layout))
    return name, truth


def _truth(spec: NeedleSpec, layout: Layout) -> SlideTruth:
    boxes = [np.array([[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]]) for y, x in np.argwhere(layout.tumour)]
    area = float(layout.tissue.sum()) * SIDE**2, float(layout.tumour.sum()) * SIDE**2
    lesions = tuple(SIDE * box.astype(np.float64) for box in boxes)
    return SlideTruth(CLASSES[int(spec.fraction > 0)], (CELLS * SIDE, CELLS * SIDE), lesions, (), *area)


def _write_layout(path: Path, spec: NeedleSpec, layout: Layout) -> None:
    about = {
        **asdict(spec),
        "tissue": np.argwhere(layout.tissue).tolist(),
        "tumour": np.argwhere(layout.tumour).tolist(),
        "index": layout.index.tolist(),
        "turn": layout.turn.tolist(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about), encoding="utf-8")


def specs(
    part: str, count: int, seed: int, fraction: Sequence[float], blend: int = 0, variant: str = "stained"
) -> list[NeedleSpec]:
    """Every second slide is positive, its fraction drawn log-uniformly between the lowest and the highest given."""
    rng = np.random.default_rng(seed)
    shares = np.exp(rng.uniform(np.log(min(fraction)), np.log(max(fraction)), count))
    return [NeedleSpec(part, seed + i, float(shares[i]) if i % 2 else 0.0, blend, variant) for i in range(count)]


def write_set(folder: Path, slides: Sequence[NeedleSpec], workers: int = 2) -> None:
    """Write those slides that are not there yet, and labels.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    if workers == 1:
        done = [write(folder, spec) for spec in slides]
    else:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            done = list(pool.map(write, [folder] * len(slides), slides, chunksize=4))
    write_labels(folder, done)


def share_negatives(folder: Path, source: Path, slides: Sequence[NeedleSpec]) -> None:
    """Link the negatives of another set that has the same seeds: they do not differ."""
    for spec in slides:
        name = f"needle_{spec.seed:06d}"
        for part in (f"groundtruth/{name}.geojson", f"layout/{name}.json", f"{name}.tiff"):
            if not spec.fraction and (source / part).is_file() and not (folder / part).exists():
                (folder / part).parent.mkdir(parents=True, exist_ok=True)
                os.link(source / part, folder / part)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--part", choices=("train", "test"), default="train")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fraction", type=float, nargs="+", default=[0.005, 0.2])
    parser.add_argument("--blend", type=int, default=0)
    parser.add_argument("--variant", choices=VARIANTS, default=VARIANTS[0])
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    wanted = specs(given.part, given.count, given.seed, given.fraction, given.blend, given.variant)
    write_set(given.out, wanted, given.workers)


if __name__ == "__main__":
    main()
