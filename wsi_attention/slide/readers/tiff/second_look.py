"""Checks of a TIFF's index before OpenSlide reads it: what it would open although it should not, and what stops it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import SlideError
from wsi_attention.slide.channels import STORED
from wsi_attention.slide.images import Series, StoredImage
from wsi_attention.slide.metadata import OME_IMAGE
from wsi_attention.slide.readers.tiff.checks import (
    SOME_LOST,
    check_chain,
    check_kind,
    check_levels,
    check_segments,
)
from wsi_attention.slide.readers.tiff.images import pick
from wsi_attention.slide.readers.tiff.index import MISSING, TiffIndex, remembered
from wsi_attention.slide.readers.tiff.tags import APERIO, GENERIC, NotReadHereError, vendor_of

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

P = ParamSpec("P")
T = TypeVar("T")


class Seen(NamedTuple):
    """What the index of a TIFF says of the slide in it.

    Attributes:
        images: all images of the file.
        image: the index of the one that is the slide.
        sizes: (w, h) of its levels, finest first.
        first: whether it begins with the file's first directory.
        rgb: whether each pixel is stored as red, green, blue.
        xml: its part of the OME-XML, or nothing.
        notes: what a reader should know of the choice.
        missing: by level, which stored tiles are not in the file, (rows, columns).
    """

    images: tuple[StoredImage, ...]
    image: int
    sizes: tuple[tuple[int, int], ...]
    first: bool
    rgb: bool
    xml: str
    notes: tuple[str, ...]
    missing: tuple[NDArray[np.bool_], ...]


def check_openslide_tiff(
    path: str, sizes: Sequence[tuple[int, int]], vendor: str | None, series: Series
) -> Seen | None:
    """Refuse a TIFF that OpenSlide opens although it is no RGB image, its tiles are missing, or it is another image.

    OpenSlide shows greyscale, palette and 16-bit images as RGB, reads tile offsets without looking where they point,
    and takes the first image of a file for the slide, whatever it is. Files of vendors beside these two are left to it.

    Args:
        path: the file.
        sizes: (w, h) of the levels that OpenSlide shows.
        vendor: that OpenSlide names.
        series: the number or name of the image that is wanted.

    Returns:
        What the index says; None for vendors that are left to OpenSlide, and where tifffile cannot read it.

    Raises:
        NotReadHereError: the slide is another image of the file, or not stored as OpenSlide takes it.
        SeveralImagesError: several images could be the slide.
        SlideOpenError: more than a tenth of a level lies past the end of the file.
        UnsupportedSlideError: no 8-bit RGB.
    """
    if vendor not in {APERIO, GENERIC} or not sizes:
        return None
    index = remembered(path, series)
    stamp = Path(path).stat()
    seen = _of_index(index) if index else _looked(path, series, stamp.st_size, stamp.st_mtime_ns)
    if seen is None:
        return None
    foreign = len(seen.images) > 1 and not set(sizes) <= set(seen.sizes)
    if sizes[0] != seen.sizes[0] or not seen.first or (vendor == GENERIC and foreign):
        raise NotReadHereError(path, "the slide is not the image that OpenSlide takes", "openslide")
    if not seen.rgb:
        raise NotReadHereError(path, "its channels are not in the order red, green, blue", "openslide")
    return seen


def _of_index(index: TiffIndex) -> Seen:
    sizes = tuple(level.size for level in index.levels)
    xml = index.properties.get(OME_IMAGE, "")
    missing = tuple((level.states == MISSING).reshape(-1, level.columns) for level in index.levels)
    return Seen(index.images, index.image, sizes, index.first, True, xml, index.notes, missing)


@lru_cache(maxsize=1024)
def _looked(path: str, series: Series, size: int, changed: int) -> Seen | None:
    """Check a file for OpenSlide; one that passed and has not changed is not parsed again when it is reopened."""
    del size, changed
    import tifffile

    try:
        tif = tifffile.TiffFile(path)
        vendor = vendor_of(tif, path)
    except Exception:  # OpenSlide could read it, so what stops tifffile does not count
        return None
    with tif:
        return _soft(_seen, tif, vendor, path, series)


def _seen(tif: TiffFile, vendor: str, path: str, series: Series) -> Seen:
    picked = pick(tif, vendor, path, series)
    image = picked.image
    for page in image.levels if not image.planes else []:
        _soft(check_kind, page, path)
        _soft(check_segments, page, path, SOME_LOST)
    sizes = tuple((int(page.imagewidth), int(page.imagelength)) for page in image.levels)
    rgb = image.order == STORED and not image.planes
    missing = tuple(map(_missing, image.levels))
    return Seen(picked.images, image.about.index, sizes, image.first, rgb, image.xml, picked.notes, missing)


def _missing(page: TiffPage) -> NDArray[np.bool_]:
    if not page.is_tiled:
        return np.zeros((1, 1), np.bool_)
    rows, columns = -(-page.imagelength // page.tilelength), -(-page.imagewidth // page.tilewidth)
    counts, offsets = (np.asarray(one, np.int64)[: rows * columns] for one in (page.databytecounts, page.dataoffsets))
    return np.asarray((counts == 0) | (offsets == 0), np.bool_).reshape(rows, columns)


def explain_tiff(path: str, series: Series = None) -> None:
    """Look for what is wrong with a TIFF that OpenSlide could not open; return where nothing is found.

    Raises:
        SlideOpenError: a loop, absurd dimensions, missing tiles.
        UnsupportedSlideError: no 8-bit RGB, or in an unknown compression.
    """
    import tifffile

    try:
        tif = tifffile.TiffFile(path)
    except Exception:  # no TIFF: OpenSlide's own words stand
        return
    with tif:
        _soft(check_chain, tif, path)
        _soft(lambda: check_levels(pick(tif, vendor_of(tif, path), path, series).image.levels, path))


def compression_of(path: str) -> str:
    """Return the name of the compression of a TIFF's first image."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            compression = tif.pages.first.compression
            return str(getattr(compression, "name", compression))
    except Exception:  # only a word in a message
        return "a way"


def _soft(check: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T | None:
    """Run a check; only its own verdicts count, not what else tifffile stumbles over."""
    try:
        return check(*arguments, **options)
    except SlideError:
        raise
    except Exception:
        return None
