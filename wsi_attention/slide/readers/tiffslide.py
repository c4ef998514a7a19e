"""TIFF slides through tiffslide: OME-TIFF with SubIFDs, plain TIFF, and both behind URLs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import numpy as np
import tiffslide
from numpy.typing import NDArray
from tifffile import TiffFile, TiffPage

from wsi_attention.errors import SlideOpenError, TileReadError
from wsi_attention.geometry import Box
from wsi_attention.slide.failures import opening
from wsi_attention.slide.holes import whitened
from wsi_attention.slide.pixels import level_location, on_white, padded
from wsi_attention.slide.readers.byte_ranges import is_tiff
from wsi_attention.slide.readers.limits import downsamples
from wsi_attention.slide.readers.sources import bytes_of
from wsi_attention.slide.readers.tiff.checks import check_chain, check_levels, check_single_plane, series_levels
from wsi_attention.slide.readers.tiff.jpeg_size import check_jpeg_size
from wsi_attention.slide.urls import is_url


class _LevelFrame(tiffslide.TiffSlide):
    """tiffslide with locations in the level's own pixels, so that our rounding is the only one."""

    def _read_region_loc_transform(self, location: tuple[int, int], level: int) -> tuple[int, int]:
        del level
        return location


class TiffSlideReader:
    """One open TIFF. Locations are taken to the level's nearest whole pixel."""

    name: ClassVar[str] = "tiffslide"

    def __init__(self, path: str) -> None:
        with opening(path, self.name):
            self._slide = _open(path)
        with opening(path, self.name, self._slide.ts_tifffile.close):
            tif = self._slide.ts_tifffile
            check_chain(tif, path)
            series = tif.series[0]
            check_single_plane(series.axes, series.shape, path)
            check_levels(series_levels(tif), path)
            _drop_unusable_resolution(tif)
            self.properties: Mapping[str, str] = _properties(self._slide)
            self.level_dimensions: tuple[tuple[int, int], ...] = self._slide.level_dimensions
            self._pages = pages = series_levels(tif)
            for page in pages:
                _bound(page)
        self.level_downsamples = downsamples(self.level_dimensions)
        self.tile_sizes = tuple((page.tilewidth, page.tilelength) if page.is_tiled else None for page in pages)
        self.bounds: Box | None = None
        self.associated: tuple[str, ...] = tuple(name for name in self._slide.associated_images if name)

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Whether it is a URL, or a file that begins as a TIFF does."""
        return is_url(path) or is_tiff(path)

    def read(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Pixels (h, w, 3 or 4); outside the slide they are white.

        Raises:
            TileReadError: the pixels could not be read or decoded.
        """

        def crop(rows: slice, cols: slice) -> NDArray[np.uint8]:
            place, extent = (cols.start, rows.start), (cols.stop - cols.start, rows.stop - rows.start)
            pixels = np.asarray(self._slide.read_region(place, level, extent, as_array=True), np.uint8)
            return self._whitened(pixels, level, place)

        corner = level_location(location, self.level_downsamples[level])
        try:
            return padded(crop, self.level_dimensions[level], corner, size)
        except Exception as error:  # tifffile and the codecs raise whatever a damaged tile leads them to
            raise TileReadError(str(error) or type(error).__name__) from error

    def absent(self, level: int, tiles: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether stored tiles (column, row) are not in the file."""
        page = self._pages[level]
        numbers = tiles[:, 1] * -(-page.imagewidth // page.tilewidth) + tiles[:, 0]
        counts = np.asarray(page.databytecounts)
        return np.asarray(counts[numbers] == 0)

    def _whitened(self, pixels: NDArray[np.uint8], level: int, corner: tuple[int, int]) -> NDArray[np.uint8]:
        """White, where tifffile gives black for tiles that are not there."""
        tile = self.tile_sizes[level]
        if tile is None or np.asarray(self._pages[level].databytecounts).all():
            return pixels
        return whitened(pixels, corner, tile, lambda tiles: self.absent(level, tiles))

    def read_associated(self, name: str) -> NDArray[np.uint8]:
        """A label, macro or thumbnail image, (h, w, 3)."""
        return on_white(np.asarray(self._slide.associated_images[name].convert("RGBA")))

    def close(self) -> None:
        """Closes the file."""
        self._slide.close()


def _bound(page: TiffPage) -> None:
    """Lets tifffile decode no tile that is stored, or unpacks, larger than its pixels can be."""
    width, height = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)
    decode = page.decode

    def bounded(content: bytes | None, *arguments: Any, **options: Any) -> Any:
        if content is not None:
            if len(content) > 2**20 + 12 * width * height:
                raise TileReadError(f"a tile of {len(content)} bytes, more than its pixels can have")
            if content[:2] == b"\xff\xd8":
                check_jpeg_size(content, (width, height))
        return decode(content, *arguments, **options)

    page.__dict__["decode"] = bounded  # in place of what the page's cached property made


def _open(path: str) -> _LevelFrame:
    if is_url(path):
        return _LevelFrame(cast(Any, bytes_of(path).file()))
    try:
        return _LevelFrame(path)
    except FileNotFoundError as error:
        raise SlideOpenError(f"{path}: no such file; check the path") from error


def _drop_unusable_resolution(tif: TiffFile) -> None:
    """Takes out resolution tags that are no fractions (0/0 …): tiffslide cannot open a file that has them."""
    tags = tif.series[0].keyframe.tags
    for name in ("XResolution", "YResolution"):
        value = tags.valueof(name)
        if value is not None and not _is_fraction(value):
            del tags[name]


def _is_fraction(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, int) for v in value) and value[1] > 0


def _properties(slide: tiffslide.TiffSlide) -> dict[str, str]:
    """The file's tags as text, under OpenSlide's names where tiffslide has its own."""
    tif = slide.ts_tifffile
    if tif.is_ndpi or tif.is_bif:  # tiffslide warns that it knows them in part; what it has is enough
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found = slide.properties
    else:
        found = slide.properties
    return {key.replace("tiffslide.", "openslide.", 1): str(value) for key, value in found.items() if value is not None}
