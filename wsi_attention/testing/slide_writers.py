"""Pyramids as files: Aperio SVS, generic TIFF and OME-TIFF from encoded tiles, OME-Zarr from pixels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

import numpy as np
import tifffile
from PIL import Image, ImageDraw

from wsi_attention.slide.resample import Pixels
from wsi_attention.testing.slide_levels import TILE, EncodedLevel

if TYPE_CHECKING:
    import zarr
    from zarr.core.common import JSON

TiledWriter = Callable[[Path, list[EncodedLevel], float, Pixels], None]
"""Takes the path, the levels from fine to coarse, µm per level-0 pixel, and a small picture of the whole slide."""


class TiffOptions(TypedDict, total=False):
    """Options of tifffile for one image."""

    dtype: type[np.uint8]
    tile: tuple[int, int]
    photometric: str
    subsampling: tuple[int, int]
    compression: str
    resolution: tuple[float, float]
    resolutionunit: str
    metadata: dict[str, object] | None
    software: str
    description: str
    subfiletype: int
    subifds: int


def _options(mpp: float, downsample: float) -> TiffOptions:
    """Return tifffile's options for a level of JPEG tiles, with its resolution in pixels a cm."""
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


def _write_level(
    file: tifffile.TiffWriter, level: EncodedLevel, mpp: float, downsample: float, **more: Unpack[TiffOptions]
) -> None:
    options: TiffOptions = {**_options(mpp, downsample), **more}
    file.write(iter(level.tiles), shape=(level.size[1], level.size[0], 3), **options)


def write_svs(path: Path, levels: list[EncodedLevel], mpp: float, small: Pixels) -> None:
    """Write an Aperio-tagged TIFF: level 0, thumbnail, the other levels, label, macro."""
    width, height = levels[0].size
    head = f"Aperio Image Library v12.0.0\n{width}x{height} [0,0 {width}x{height}] ({TILE}x{TILE})"
    told = f"|AppMag = {10 / mpp:g}|MPP = {mpp:.4f}"
    thumbnail = Image.fromarray(small)
    thumbnail.thumbnail((512, 512))
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for index, level in enumerate(levels):
            arrow = f" -> {level.size[0]}x{level.size[1]}" if index else ""
            text = f"{head}{arrow} JPEG/RGB{told}"
            _write_level(file, level, mpp, width / level.size[0], description=text, subfiletype=0)
            if index == 0:
                _picture(file, thumbnail, f"{head} -> {thumbnail.width}x{thumbnail.height} - {told}", 0)
        label = _label_picture()
        _picture(file, label, f"Aperio Image Library v12.0.0\nlabel {label.width}x{label.height}", 1)
        macro = _macro_picture(label, thumbnail)
        _picture(file, macro, f"Aperio Image Library v12.0.0\nmacro {macro.width}x{macro.height}", 9)


def _picture(file: tifffile.TiffWriter, picture: Image.Image, text: str, subfiletype: int) -> None:
    file.write(
        np.asarray(picture),
        description=text,
        subfiletype=subfiletype,
        photometric="rgb",
        compression="zlib",
        rowsperstrip=64,
        metadata=None,
    )


def _label_picture() -> Image.Image:
    picture = Image.new("RGB", (384, 384), (250, 250, 246))
    draw = ImageDraw.Draw(picture)
    draw.text((24, 40), "SYNTHETIC", fill=(20, 20, 20), font_size=44)
    draw.text((24, 120), "wsi-attention", fill=(20, 20, 20), font_size=36)
    return picture


def _macro_picture(label: Image.Image, thumbnail: Image.Image) -> Image.Image:
    picture = Image.new("RGB", (1024, 384), (236, 236, 236))
    picture.paste(label.resize((300, 384)), (0, 0))
    section = thumbnail.copy()
    section.thumbnail((640, 360))
    picture.paste(section, (340, 12))
    return picture


def write_tiff(path: Path, levels: list[EncodedLevel], mpp: float, small: Pixels) -> None:
    """Write a generic tiled pyramid: further levels flagged as reduced images, the resolution in pixels a cm."""
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for index, level in enumerate(levels):
            _write_level(file, level, mpp, levels[0].size[0] / level.size[0], subfiletype=int(index > 0))


def write_ome_tiff(path: Path, levels: list[EncodedLevel], mpp: float, small: Pixels) -> None:
    """Write an OME-TIFF whose coarser levels are SubIFDs of the first page."""
    size = {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp, "PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as file:
        first: TiffOptions = {"metadata": {"axes": "YXS", **size}, "subifds": len(levels) - 1}
        others: TiffOptions = {"subfiletype": 1}
        for index, level in enumerate(levels):
            more = others if index else first
            _write_level(file, level, mpp, levels[0].size[0] / level.size[0], **more)


TILED: dict[str, TiledWriter] = {"svs": write_svs, "tiff": write_tiff, "ome-tiff": write_ome_tiff}
"""The formats that take encoded tiles, so that a slide can be written without its pixels in memory."""


def write_ome_zarr(path: Path, levels: list[Pixels], mpp: float, version: Literal["0.4", "0.5"]) -> None:
    """Write an OME-Zarr image with axes c, y, x: 0.4 on zarr format 2, 0.5 on format 3; zipped if the path says so."""
    import zarr

    multiscale: dict[str, JSON] = {
        "name": path.name.split(".")[0],
        "axes": [
            {"name": "c", "type": "channel"},
            {"name": "y", "type": "space", "unit": "micrometer"},
            {"name": "x", "type": "space", "unit": "micrometer"},
        ],
        "datasets": [_dataset(index, level, levels[0], mpp) for index, level in enumerate(levels)],
    }
    if version == "0.4":
        attributes: dict[str, JSON] = {"multiscales": [{"version": "0.4", **multiscale}], "omero": _omero()}
    else:
        attributes = {"ome": {"version": "0.5", "multiscales": [multiscale], "omero": _omero()}}
    store = zarr.storage.ZipStore(path, mode="w") if path.suffix == ".zip" else zarr.storage.LocalStore(path)
    group = zarr.create_group(store, zarr_format=2 if version == "0.4" else 3, attributes=attributes)
    for index, level in enumerate(levels):
        _write_array(group, str(index), np.moveaxis(level, -1, 0))
    store.close()


def _dataset(index: int, level: Pixels, finest: Pixels, mpp: float) -> JSON:
    scale = [1.0, mpp * finest.shape[0] / level.shape[0], mpp * finest.shape[1] / level.shape[1]]
    return {"path": str(index), "coordinateTransformations": [{"type": "scale", "scale": scale}]}


def _omero() -> JSON:
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    colours = (("Red", "FF0000"), ("Green", "00FF00"), ("Blue", "0000FF"))
    return {"channels": [{"label": name, "color": code, "window": window, "active": True} for name, code in colours]}


def _write_array(group: zarr.Group, name: str, pixels: Pixels) -> None:
    """Write one level in chunks of a tile's size; on zarr format 3 up to 8 × 8 of them lie in one shard."""
    from numcodecs import Blosc
    from zarr.codecs import BloscCodec

    chunk = [min(TILE, length) for length in pixels.shape[1:]]
    create = partial(group.create_array, name, shape=pixels.shape, chunks=(3, *chunk), dtype="uint8", fill_value=255)
    if group.metadata.zarr_format == 2:
        packed = Blosc("zstd", 6, Blosc.NOSHUFFLE)
        array = create(chunk_key_encoding={"name": "v2", "separator": "/"}, compressors=packed)
    else:
        shard = [min(8, -(-length // side)) * side for length, side in zip(pixels.shape[1:], chunk, strict=True)]
        codec = BloscCodec(cname="zstd", clevel=6, shuffle="noshuffle")
        array = create(shards=(3, *shard), compressors=codec, dimension_names=("c", "y", "x"))
    array[:] = pixels
