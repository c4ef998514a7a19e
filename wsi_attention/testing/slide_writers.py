"""A painted slide as a file: Aperio SVS, generic pyramidal TIFF, OME-TIFF."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

TILE = 256

Level = NDArray[np.uint8]
Encoder = Callable[[Level], bytes]


def pyramid(rgb: Level, factor: int, smallest: int = 512) -> list[Level]:
    """Level 0 and area averages of it, each `factor` times coarser, until one is no larger than `smallest` pixels.

    A level is floor(size / factor) pixels as scanners write it, so that odd sizes give downsamples such as 4.0003.
    """
    levels = [rgb]
    while max(levels[-1].shape[:2]) > smallest and min(levels[-1].shape[:2]) >= 2 * factor:
        levels.append(reduced(levels[-1], factor))
    return levels


def reduced(rgb: Level, factor: int) -> Level:
    """The area average over factor × factor pixels; rows and columns left over are dropped."""
    rows, cols = rgb.shape[0] // factor, rgb.shape[1] // factor
    small = np.empty((rows, cols, 3), np.uint8)
    band = max(1, (1 << 22) // (rgb.shape[1] * factor))
    for row in range(0, rows, band):
        part = rgb[row * factor : min(row + band, rows) * factor, : cols * factor]
        small[row : row + band] = np.asarray(Image.fromarray(np.ascontiguousarray(part)).reduce(factor))
    return small


def jpeg_encoder(quality: int) -> Encoder:
    """Encodes an RGB tile as a whole JPEG stream in YCbCr 4:2:0; even tiles are encoded once."""
    plain: dict[bytes, bytes] = {}

    def encode(tile: Level) -> bytes:
        if _even(tile):
            key = tile[0, 0].tobytes()
            if key not in plain:
                plain[key] = _jpeg(tile, quality)
            return plain[key]
        return _jpeg(tile, quality)

    return encode


def _even(tile: Level) -> bool:
    rows = tile.reshape(tile.shape[0], -1)
    return bool((tile[0] == tile[0, 0]).all() and (rows[::32] == rows[0]).all() and (rows == rows[0]).all())


def _jpeg(tile: Level, quality: int) -> bytes:
    stream = imagecodecs.jpeg_encode(tile, level=quality, colorspace="RGB", outcolorspace="YCBCR", subsampling="420")
    return bytes(stream)


def tiles_of(level: Level, encode: Encoder) -> Iterator[bytes]:
    """The encoded tiles of a level, row by row; the last ones are filled up with their border pixels."""
    height, width = level.shape[:2]
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            tile = level[y : y + TILE, x : x + TILE]
            short = (TILE - tile.shape[0], TILE - tile.shape[1])
            if any(short):
                tile = np.pad(tile, ((0, short[0]), (0, short[1]), (0, 0)), mode="edge")
            yield encode(np.ascontiguousarray(tile))


def tile_options(mpp: float, downsample: float) -> dict[str, Any]:
    """tifffile's options for pre-encoded JPEG tiles of a level, with its resolution in pixels a cm."""
    pixels_a_cm = 1e4 / (mpp * downsample)
    return {
        "dtype": np.uint8,
        "tile": (TILE, TILE),
        "photometric": "ycbcr",
        "subsampling": (2, 2),
        "compression": "jpeg",
        "resolution": (pixels_a_cm, pixels_a_cm),
        "resolutionunit": "CENTIMETER",
        "metadata": None,
        "software": "wsi-attention",
    }


def write_svs(path: Path, levels: list[Level], mpp: float, encode: Encoder) -> None:
    """An Aperio-tagged TIFF: level 0, thumbnail, the other levels, label, macro."""
    height, width = levels[0].shape[:2]
    power = 10 / mpp
    head = f"Aperio Image Library v12.0.0\n{width}x{height} [0,0 {width}x{height}] (256x256) JPEG/RGB Q=80"
    told = f"|AppMag = {power:g}|MPP = {mpp:.4f}"
    thumbnail = np.asarray(
        Image.fromarray(levels[-1]).resize(
            (max(1, 512 * width // max(width, height)), max(1, 512 * height // max(width, height)))
        )
    )
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for index, level in enumerate(levels):
            size = f"{level.shape[1]}x{level.shape[0]}"
            text = head + told if index == 0 else f"{head} -> {size} JPEG/RGB Q=80{told}"
            options = tile_options(mpp, width / level.shape[1])
            file.write(tiles_of(level, encode), shape=level.shape, description=text, subfiletype=0, **options)
            if index == 0:
                _flat(file, thumbnail, f"{head} -> {thumbnail.shape[1]}x{thumbnail.shape[0]} - {told}", 0)
        _flat(file, _label_picture(path.name), "Aperio Image Library v12.0.0\nlabel 384x384", 1)
        _flat(file, _macro_picture(thumbnail), "Aperio Image Library v12.0.0\nmacro 1024x384", 9)


def _flat(file: tifffile.TiffWriter, picture: Level, text: str, subfiletype: int) -> None:
    file.write(
        picture,
        description=text,
        subfiletype=subfiletype,
        photometric="rgb",
        compression="zlib",
        rowsperstrip=64,
        metadata=None,
    )


def _label_picture(name: str) -> Level:
    from PIL import ImageDraw

    picture = Image.new("RGB", (384, 384), (250, 250, 246))
    draw = ImageDraw.Draw(picture)
    draw.text((24, 40), "SYNTHETIC", fill=(20, 20, 20), font_size=44)
    draw.text((24, 120), "wsi-attention", fill=(20, 20, 20), font_size=36)
    return np.asarray(picture)


def _macro_picture(thumbnail: Level) -> Level:
    picture = Image.new("RGB", (1024, 384), (236, 236, 236))
    picture.paste(Image.fromarray(_label_picture("")).resize((300, 384)), (0, 0))
    small = Image.fromarray(thumbnail)
    small.thumbnail((640, 360))
    picture.paste(small, (340, 12))
    return np.asarray(picture)


def write_tiff(path: Path, levels: list[Level], mpp: float, encode: Encoder) -> None:
    """A generic tiled pyramid: further levels flagged as reduced images, the resolution in pixels a cm."""
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for index, level in enumerate(levels):
            options = tile_options(mpp, levels[0].shape[1] / level.shape[1])
            file.write(tiles_of(level, encode), shape=level.shape, subfiletype=int(index > 0), **options)


def write_ome_tiff(path: Path, levels: list[Level], mpp: float, encode: Encoder) -> None:
    """An OME-TIFF whose coarser levels are SubIFDs of the first page."""
    pixel = {
        "axes": "YXS",
        "PhysicalSizeX": mpp,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": mpp,
        "PhysicalSizeYUnit": "µm",
    }
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as file:
        for index, level in enumerate(levels):
            options = tile_options(mpp, levels[0].shape[1] / level.shape[1])
            if index == 0:
                options |= {"metadata": pixel, "subifds": len(levels) - 1}
            file.write(tiles_of(level, encode), shape=level.shape, subfiletype=int(index > 0), **options)
