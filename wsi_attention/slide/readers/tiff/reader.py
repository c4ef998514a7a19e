"""Tiled TIFFs by their stored tiles: SVS, Philips, generic pyramids, OME-TIFF. No lock, no cache, OpenSlide's pixels.

A tile is read by its offset and decoded by imagecodecs, straight into the result where a region is a whole tile; else
each tile that several regions of a request share is decoded once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import TileReadError
from wsi_attention.geometry import Box
from wsi_attention.slide.failures import opening
from wsi_attention.slide.images import Series
from wsi_attention.slide.readers.byte_ranges import ByteRanges, is_tiff
from wsi_attention.slide.readers.sources import bytes_of
from wsi_attention.slide.readers.tiff.associated import read_associated
from wsi_attention.slide.readers.tiff.coding import decoder
from wsi_attention.slide.readers.tiff.index import MISSING, TiffIndex, TiffLevel, read_index
from wsi_attention.slide.readers.tiff.request import TiffRequest

Pixels = NDArray[np.uint8]
Size = tuple[int, int]


class TiffReader:
    """One open TIFF."""

    name: ClassVar[str] = "tiff"

    def __init__(self, path: str, series: Series = None) -> None:
        with opening(path, self.name):
            self._source: ByteRanges = bytes_of(path)
        with opening(path, self.name, self._source.close):
            self._index: TiffIndex = read_index(self._source, series)
            self._decoders = [decoder(level.coding) for level in self._index.levels]
        levels = self._index.levels
        self.level_dimensions: tuple[Size, ...] = tuple(level.size for level in levels)
        self.level_downsamples: tuple[float, ...] = tuple(level.downsample for level in levels)
        self.tile_sizes: tuple[Size | None, ...] = tuple(level.tile for level in levels)
        self.properties: Mapping[str, str] = self._index.properties
        self.bounds: Box | None = None
        self.associated: tuple[str, ...] = tuple(self._index.associated)
        self.images, self.image, self.notes = self._index.images, self._index.image, self._index.notes

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Whether it is a URL, or a file that begins as a TIFF does."""
        return "://" in path or is_tiff(path)

    @property
    def first(self) -> bool:
        """Whether the slide begins with the file's first directory."""
        return self._index.first

    @property
    def levels(self) -> tuple[TiffLevel, ...]:
        """Where each level's tiles lie and how they are stored."""
        return self._index.levels

    @property
    def stored_counts(self) -> tuple[NDArray[np.int64], ...]:
        """Bytes of each level's stored tiles, (rows, columns)."""
        return tuple(level.counts.reshape(-1, level.columns) for level in self.levels)

    def read(self, location: Size, level: int, size: Size) -> Pixels:
        """Pixels (h, w, 3) on white.

        Raises:
            TileReadError: a tile is damaged, or the file could not be read.
        """
        out = np.empty((1, size[1], size[0], 3), np.uint8)
        reason = self._request(level, size, out).read([location])[0]
        if reason is not None:
            raise TileReadError(reason)
        pixels: Pixels = out[0]
        return pixels

    def read_regions(self, locations: NDArray[np.int64], level: int, size: Size, out: Pixels) -> list[str | None]:
        """As `RegionsReader.read_regions`; of a region that fails, the output is zeros."""
        return self._request(level, size, out).read([(x, y) for x, y in locations.tolist()])

    def absent(self, level: int, tiles: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether stored tiles (column, row) are not in the file."""
        index = self.levels[level]
        return np.asarray(index.states[tiles[:, 1] * index.columns + tiles[:, 0]] == MISSING)

    def _request(self, level: int, size: Size, out: Pixels) -> TiffRequest:
        return TiffRequest(self._source, self._index.levels[level], self._decoders[level], size, out)

    def read_associated(self, name: str) -> Pixels:
        """A label, macro or thumbnail image, (h, w, 3)."""
        return read_associated(self._source, name, self._index.associated[name])

    def close(self) -> None:
        """Gives the file back."""
        self._source.close()
