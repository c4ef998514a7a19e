"""Every tile's feature and every slide's overview, remembered: heads and designs are tried on them in seconds.

    python tests/benchmarks/needle_remembered.py --work needle-work [--variant matched] [--encoder lite0] [--check 3]

A cell of a slide is one stored tile, so that its pixels, JPEG included, depend on nothing but the tile and its turn.
Each tile is encoded once for each of its eight turns, and a slide's features are looked up by its layout. `--check`
reads that many slides of each set as the product does and compares.

Files, beside `slides/` in WORK/VARIANT:
    features/tiles-PART-ENCODER.safetensors    features (tiles, 8, d) float16, rows of length 1
    features/SET.safetensors                   for each slide: label (n,), fraction (n,), tissue, tumour, found
                                               (n, 56, 56), index, turn (n, 56, 56), overview (n, 448, 448, 3) uint8
`found` is where the product finds tissue: the cells that a reader of all tiles reads. `names` are in the metadata.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import torch
from needle_slides import CELLS, turned
from needle_slides import encode as encode_jpeg
from needle_tiles import MPP, SIDE, Tiles
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn

from wsi_attention.geometry import Grid
from wsi_attention.slide.slide import open_slide
from wsi_attention.structures import TileSet
from wsi_attention.tiles.source import SlideSource

TURNS = 8
ON_TISSUE = 0.95
"""Share of the cells in which tissue is found that show a tile, at least; it spreads to few beside them."""
OVERVIEW_MPP = 11.64
ARRAYS = ("label", "fraction", "tissue", "tumour", "found", "index", "turn", "overview")
GRID = Grid.covering((CELLS * SIDE, CELLS * SIDE), (SIDE, SIDE))

Encode = Callable[[Tensor], Tensor]
"""(n, 3, 96, 96) uint8 -> (n, d)."""


@dataclass(frozen=True, eq=False)
class Slides:
    """A set of slides as arrays, see the top of this file.

    Attributes:
        names: of the files, without suffix.
        label: (n,), 1 with tumour.
        fraction: (n,), wanted share of the tissue that is tumour.
        tissue, tumour, found: (n, 56, 56) bool.
        index, turn: (n, 56, 56), -1 on glass.
        overview: (n, 448, 448, 3) uint8.
        features: (tiles, 8, d) float16, of the part that they are made of.
    """

    names: tuple[str, ...]
    label: NDArray[np.int64]
    fraction: NDArray[np.float64]
    tissue: NDArray[np.bool_]
    tumour: NDArray[np.bool_]
    found: NDArray[np.bool_]
    index: NDArray[np.int16]
    turn: NDArray[np.int8]
    overview: NDArray[np.uint8]
    features: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.names)

    def cells(self, slide: int) -> NDArray[np.int64]:
        """Flat indices (m,) of the cells in which the product finds tissue."""
        return np.flatnonzero(self.found[slide] & (self.index[slide] >= 0))

    def bag(self, slide: int) -> Tensor:
        """Features (m, d) float32 of those cells' tiles."""
        cells = self.cells(slide)
        at = self.index[slide].ravel()[cells], self.turn[slide].ravel()[cells]
        return torch.from_numpy(self.features[at].astype(np.float32))


def recall(folder: Path, name: str, encoder: str = "small") -> Slides:
    """A remembered set by its name, such as "train" or "test-0.01".

    Args:
        folder: WORK/VARIANT/features.
        name: of the set.
        encoder: whose features; none where empty.
    """
    with safe_open(folder / f"{name}.safetensors", framework="np") as file:
        about = file.metadata()
        arrays = {key: file.get_tensor(key) for key in ARRAYS}
    features = np.zeros((0, TURNS, 0), np.float16)
    if encoder:
        with safe_open(folder / f"tiles-{about['part']}-{encoder}.safetensors", framework="np") as file:
            features = file.get_tensor("features")
    for key in ("tissue", "tumour", "found"):
        arrays[key] = arrays[key].astype(np.bool_)
    return Slides(tuple(json.loads(about["names"])), **arrays, features=features)


def in_turns(features: NDArray[np.float16], turns: int) -> NDArray[np.float16]:
    """Features (tiles, 8, d) of each turn of a tile as an encoder that sees 1, 4 or 8 turns of it has them.

    Every second of the eight turns is mirrored, so that 4 are those that are mirrored as the turn itself is.
    """
    if turns == 1:
        return features
    apart = TURNS // turns
    whole = np.stack([features[:, first::apart].astype(np.float32).mean(axis=1) for first in range(apart)], axis=1)
    whole /= np.linalg.norm(whole, axis=-1, keepdims=True)
    return np.tile(whole, (1, turns, 1)).astype(np.float16)


def remember_tiles(path: Path, tiles: Tiles, encode: Encode) -> None:
    """Encode every turn of every tile as it comes out of a slide, and write the features."""
    found = np.stack([_encoded(tiles, turn, encode) for turn in range(TURNS)], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"features": np.ascontiguousarray(found), "labels": tiles.labels}, path)


@torch.inference_mode()
def _encoded(tiles: Tiles, turn: int, encode: Encode) -> NDArray[np.float16]:
    parts = []
    for start in range(0, len(tiles.labels), 256):
        seen = np.stack([stored(turned(tile, turn)) for tile in tiles.pixels[start : start + 256]])
        parts.append(encode(torch.from_numpy(seen).permute(0, 3, 1, 2)).numpy().astype(np.float16))
    return np.concatenate(parts)


def stored(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A tile after the slide's JPEG."""
    return np.asarray(imagecodecs.jpeg_decode(encode_jpeg(np.ascontiguousarray(tile))))


def remember_slides(path: Path, folder: Path) -> None:
    """Read overview and tissue of every slide of a set, and write them with the layouts."""
    files = sorted(folder.glob("needle_*.tiff"))
    said = [json.loads((folder / "layout" / f"{file.stem}.json").read_text(encoding="utf-8")) for file in files]
    views = [_overview(file) for file in files]
    arrays = {
        "label": np.array([int(one["fraction"] > 0) for one in said]),
        "fraction": np.array([one["fraction"] for one in said]),
        "tissue": np.stack([_mask(one["tissue"]) for one in said]).astype(np.uint8),
        "tumour": np.stack([_mask(one["tumour"]) for one in said]).astype(np.uint8),
        "found": np.stack([found for _, found in views]).astype(np.uint8),
        "index": np.array([one["index"] for one in said], np.int16),
        "turn": np.array([one["turn"] for one in said], np.int8),
        "overview": np.stack([pixels for pixels, _ in views]),
    }
    on_tissue = arrays["tissue"][arrays["found"] > 0].mean()
    if on_tissue < ON_TISSUE:
        raise ValueError(f"{folder}: {on_tissue:.0%} of the cells with tissue show a tile, so that cells are mixed up")
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"names": json.dumps([file.stem for file in files]), "part": said[0]["part"]}
    save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, path, metadata=about)


def _overview(file: Path) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    with open_slide(str(file)) as slide:
        source = SlideSource(slide)
        pixels = source.overview_rgb(source.overview_downsample(OVERVIEW_MPP))
        return np.array(pixels), source.tissue(GRID)[0].numpy()


def _mask(cells: Sequence[Sequence[int]]) -> NDArray[np.bool_]:
    mask = np.zeros((CELLS, CELLS), np.bool_)
    mask[tuple(np.array(cells, np.int64).reshape(-1, 2).T)] = True
    return mask


def worst(slides: Slides, folder: Path, encode: Encode, count: int) -> float:
    """The largest difference between a remembered feature and that of the tile read from the slide."""
    worst = 0.0
    for i in range(count):
        with open_slide(str(folder / f"{slides.names[i]}.tiff")) as slide:
            source, cells = SlideSource(slide), slides.cells(i)
            tiles = TileSet(GRID.locations(cells[None], (SIDE, SIDE), source.downsample(MPP)), (SIDE, SIDE), 1.0)
            with torch.inference_mode():
                read = encode(source.read(tiles).pixels[0])
        worst = max(worst, float((read - slides.bag(i)).abs().max()))
    return worst


def encode_with(encoder: nn.Module, preprocess: nn.Module) -> Encode:
    """What turns pixels into features."""
    return lambda pixels: torch.cat([encoder(preprocess(part)) for part in pixels.split(256)])


def main() -> None:
    """The command line."""
    import needle

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("needle-work"))
    parser.add_argument("--variant", choices=needle.VARIANTS, default=needle.VARIANTS[0])
    parser.add_argument("--encoder", choices=needle.ENCODERS, default=needle.ENCODERS[0])
    parser.add_argument("--sets", nargs="+", default=list(needle.SETS), choices=list(needle.SETS))
    parser.add_argument("--check", type=int, default=0, help="slides of each set to read and compare")
    given = parser.parse_args()
    place = needle.Place(given.work, given.variant, given.encoder)
    needle.remember(place, given.sets)
    for name in given.sets if given.check else ():
        slides = recall(place.features, name, given.encoder)
        off = worst(slides, place.slides(name), needle.encode_of(place), given.check)
        print(f"{name}: remembered features differ by {off:.1e} at most")
        if off > 1e-3:
            raise SystemExit("remembered features are not those of the slides")


if __name__ == "__main__":
    main()
