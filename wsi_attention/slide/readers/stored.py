"""How many bytes of a file a read touches: from a TIFF's index, or from the mean over the file."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wsi_attention.geometry import Size
from wsi_attention.protocols import SlideReader

if TYPE_CHECKING:
    from tifffile import TiffPage


@runtime_checkable
class CountingReader(SlideReader, Protocol):
    """A reader that knows how large the stored tiles are."""

    @property
    def stored_counts(self) -> tuple[NDArray[np.int64], ...]:
        """Bytes of each level's stored tiles, (rows, columns)."""
        ...


@dataclass(frozen=True, eq=False)
class LevelBytes:
    """One level: the size (w, h) of its stored tiles, and the bytes of each, (rows, cols)."""

    tile: Size
    counts: NDArray[np.int64]

    def touched(self, corner: tuple[float, float], size: Size) -> int:
        """Return the bytes of the tiles that a rectangle of the level meets."""
        first = [max(int(corner[side] // self.tile[side]), 0) for side in (0, 1)]
        last = [max(-int(-(corner[side] + size[side]) // self.tile[side]), 0) for side in (0, 1)]
        return int(self.counts[first[1] : last[1], first[0] : last[0]].sum())

    def touched_by_all(self, corners: NDArray[np.int64], sizes: NDArray[np.int64]) -> int:
        """Return the bytes of the tiles that rectangles (n, 2) of the level meet, each tile counted once."""
        most = np.array(self.counts.shape[::-1])
        first = np.clip(corners // self.tile, 0, most)
        last = np.clip(-(-(corners + sizes) // self.tile), 0, most)
        across, down = (np.arange((last - first)[:, axis].max(initial=0)) for axis in (0, 1))
        cols, rows = first[:, :1] + across, first[:, 1:] + down
        inside = (rows < last[:, 1:])[:, :, None] & (cols < last[:, :1])[:, None, :]
        ids = (rows[:, :, None] * most[0] + cols[:, None, :])[inside]
        return int(self.counts.reshape(-1)[np.unique(ids)].sum())


@dataclass(frozen=True, eq=False)
class StoredBytes:
    """Bytes of a slide's levels.

    Attributes:
        dimensions: (w, h) of each level.
        levels: by level; a level is missing where its tiles are not known.
        per_pixel: mean bytes per pixel over all levels, which stands in for the missing ones; 0 where unknown.
    """

    dimensions: tuple[Size, ...]
    levels: dict[int, LevelBytes]
    per_pixel: float

    @classmethod
    def of(cls, reader: SlideReader, path: str | None) -> StoredBytes:
        """Take what an open reader knows of its file, else what the file's index says.

        Of a folder or a series only the mean is known, of a URL or an array nothing.

        Args:
            reader: an open one.
            path: of its file; None where there is none.
        """
        dimensions = tuple(reader.level_dimensions)
        if isinstance(reader, CountingReader):
            pairs = enumerate(zip(reader.tile_sizes, reader.stored_counts, strict=True))
            return cls(dimensions, {level: LevelBytes(tile, own) for level, (tile, own) in pairs if tile}, 0.0)
        if path is None or "://" in path:
            return cls(dimensions, {}, 0.0)
        pixels = sum(w * h for w, h in dimensions)
        return cls(dimensions, _tiff_levels(path, dimensions), _total_bytes(Path(path)) / pixels)

    def touched(self, level: int, corner: tuple[float, float], size: Size) -> int:
        """Return the bytes that reading a rectangle (corner and size in the level's pixels) asks for."""
        if level in self.levels:
            return self.levels[level].touched(corner, size)
        extent = self.dimensions[level]
        w, h = (max(min(at + n, end) - max(at, 0), 0) for at, n, end in zip(corner, size, extent, strict=True))
        return round(self.per_pixel * w * h)

    def touched_by_all(self, level: int, corners: NDArray[np.int64], sizes: NDArray[np.int64]) -> int:
        """Return the bytes that reading many rectangles (n, 2) together asks for: tiles that they share count once."""
        if level in self.levels:
            return self.levels[level].touched_by_all(corners, sizes)
        end = np.array(self.dimensions[level])
        inside = np.clip(np.minimum(corners + sizes, end) - np.maximum(corners, 0), 0, None)
        return round(self.per_pixel * int(inside.prod(axis=1).sum()))


def _total_bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else path.parent.glob("*.dcm") if path.suffix.lower() == ".dcm" else [path]
    try:
        return sum(file.stat().st_size for file in files if file.is_file())
    except OSError:  # an estimate must not fail: a folder that cannot be listed, a file that is just being removed
        return 0


def _tiff_levels(path: str, dimensions: Sequence[Size]) -> dict[int, LevelBytes]:
    try:
        return _levels_of(path, dimensions)
    except Exception:  # an estimate must not fail: no TIFF, or one that tifffile cannot parse
        return {}
    finally:
        gc.collect(1)  # tifffile's file and pages refer to each other, and their tables take 80 bytes a tile


def _levels_of(path: str, dimensions: Sequence[Size]) -> dict[int, LevelBytes]:
    import tifffile

    found: dict[int, LevelBytes] = {}
    with tifffile.TiffFile(path) as tif:
        first = tif.pages.first
        for page in (*tif.pages, *(first.pages or ())):
            extent = (page.imagewidth, page.imagelength)
            if page.is_tiled and extent in dimensions:
                found.setdefault(list(dimensions).index(extent), _level_bytes(page))
    return found


def _level_bytes(page: TiffPage) -> LevelBytes:
    rows, cols = -(-page.imagelength // page.tilelength), -(-page.imagewidth // page.tilewidth)
    counts = np.asarray(page.databytecounts, np.int64)[: rows * cols].reshape(rows, cols)
    return LevelBytes((page.tilewidth, page.tilelength), counts)
