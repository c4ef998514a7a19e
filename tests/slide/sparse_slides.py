"""Slides with tiles that are not in the file, written by the tests: an island of tissue on even glass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tifffile
import zarr

Pixels = np.ndarray
GLASS = (244, 243, 242)
TILE = 64
MPP = 0.5
Chosen = Callable[[int, int, int], bool]
"""Whether a tile (level, column, row) is left out."""


def island(width: int = 1024, height: int = 768) -> Pixels:
    """Stained tissue within an ellipse; the glass around it has one colour, so that its tiles are all equal."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width]
    inside = ((x - width * 0.45) / (width * 0.33)) ** 2 + ((y - height * 0.5) / (height * 0.36)) ** 2 < 1
    waves = 30 * np.sin(x / 11) + 30 * np.cos(y / 17) + 15 * np.sin((x + y) / 41)
    colour = np.array([175, 105, 165]) + waves[..., None] * np.array([0.8, 1.0, 0.7])
    colour = np.clip(colour + rng.normal(0, 9, (height, width, 1)), 20, 235)
    return np.where(inside[..., None], colour, GLASS).astype(np.uint8)


def pyramid(count: int = 3) -> list[Pixels]:
    """`count` levels, each half as large as the one before."""
    levels = [island()]
    for _ in range(count - 1):
        h, w = levels[-1].shape[:2]
        levels.append(levels[-1].reshape(h // 2, 2, w // 2, 2, 3).mean((1, 3)).round().astype(np.uint8))
    return levels


def empty_glass(levels: Sequence[Pixels]) -> Chosen:
    """Leave out the tiles that show nothing, as writers of sparse files do."""

    def chosen(level: int, col: int, row: int) -> bool:
        part = levels[level][row * TILE : (row + 1) * TILE, col * TILE : (col + 1) * TILE]
        return bool((part == GLASS).all())

    return chosen


def some(share: float, levels: Sequence[int] = (0,), seed: int = 0) -> Chosen:
    """Leave out tiles of some levels at random, as an interrupted copy does."""
    draw = np.random.default_rng(seed).random((8, 64, 64))
    return lambda level, col, row: level in levels and bool(draw[level, col, row] < share)


def rectangle(left: int, top: int, right: int, bottom: int, levels: Sequence[int] = (0,)) -> Chosen:
    """Leave out the tiles of some levels that lie within level-0 pixels."""

    def chosen(level: int, col: int, row: int) -> bool:
        x, y, side = col * TILE << level, row * TILE << level, TILE << level
        return level in levels and left <= x and x + side <= right and top <= y and y + side <= bottom

    return chosen


def write_zarr(path: Path, levels: Sequence[Pixels], without: Chosen, fill: int = 0, shards: bool = False) -> Path:
    """OME-Zarr 0.4, or 0.5 with 4 × 4 chunks a shard; in a zip file where the path says so."""
    import shutil

    folder = path.with_suffix("") if path.suffix == ".zip" else path
    datasets = [
        {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": [1, MPP * 2**n, MPP * 2**n]}]}
        for n in range(len(levels))
    ]
    axes = [{"name": "c", "type": "channel"}, *({"name": a, "type": "space", "unit": "micrometer"} for a in "yx")]
    multiscales = [{"version": "0.5" if shards else "0.4", "axes": axes, "datasets": datasets}]
    attributes = {"ome": {"version": "0.5", "multiscales": multiscales}} if shards else {"multiscales": multiscales}
    group = zarr.create_group(str(folder), zarr_format=3 if shards else 2, attributes=attributes)
    for n, level in enumerate(levels):
        whole = {"shards": (3, 4 * TILE, 4 * TILE)} if shards else {}
        array = group.create_array(str(n), shape=(3, *level.shape[:2]), chunks=(3, TILE, TILE), dtype="uint8",
                                   fill_value=fill, **whole)  # fmt: skip
        stored = np.moveaxis(level, -1, 0).copy()
        for row in range(-(-level.shape[0] // TILE)):
            for col in range(-(-level.shape[1] // TILE)):
                if without(n, col, row):  # a chunk that holds nothing but the fill value is not written
                    stored[:, row * TILE : (row + 1) * TILE, col * TILE : (col + 1) * TILE] = fill
        array[...] = stored
    return Path(shutil.make_archive(str(folder), "zip", folder)) if path.suffix == ".zip" else path


def write_tiff(
    path: Path, levels: Sequence[Pixels], without: Chosen, tag: str = "TileByteCounts", description: str | None = None
) -> Path:
    """A tiled pyramid in which tiles have no bytes, or lie nowhere (`tag="TileOffsets"`)."""
    path.parent.mkdir(exist_ok=True)
    with tifffile.TiffWriter(path) as tif:
        for n, level in enumerate(levels):
            resolution = (1e4 / MPP / 2**n,) * 2
            tif.write(level, photometric="rgb", tile=(TILE, TILE), compression="deflate", resolution=resolution,
                      resolutionunit="CENTIMETER", subfiletype=1 if n else 0, metadata=None,
                      description=description)  # fmt: skip
    with tifffile.TiffFile(path, mode="r+b") as tif:
        for n, page in enumerate(tif.pages):
            columns = -(-page.imagewidth // TILE)
            values = list(page.tags[tag].value)
            values = [0 if without(n, at % columns, at // columns) else value for at, value in enumerate(values)]
            page.tags[tag].overwrite(values)
    return path
