"""TIFF slides through tiffslide: OME-TIFF with SubIFDs, plain TIFF, and both behind URLs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import tiffslide
from numpy.typing import NDArray
from tifffile import TiffFile, TiffPage, TiffPageSeries

from wsi_attention.errors import SlideOpenError, TileReadError, UnsupportedSlideError
from wsi_attention.geometry import Box
from wsi_attention.slide.channels import STORED, Order
from wsi_attention.slide.failures import opening
from wsi_attention.slide.holes import whitened
from wsi_attention.slide.images import Series, StoredImage, choose
from wsi_attention.slide.readers.bytes import is_tiff
from wsi_attention.slide.readers.limits import downsamples
from wsi_attention.slide.readers.sources import bytes_of
from wsi_attention.slide.readers.tiff.checks import (
    APART,
    check_chain,
    check_levels,
    check_single_plane,
    check_stored,
    series_levels,
)
from wsi_attention.slide.readers.tiff.coding import check_jpeg_size
from wsi_attention.slide.readers.tiff.images import as_series, pick
from wsi_attention.slide.readers.tiff.tag_sizes import notes_on_tags
from wsi_attention.slide.readers.tiff.tags import APERIO, GENERIC, PHILIPS, NotReadHereError, properties_of, vendor_of
from wsi_attention.slide.resample import level_location, on_white, padded
from wsi_attention.slide.urls import is_url, masked


class _LevelFrame(tiffslide.TiffSlide):
    """tiffslide with locations in the level's own pixels, so that our rounding is the only one."""

    def _read_region_loc_transform(self, location: tuple[int, int], level: int) -> tuple[int, int]:
        del level
        return location


class TiffSlideReader:
    """One open TIFF. Locations are taken to the level's nearest whole pixel."""

    name: ClassVar[str] = "tiffslide"

    def __init__(self, path: str, series: Series = None) -> None:
        with opening(path, self.name):
            self._slide, notes = _open(path)
        with opening(path, self.name, self._slide.ts_tifffile.close):
            tif = self._slide.ts_tifffile
            check_chain(tif, path)
            image = self._own_image(tif, path, series)
            self.notes += notes
            (check_stored if image and image.planes else check_levels)(series_levels(tif), path)
            _check_colours(series_levels(tif), path)
            _drop_unusable_resolution(tif)
            self.properties: Mapping[str, str] = image.properties if image else _properties(self._slide)
            self.level_dimensions: tuple[tuple[int, int], ...] = self._slide.level_dimensions
            self._pages = pages = series_levels(tif)
            for page in pages:
                _bound(page)
        self._order, self._premultiplied = image.order if image else STORED, _is_premultiplied(pages[0])
        self.level_downsamples = downsamples(self.level_dimensions)
        self.tile_sizes = tuple((page.tilewidth, page.tilelength) if page.is_tiled else None for page in pages)
        self.bounds: Box | None = None
        self.associated: tuple[str, ...] = tuple(name for name in self._slide.associated_images if name)

    def _own_image(self, tif: TiffFile, path: str, series: Series) -> _Image | None:
        """Return the slide of a TIFF whose directories we know; None for a scanner's own kind."""
        try:
            vendor = vendor_of(tif, path)
        except NotReadHereError:
            first = tif.series[0]
            check_single_plane(first.axes, first.shape, path)
            self.images = tuple(_stored(index, found) for index, found in enumerate(tif.series))
            self.image, self.notes = 0, cast(tuple[str, ...], ())
            if series is not None and choose(self.images, series, path).number:
                raise SlideOpenError(f"{path}: of this format only image 0 can be taken") from None
            return None
        picked = pick(tif, vendor, path, series)
        image, self.images, self.notes = picked.image, picked.images, picked.notes
        self.image = image.about.index
        others = tif.series if vendor == APERIO and not self.image else [None, *_named(tif, self.image)]
        vars(tif)["series"] = [as_series(image, tif), *others[1:]]
        if vendor == PHILIPS and not self.image:
            return None
        kind = GENERIC if self.image else vendor  # a thumbnail has the slide's text, and not its scale
        return _Image(image.planes, image.order, properties_of(image.levels[0], kind, image.xml))

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Return True for a URL, or for a file that begins as a TIFF does."""
        return is_url(path) or is_tiff(path)

    def read(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return pixels (h, w, 3 or 4); outside the slide they are white.

        Raises:
            TileReadError: the pixels could not be read or decoded.
        """

        def crop(rows: slice, cols: slice) -> NDArray[np.uint8]:
            place, extent = (cols.start, rows.start), (cols.stop - cols.start, rows.stop - rows.start)
            pixels = np.asarray(self._slide.read_region(place, level, extent, as_array=True), np.uint8)
            return self._whitened(pixels, level, place)

        corner = level_location(location, self.level_downsamples[level])
        try:
            pixels = padded(crop, self.level_dimensions[level], corner, size)
            return self._plain(pixels)
        except Exception as error:  # tifffile and the codecs raise whatever a damaged tile leads them to
            raise TileReadError(str(error) or type(error).__name__) from error

    def absent(self, level: int, tiles: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which stored tiles (column, row) are not in the file."""
        page = self._pages[level]
        numbers = tiles[:, 1] * -(-page.imagewidth // page.tilewidth) + tiles[:, 0]
        return np.asarray(self._least_counts(level)[numbers] == 0)

    def _least_counts(self, level: int) -> NDArray[np.int64]:
        """Return the bytes of each stored tile; where colours are stored apart, of the one with the fewest."""
        pages = [page for page in self._slide.ts_tifffile.series[0].levels[level].pages if page is not None]
        first = self._pages[level]
        tiles = -(-first.imagewidth // first.tilewidth) * -(-first.imagelength // first.tilelength)
        apart = int(first.samplesperpixel) if int(first.planarconfig) == APART else 1
        counts = [np.asarray(page.databytecounts[: apart * tiles], np.int64).reshape(apart, tiles) for page in pages]
        return np.asarray(np.concatenate(counts).min(axis=0))

    def _whitened(self, pixels: NDArray[np.uint8], level: int, corner: tuple[int, int]) -> NDArray[np.uint8]:
        """Make missing tiles white; tifffile reads them as black."""
        tile = self.tile_sizes[level]
        if tile is None or self._least_counts(level).all():
            return pixels
        return whitened(pixels, corner, tile, lambda tiles: self.absent(level, tiles))

    def _plain(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return channels in the order red, green, blue, with colours not multiplied by any transparency."""
        if self._order != STORED:
            return pixels[..., list(self._order)]
        if not self._premultiplied or pixels.shape[2] != 4:
            return pixels
        colour, clear = pixels[..., :3].astype(np.uint16), np.uint16(255) - pixels[..., 3:]
        return np.minimum(colour + clear, np.uint16(255)).astype(np.uint8)

    def read_associated(self, name: str) -> NDArray[np.uint8]:
        """Return a label, macro or thumbnail image, (h, w, 3)."""
        return on_white(np.asarray(self._slide.associated_images[name].convert("RGBA")))

    def close(self) -> None:
        """Close the file."""
        self._slide.close()


def _bound(page: TiffPage) -> None:
    """Stop tifffile from decoding a tile that is stored, or unpacks, larger than its pixels can be."""
    width, height = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)
    decode = page.decode

    def bounded(content: bytes | None, *arguments: object, **options: object) -> object:
        if content is not None:
            if len(content) > 2**20 + 12 * width * height:
                raise TileReadError(f"a tile of {len(content)} bytes, more than its pixels can have")
            if content[:2] == b"\xff\xd8":
                check_jpeg_size(content, (width, height))
        return decode(content, *arguments, **options)

    page.__dict__["decode"] = bounded  # in place of what the page's cached property made


class _Image(NamedTuple):
    """Whether its colours are stored apart, the order of its channels, and its own tags."""

    planes: bool
    order: Order
    properties: Mapping[str, str]


def _stored(index: int, series: TiffPageSeries) -> StoredImage:
    page = series.keyframe
    return StoredImage(index, str(series.name), (int(page.imagewidth), int(page.imagelength)), len(series.levels))


def _named(tif: TiffFile, image: int) -> list[TiffPageSeries]:
    """Return the other images of an OME-TIFF, which have names."""
    return [series for index, series in enumerate(tif.series) if index != image] if tif.is_ome else []


def _check_colours(levels: list[TiffPage], path: str) -> None:
    """Raise UnsupportedSlideError where tifffile would return other colours than RGB.

    Raises:
        UnsupportedSlideError: YCbCr that no JPEG decoder turns into RGB.
    """
    for page in levels:
        if page.photometric == 6 and int(page.compression) not in _JPEGS:
            name = getattr(page.compression, "name", page.compression)
            raise UnsupportedSlideError(
                f"{path}: colours stored as YCbCr in {name} tiles, which tiffslide does not turn into RGB; convert it"
            )


_JPEGS = {6, 7, 33003, 34892}
_ASSOCIATED_ALPHA = 1


def _is_premultiplied(page: TiffPage) -> bool:
    return int(page.samplesperpixel) == 4 and tuple(map(int, page.extrasamples)) == (_ASSOCIATED_ALPHA,)


def _open(path: str) -> tuple[_LevelFrame, tuple[str, ...]]:
    """Open the file; return it with notes on how far a remote one's tags point (`Slide` makes those of a local one)."""
    if is_url(path):
        source = bytes_of(path)
        stream = source.file()
        notes = notes_on_tags(stream, source.size, masked(path))
        stream.seek(0)
        return _LevelFrame(cast(Any, stream)), notes
    try:
        return _LevelFrame(path), ()
    except FileNotFoundError as error:
        raise SlideOpenError(f"{path}: no such file; check the path") from error


def _drop_unusable_resolution(tif: TiffFile) -> None:
    """Remove resolution tags that are no fractions (0/0 …): tiffslide cannot open a file that has them."""
    tags = tif.series[0].keyframe.tags
    for name in ("XResolution", "YResolution"):
        value = tags.valueof(name)
        if value is not None and not _is_fraction(value):
            del tags[name]


def _is_fraction(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, int) for v in value) and value[1] > 0


def _properties(slide: tiffslide.TiffSlide) -> dict[str, str]:
    """Return the file's tags as text, under OpenSlide's names where tiffslide has its own."""
    tif = slide.ts_tifffile
    if tif.is_ndpi or tif.is_bif:  # tiffslide warns that it knows them in part; what it has is enough
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found = slide.properties
    else:
        found = slide.properties
    return {key.replace("tiffslide.", "openslide.", 1): str(value) for key, value in found.items() if value is not None}
