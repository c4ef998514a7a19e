"""The levels of a pyramid, as pixels and as streams of encoded tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import imagecodecs
import numpy as np
from PIL import Image

from wsi_attention.slide.resample import Pixels

TILE = 256

Encoder = Callable[[Pixels], bytes]


@dataclass(frozen=True, eq=False)
class EncodedLevel:
    """A level as its JPEG tiles, row by row; the last tile of a row or column is filled up to TILE².

    Attributes:
        size: (w, h) in pixels.
        tiles: the encoded tiles; consumed once.
    """

    size: tuple[int, int]
    tiles: Iterable[bytes]


def pyramid(rgb: Pixels, factor: int, smallest: int = 512) -> list[Pixels]:
    """Return level 0 and area averages of it, each `factor` times coarser, down to `smallest` pixels or fewer.

    A level is floor(size / factor) pixels as scanners write it, so that odd sizes have downsamples such as 4.0003.
    """
    levels = [rgb]
    while max(levels[-1].shape[:2]) > smallest and min(levels[-1].shape[:2]) >= 2 * factor:
        levels.append(reduced(levels[-1], factor))
    return levels


def reduced(rgb: Pixels, factor: int) -> Pixels:
    """Return the area average over factor × factor pixels; rows and columns left over are dropped."""
    rows, cols = rgb.shape[0] // factor, rgb.shape[1] // factor
    small = np.empty((rows, cols, 3), np.uint8)
    band = max(1, (1 << 22) // (rgb.shape[1] * factor))
    for row in range(0, rows, band):
        part = rgb[row * factor : min(row + band, rows) * factor, : cols * factor]
        small[row : row + band] = np.asarray(Image.fromarray(np.ascontiguousarray(part)).reduce(factor))
    return small


def encoded(levels: list[Pixels], quality: int) -> list[EncodedLevel]:
    """Return the levels as JPEG tiles, encoded when they are asked for."""
    encode = jpeg_encoder(quality)
    return [EncodedLevel((level.shape[1], level.shape[0]), _tiles(level, encode)) for level in levels]


def jpeg_encoder(quality: int) -> Encoder:
    """Encode an RGB tile as a whole JPEG stream in YCbCr 4:2:0; tiles of one colour are encoded once."""
    plain: dict[bytes, bytes] = {}

    def encode(tile: Pixels) -> bytes:
        if not _even(tile):
            return _jpeg(tile, quality)
        key = tile[0, 0].tobytes()
        if key not in plain:
            plain[key] = _jpeg(tile, quality)
        return plain[key]

    return encode


def _even(tile: Pixels) -> bool:
    rows = tile.reshape(tile.shape[0], -1)
    return bool((tile[0] == tile[0, 0]).all() and (rows[::32] == rows[0]).all() and (rows == rows[0]).all())


def _jpeg(tile: Pixels, quality: int) -> bytes:
    stream = imagecodecs.jpeg_encode(tile, level=quality, colorspace="RGB", outcolorspace="YCBCR", subsampling="420")
    return bytes(stream)


def _tiles(level: Pixels, encode: Encoder) -> Iterator[bytes]:
    """Return the encoded tiles of a level, row by row; the last ones are filled up with their border pixels."""
    height, width = level.shape[:2]
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            tile = level[y : y + TILE, x : x + TILE]
            short = (TILE - tile.shape[0], TILE - tile.shape[1])
            if any(short):
                tile = np.pad(tile, ((0, short[0]), (0, short[1]), (0, 0)), mode="edge")
            yield encode(np.ascontiguousarray(tile))
