"""Gigapixel slides in seconds: a mosaic of painted squares that fit each other, encoded once and laid many times.

Only tiles on the border of the tissue and on the two coarsest levels are encoded one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mosaic_squares import KINDS, LESION_KINDS, SQUARE, lay_squares, paint_squares
from numpy.typing import NDArray
from PIL import Image

from wsi_attention.errors import InputError
from wsi_attention.once import once
from wsi_attention.slide.resample import Pixels
from wsi_attention.testing.slide_levels import TILE, EncodedLevel, Encoder, jpeg_encoder, reduced
from wsi_attention.testing.slide_plan import Blob, Map, tissue_outline
from wsi_attention.testing.slide_writers import TILED
from wsi_attention.testing.slides import SlideSpec, SlideTruth, format_of, polygon_area, replacing
from wsi_attention.testing.stain import Stain
from wsi_attention.testing.tissue_painter import FIELD, fibres

DOWNSAMPLES = (1, 4, 16, 64)
NESTS = 24
"""Lesions of a slide, at most."""
LESION_SHARE = 0.004
"""Share of the tissue that they take, at most."""
_RAGGED, _SHARP, _SURE = 0.07, 12.0, 0.35


@dataclass(frozen=True, eq=False)
class Mosaic:
    """The layout of a large slide and the squares it is made of.

    Attributes:
        extent: (w, h) of level 0.
        white: RGB of empty glass.
        outline: a value a tile, with a frame beyond the slide: positive inside the tissue.
        laid: (rows, cols) which square lies at each place; a place is SQUARE pixels wide.
        squares: by downsample, the RGB of every square.
        lesions: the nests, in slide pixels.
        ragged: periodic noise that frays the border of the tissue, by downsample.
    """

    extent: tuple[int, int]
    white: tuple[int, int, int]
    outline: Map
    laid: NDArray[np.int64]
    squares: dict[int, list[Pixels]]
    lesions: tuple[Blob, ...]
    ragged: dict[int, Map]

    @classmethod
    def planned(cls, extent: tuple[int, int], mpp: float, seed: int, coverage: float, nests: int) -> Mosaic:
        """Plan a slide with up to so many lesions, and paint its squares.

        Raises:
            InputError: lesions are wanted, but the tissue is too small to hold one.
        """
        rng = np.random.default_rng([seed, 17])
        stain = Stain.drawn(rng)
        shape = (-(-extent[1] // TILE), -(-extent[0] // TILE))
        outline = tissue_outline(rng, shape, coverage, (), float(TILE))
        area = float((outline > 0).sum()) * TILE**2
        squares, blobs = paint_squares(rng, mpp, stain)
        rows, cols = (-(-side * TILE // SQUARE) + 8 for side in shape)
        laid = lay_squares(rng, (rows, cols))
        most = max(1, int(LESION_SHARE * area / (np.pi * max(blob.radius for blob in blobs) ** 2)))
        lesions = _lay_lesions(rng, laid, outline, blobs, min(nests, most))
        frame = max(DOWNSAMPLES)
        bundles = fibres(mpp)[0][:FIELD, :FIELD]
        return cls(
            extent,
            stain.white,
            np.pad(outline, ((0, frame), (0, frame)), mode="edge"),
            laid,
            {d: [reduced(square, d) if d > 1 else square for square in squares] for d in DOWNSAMPLES},
            lesions,
            {d: _averaged(bundles, d) for d in DOWNSAMPLES},
        )

    @once
    def tissue_area(self) -> float:
        """Level-0 pixels, to the precision of a tile."""
        frame = max(DOWNSAMPLES)
        return float((self.outline[:-frame, :-frame] > 0).sum()) * TILE**2

    def size(self, downsample: int) -> tuple[int, int]:
        """(w, h) of a level."""
        return max(1, self.extent[0] // downsample), max(1, self.extent[1] // downsample)

    def tile(self, downsample: int, col: int, row: int) -> Pixels:
        """One tile of a level: squares side by side, cut at the border of the tissue."""
        box = (col * downsample, row * downsample, (col + 1) * downsample, (row + 1) * downsample)
        inside = np.asarray(self._outline_picture.resize((TILE, TILE), Image.Resampling.BILINEAR, box=box))
        ragged = _periodic(self.ragged[downsample], col * TILE, row * TILE)
        share = np.clip((inside + _RAGGED * ragged) * (255 * _SHARP) + 127.5, 0, 255).astype(np.uint8)
        ground = Image.fromarray(np.ascontiguousarray(self._ground(downsample, col, row)))
        glass = Image.new("RGB", (TILE, TILE), self.white)
        return np.asarray(Image.composite(ground, glass, Image.fromarray(share)))

    @once
    def _outline_picture(self) -> Image.Image:
        return Image.fromarray(self.outline)

    def _ground(self, downsample: int, col: int, row: int) -> Pixels:
        side = SQUARE // downsample
        if side >= TILE:
            square = self.square_at(downsample, col, row)
            x, y = col * TILE % side, row * TILE % side
            return self.squares[downsample][square][y : y + TILE, x : x + TILE]
        many = TILE // side
        rows = [
            np.hstack([self.squares[downsample][k] for k in line[col * many : (col + 1) * many]])
            for line in self._laid_wide[row * many : (row + 1) * many]
        ]
        return np.vstack(rows)

    def square_at(self, downsample: int, col: int, row: int) -> int:
        """Which square a tile of one of the two finest levels shows a part of."""
        side = SQUARE // downsample // TILE
        return int(self.laid[row // side, col // side])

    @once
    def _laid_wide(self) -> NDArray[np.int64]:
        return np.pad(self.laid, ((0, 8), (0, 8)), mode="wrap")

    def picture(self) -> Pixels:
        """The whole slide at the coarsest downsample."""
        downsample = max(DOWNSAMPLES)
        w, h = self.size(downsample)
        rows = [
            np.hstack([self.tile(downsample, col, row) for col in range(-(-w // TILE))]) for row in range(-(-h // TILE))
        ]
        return np.ascontiguousarray(np.vstack(rows)[:h, :w])


def _averaged(field: Map, downsample: int) -> Map:
    side = field.shape[0] // downsample
    return np.asarray(field.reshape(side, downsample, side, downsample).mean(axis=(1, 3)), np.float32)


def _periodic(field: Map, x: int, y: int) -> Map:
    """A tile's window of a periodic field."""
    side = field.shape[0]
    if side < TILE:
        return np.tile(field, (TILE // side, TILE // side))
    return field[y % side : y % side + TILE, x % side : x % side + TILE]


def _lay_lesions(
    rng: np.random.Generator, laid: NDArray[np.int64], outline: Map, blobs: list[Blob], nests: int
) -> tuple[Blob, ...]:
    """Place lesion squares at up to `nests` places in the tissue, around three centres; return where they lie."""
    many = SQUARE // TILE
    rows, cols = outline.shape[0] // many, outline.shape[1] // many
    deepest = outline[: rows * many, : cols * many].reshape(rows, many, cols, many).min(axis=(1, 3))
    places = np.argwhere(deepest > 0.5)
    if nests and not len(places):
        raise InputError(
            f"no room for a lesion: no {SQUARE}-pixel square lies inside the tissue; make the slide larger"
        )
    centres = places[rng.integers(0, len(places), 3)] if nests else places[:0]
    lesions = []
    for index in range(min(nests, len(places))):
        away = np.hypot(*(places - centres[index % 3]).T) + rng.uniform(0, 3, len(places))
        row, col = (int(value) for value in places[np.argmin(away)])
        places = np.delete(places, np.argmin(away), axis=0)
        kind = int(rng.integers(LESION_KINDS))
        laid[row, col] = len(KINDS) + kind
        blob = blobs[kind]
        lesions.append(Blob(col * SQUARE + blob.x, row * SQUARE + blob.y, blob.radius, blob.seed))
    return tuple(lesions)


def encoded(mosaic: Mosaic, quality: int) -> list[EncodedLevel]:
    """All levels as JPEG tiles, made when they are asked for."""
    encode = jpeg_encoder(quality)
    levels = [d for d in DOWNSAMPLES if d == 1 or min(mosaic.extent) >= 256 * d]
    return [EncodedLevel(mosaic.size(d), _tiles(mosaic, d, encode)) for d in levels]


def _tiles(mosaic: Mosaic, downsample: int, encode: Encoder) -> Iterator[bytes]:
    cols, rows = (-(-side // TILE) for side in mosaic.size(downsample))
    if SQUARE // downsample < TILE:
        for index in range(rows * cols):
            yield encode(mosaic.tile(downsample, index % cols, index // cols))
        return
    blank = encode(np.full((TILE, TILE, 3), mosaic.white, np.uint8))
    low, high = _range(mosaic.outline, downsample)
    parts = SQUARE // downsample // TILE
    done: dict[tuple[int, int, int], bytes] = {}
    for row in range(rows):
        for col in range(cols):
            key = (mosaic.square_at(downsample, col, row), row % parts, col % parts)
            if high[row][col] < -_SURE:
                yield blank
            elif low[row][col] <= _SURE:
                yield encode(mosaic.tile(downsample, col, row))
            else:
                if key not in done:
                    done[key] = encode(mosaic.tile(downsample, col, row))
                yield done[key]


def _range(outline: Map, downsample: int) -> tuple[list[list[float]], list[list[float]]]:
    """The smallest and the largest value that the outline takes within each tile, bilinear in between."""
    wide = np.pad(outline, 1, mode="edge")
    shifts = [wide[y : y + outline.shape[0], x : x + outline.shape[1]] for y in range(3) for x in range(3)]
    middle = shifts[4]
    edges = [(middle + shifts[k]) / 2 for k in (1, 3, 5, 7)]
    pairs = ((0, 1, 3), (2, 1, 5), (6, 3, 7), (8, 5, 7))
    corners = [(middle + shifts[a] + shifts[b] + shifts[c]) / 4 for a, b, c in pairs]
    values = np.stack([middle, *edges, *corners])
    rows, cols = (side // downsample for side in outline.shape)
    blocks = values[:, : rows * downsample, : cols * downsample].reshape(-1, rows, downsample, cols, downsample)
    return blocks.min(axis=(0, 2, 4)).tolist(), blocks.max(axis=(0, 2, 4)).tolist()


def write_large_slide(path: str | Path, spec: SlideSpec) -> SlideTruth:
    """Write a slide of any size in seconds, from a pool of encoded tiles and with less than 1 GB of memory.

    There are levels at downsample 1, 4, 16 and 64; lesions come in nests of 60-90 µm radius at random places. Pen,
    folds and slow changes of stain are left out.

    Raises:
        InputError: the suffix names no format that takes encoded tiles, or the spec places lesions itself.
    """
    path = Path(path)
    kind = format_of(path)
    if kind not in TILED or spec.lesions is not None:
        raise InputError(f"{path}: a large slide is one of {', '.join(TILED)}, its lesions at random")
    nests = NESTS if spec.label == "lesion" else 0
    mosaic = Mosaic.planned(spec.size, spec.mpp, spec.seed, spec.coverage, nests)
    with replacing(path) as part:
        TILED[kind](part, encoded(mosaic, spec.quality), spec.mpp, mosaic.picture())
    lesions = tuple(blob.polygon() for blob in mosaic.lesions)
    area = sum(polygon_area(polygon) for polygon in lesions)
    return SlideTruth(spec.label, spec.size, lesions, (), mosaic.tissue_area, area)
