"""Small pyramids in every way that tiled TIFFs store their pixels, for tests and benchmarks of readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Encoder = Callable[[Pixels], bytes]

APERIO = "Aperio Image Library v12.0.0\n{0}x{1} [0,0 {0}x{1}] ({2}x{2}) {3}|AppMag = 20|MPP = 0.4990"
ADOBE, TABLES = (0xEE,), (0xDB, 0xC4)
"""JPEG's markers: APP14, which names the colours; quantisation and Huffman tables."""


@dataclass(frozen=True)
class TiffKind:
    """One way to store tiles.

    Attributes:
        options: tifffile's, for every level.
        encode: makes a tile; None where tifffile does.
        tables: whether the JPEG tables are taken out of the tiles.
        aperio: whether the file is Aperio's.
        tile: side of a tile.
        bigtiff: whether offsets have 64 bits.
    """

    options: dict[str, Any]
    encode: Encoder | None = None
    tables: bool = False
    aperio: bool = False
    tile: int = 64
    bigtiff: bool = False


def jpeg_encoder(colours: str, subsampling: str, quality: int = 85) -> Encoder:
    """Encode an RGB tile as a JPEG stream in the given colours, "RGB" or "YCBCR"."""
    return lambda tile: bytes(
        imagecodecs.jpeg_encode(tile, level=quality, colorspace="RGB", outcolorspace=colours, subsampling=subsampling)
    )


def _jpeg2000(tile: Pixels) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(tile, level=35, codecformat="J2K", mct=True))


def _jpeg2000_ycbcr(tile: Pixels) -> bytes:
    """The channels are Y, Cb and Cr, and nothing in the stream says so."""
    weights = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    ycbcr = tile @ weights.T + np.array([0, 128, 128])
    stored = np.ascontiguousarray(np.clip(np.round(ycbcr), 0, 255).astype(np.uint8))
    return bytes(imagecodecs.jpeg2k_encode(stored, level=35, codecformat="J2K", mct=False))


_SUBSAMPLED = {"photometric": "ycbcr", "compression": "jpeg"}
_RGB = {"photometric": "rgb"}

KINDS: dict[str, TiffKind] = {
    "jpeg-420": TiffKind(_SUBSAMPLED | {"subsampling": (2, 2)}, jpeg_encoder("YCBCR", "420")),
    "jpeg-422": TiffKind(_SUBSAMPLED | {"subsampling": (2, 1)}, jpeg_encoder("YCBCR", "422")),
    "jpeg-444": TiffKind(_SUBSAMPLED | {"subsampling": (1, 1)}, jpeg_encoder("YCBCR", "444")),
    "jpeg-420-tables": TiffKind(_SUBSAMPLED | {"subsampling": (2, 2)}, jpeg_encoder("YCBCR", "420"), tables=True),
    "jpeg-bigtiff": TiffKind(_SUBSAMPLED | {"subsampling": (2, 2)}, jpeg_encoder("YCBCR", "420"), bigtiff=True),
    "jpeg-240": TiffKind(_SUBSAMPLED | {"subsampling": (2, 2)}, jpeg_encoder("YCBCR", "420"), aperio=True, tile=240),
    "aperio-rgb": TiffKind(_RGB | {"compression": "jpeg"}, jpeg_encoder("RGB", "444"), tables=True, aperio=True),
    "aperio-33003": TiffKind(_RGB | {"compression": 33003}, _jpeg2000_ycbcr, aperio=True),
    "aperio-33005": TiffKind(_RGB | {"compression": 33005}, _jpeg2000, aperio=True),
    "lzw": TiffKind(_RGB | {"compression": "lzw"}),
    "lzw-predictor": TiffKind(_RGB | {"compression": "lzw", "predictor": True}),
    "deflate": TiffKind(_RGB | {"compression": "zlib"}),
    "deflate-predictor": TiffKind(_RGB | {"compression": "zlib", "predictor": True}),
    "zstd": TiffKind(_RGB | {"compression": "zstd"}),
    "uncompressed": TiffKind(_RGB | {"compression": None}),
}


def write_kind(path: Path, levels: Sequence[Pixels], kind: str, mpp: float = 0.5) -> Path:
    """Write levels, finest first, (h, w, 3) uint8, as one of `KINDS`."""
    how = KINDS[kind]
    with tifffile.TiffWriter(path, bigtiff=how.bigtiff) as file:
        for index, level in enumerate(levels):
            _write_level(file, level, how, index, 1e4 / mpp * level.shape[1] / levels[0].shape[1])
    return path


def _write_level(file: tifffile.TiffWriter, level: Pixels, how: TiffKind, index: int, pixels_a_cm: float) -> None:
    height, width = level.shape[:2]
    options = how.options | {
        "tile": (how.tile, how.tile),
        "subfiletype": int(index > 0 and not how.aperio),
        "resolution": (pixels_a_cm, pixels_a_cm),
        "resolutionunit": "CENTIMETER",
        "metadata": None,
        "software": False,
    }
    if how.aperio:
        options["description"] = APERIO.format(width, height, how.tile, "JPEG/RGB Q=85")
    if how.encode is None:
        file.write(level, **options)
        return
    tiles = [how.encode(tile) for tile in tiles_of(level, how.tile)]
    if how.tables:
        options["jpegtables"] = b"\xff\xd8" + _segments(tiles[0], TABLES) + b"\xff\xd9"
        tiles = [_without(tile, TABLES + ADOBE) for tile in tiles]
    file.write(iter(tiles), shape=level.shape, dtype=np.uint8, **options)


def tiles_of(level: Pixels, side: int) -> Iterator[Pixels]:
    """The tiles of a level row by row; those at the borders are filled up with their last pixels."""
    short = (-level.shape[0] % side, -level.shape[1] % side)
    full = np.pad(level, ((0, short[0]), (0, short[1]), (0, 0)), mode="edge")
    for top in range(0, full.shape[0], side):
        for left in range(0, full.shape[1], side):
            yield np.ascontiguousarray(full[top : top + side, left : left + side])


def _segments(stream: bytes, markers: tuple[int, ...]) -> bytes:
    """The segments of a JPEG stream with the given markers."""
    return b"".join(stream[start:end] for marker, start, end in _marked(stream) if marker in markers)


def _without(stream: bytes, markers: tuple[int, ...]) -> bytes:
    found = list(_marked(stream))
    kept = b"".join(stream[start:end] for marker, start, end in found if marker not in markers)
    return b"\xff\xd8" + kept + stream[found[-1][2] :]


def _marked(stream: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment before the first scan."""
    at = 2
    while stream[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        yield stream[at + 1], at, end
        at = end
