"""Files that hold several images, in every order, all written by the tests themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Named = tuple[str, Sequence[Pixels]]
"""What an image is called, and its levels."""


def picture(width: int, height: int, shade: int) -> Pixels:
    """An image that is told from others by its red."""
    rng = np.random.default_rng(shade)
    pixels = rng.integers(60, 220, (height, width, 3))
    pixels[..., 0] = shade
    return pixels.astype(np.uint8)


def pyramid(width: int, height: int, shade: int, levels: int = 3) -> list[Pixels]:
    """Levels of the same red, each half the one before."""
    return [picture(width >> level, height >> level, shade) for level in range(levels)]


def write_plain(path: Path, pages: Sequence[tuple[Pixels, dict[str, Any]]], mpp: float = 0.5, width: int = 512) -> Path:
    """A TIFF with one directory a page, each with options of its own; the scale is right for `width` pixels."""
    with tifffile.TiffWriter(path) as tif:
        for pixels, options in pages:
            a_cm = 1e4 / mpp * pixels.shape[1] / width
            told = {"photometric": "rgb", "metadata": None, "resolution": (a_cm, a_cm), "resolutionunit": "CENTIMETER"}
            tif.write(pixels, **{**told, "compression": "deflate", **options})
    return path


TILED: dict[str, Any] = {"tile": (64, 64)}
REDUCED: dict[str, Any] = {"tile": (64, 64), "subfiletype": 1}
STRIPS: dict[str, Any] = {"rowsperstrip": 16}


def pages_of(levels: Sequence[Pixels]) -> list[tuple[Pixels, dict[str, Any]]]:
    """A pyramid, its smaller levels marked."""
    return [(level, REDUCED if index else TILED) for index, level in enumerate(levels)]


def write_ome(path: Path, images: Sequence[Named], mpp: float = 0.5, **options: Any) -> Path:
    """An OME-TIFF with an Image for each; smaller levels in SubIFDs; only the one called 20x has a scale of its own."""
    with tifffile.TiffWriter(path, ome=True) as tif:
        for name, levels in images:
            size = mpp * 512 / levels[0].shape[1]
            scale = {f"PhysicalSize{axis}": size for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
            told = {"photometric": "rgb", "compression": "deflate", **TILED, **options}
            tif.write(levels[0], subifds=len(levels) - 1, metadata={"axes": "YXS", "Name": name, **scale}, **told)
            for level in levels[1:]:
                tif.write(level, subfiletype=1, **told)
    return path


def write_planes(path: Path, levels: Sequence[Pixels], names: Sequence[str], order: Sequence[int] = (0, 1, 2)) -> Path:
    """An OME-TIFF whose channels are greyscale images of their own, called `names`."""
    scale = {f"PhysicalSize{axis}": 0.5 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    told: dict[str, Any] = {"photometric": "minisblack", "compression": "deflate", **TILED}
    with tifffile.TiffWriter(path, ome=True) as tif:
        for index, level in enumerate(levels):
            planes = np.moveaxis(level, -1, 0)[list(order)]
            metadata = {"axes": "CYX", "Channel": {"Name": list(names)}, **scale}
            more: dict[str, Any] = {"subfiletype": 1} if index else {"subifds": len(levels) - 1, "metadata": metadata}
            tif.write(planes, **told, **more)
    return path


def write_group(
    group: zarr.Group, levels: Sequence[Pixels], name: str = "", backwards: bool = False, **more: Any
) -> None:
    """An OME-Zarr 0.4 image with axes c, y, x in a group; its levels listed from small to large where that is asked."""
    axes = [{"name": "c", "type": "channel"}] + [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    datasets = []
    for index, level in enumerate(levels):
        step = 0.5 * levels[0].shape[1] / level.shape[1]
        scale = [{"type": "scale", "scale": [1.0, step, step]}]
        datasets.append({"path": str(index), "coordinateTransformations": scale})
        data = np.ascontiguousarray(np.moveaxis(level, -1, 0))
        array = group.create_array(str(index), shape=data.shape, dtype="uint8", chunks=(3, 64, 64))
        array[...] = data
    datasets = datasets[::-1] if backwards else datasets
    entry = {"version": "0.4", "name": name, "axes": axes, "datasets": datasets}
    group.attrs.update({"multiscales": [entry], **more})


def write_store(path: Path, images: Sequence[Named], series: bool = True, xml: str = "") -> Path:
    """A store as bioformats2raw lays it out: a numbered group an image, and the group OME that lists them."""
    root = zarr.create_group(path, zarr_format=2, attributes={"bioformats2raw.layout": 3})
    for number, (name, levels) in enumerate(images):
        write_group(root.create_group(str(number)), levels, name)
    if series:
        root.create_group("OME", attributes={"series": [str(number) for number in range(len(images))]})
    if xml:
        (path / "OME").mkdir(exist_ok=True)
        (path / "OME" / "METADATA.ome.xml").write_text(xml, encoding="utf-8")
    return path
