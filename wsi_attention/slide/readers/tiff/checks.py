"""What a TIFF must be before its pixels are trusted: whole, finite, RGB. Checked on the index only, nothing decoded.

tifffile reads as much of a broken file as it can; a slide with holes in it must be refused instead.
"""

from __future__ import annotations

import logging
import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import SlideOpenError, UnsupportedSlideError
from wsi_attention.slide.readers.limits import MAX_SEGMENT_PIXELS, check_dimensions
from wsi_attention.slide.readers.tiff.tag_sizes import TRUNCATED

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

APART = 2
"""The planar configuration in which each colour has its own tiles."""
MAX_DIRECTORIES = 100_000
SOME_LOST = 0.1
"""OpenSlide's slides may lose up to this share of a level's tiles: those tiles fail, the others stand."""

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its complaints become our one line


def check_chain(tif: TiffFile, path: str) -> None:
    """Follow the chain of directories (IFDs) to its end.

    Raises:
        SlideOpenError: it loops, or points past the end of the file.
    """
    form, stream, size = tif.tiff, tif.filehandle, tif.filehandle.size
    seen: set[int] = set()
    at = tif.pages.first.offset
    while at:
        if at in seen or len(seen) >= MAX_DIRECTORIES:
            raise SlideOpenError(f"{path}: its chain of TIFF directories is a loop; the file is damaged")
        seen.add(at)
        try:
            stream.seek(at)
            tags = struct.unpack(form.tagnoformat, stream.read(form.tagnosize))[0]
            stream.seek(at + form.tagnosize + tags * form.tagsize)
            at = struct.unpack(form.offsetformat, stream.read(form.offsetsize))[0]
        except struct.error:
            at = size
        if at >= size:
            raise SlideOpenError(
                f"{path}: TIFF directory {len(seen) + 1} lies past the end of the file ({size} bytes): {TRUNCATED}"
            )


class Table(NamedTuple):
    """Where the tiles or strips of a page lie, and how many bytes each has: (n,) uint64."""

    offsets: NDArray[np.uint64]
    counts: NDArray[np.uint64]


def check_levels(levels: list[TiffPage], path: str, tolerated: float = 0.0) -> list[Table]:
    """Check dimensions, kind of pixels, compression and completeness of a pyramid's levels.

    Args:
        levels: the page of each level, finest first.
        path: the file's name, for the message.
        tolerated: share of a level's tiles that may be missing.

    Returns:
        The table of each level.

    Raises:
        SlideOpenError: absurd, truncated, or too large to decode.
        UnsupportedSlideError: no 8-bit RGB, or in an unknown compression.
    """
    for page in levels:
        check_kind(page, path)
    return check_stored(levels, path, tolerated)


def check_stored(levels: list[TiffPage], path: str, tolerated: float = 0.0) -> list[Table]:
    """Check as `check_levels` does, but for any kind of pixels."""
    check_dimensions(path, [(page.imagewidth, page.imagelength) for page in levels])
    tables = []
    for page in levels:
        _check_compression(page, path)
        tables.append(check_segments(page, path, tolerated))
    return tables


def check_kind(page: TiffPage, path: str) -> None:
    """Raise UnsupportedSlideError for anything but an 8-bit RGB image.

    Raises:
        UnsupportedSlideError: greyscale, palette, multichannel, 16-bit, signed …
    """
    samples, depth = int(page.samplesperpixel), int(np.max(page.bitspersample))
    photometric = getattr(page.photometric, "name", str(page.photometric))
    alpha = samples == 4 and tuple(map(int, page.extrasamples)) in {(1,), (2,)}
    if (samples != 3 and not alpha) or depth != 8 or page.dtype != np.uint8 or photometric not in _COLOURS:
        raise UnsupportedSlideError(
            f"{path}: {samples} channel(s) of {depth}-bit {page.dtype or 'unknown'} values, photometric {photometric};"
            " only 8-bit RGB brightfield slides can be classified"
        )


_COLOURS = {"RGB", "YCBCR"}


def check_single_plane(axes: str, shape: tuple[int, ...], path: str) -> None:
    """Raise UnsupportedSlideError for stacks and multichannel images, which keep their planes in several pages.

    Raises:
        UnsupportedSlideError: axes beside y, x and colour that are longer than one.
    """
    planes = {axis: length for axis, length in zip(axes, shape, strict=True) if axis not in "YXS" and length > 1}
    if planes:
        found = ", ".join(f"{length} along {axis}" for axis, length in planes.items())
        raise UnsupportedSlideError(
            f"{path}: an image stack ({found}), not one RGB plane; only 8-bit RGB brightfield slides can be classified"
        )


def _check_compression(page: TiffPage, path: str) -> None:
    from tifffile import TIFF

    if page.compression not in TIFF.DECOMPRESSORS:
        name = getattr(page.compression, "name", page.compression)
        raise UnsupportedSlideError(f"{path}: TIFF compression {name} is not known here; convert the slide first")


def check_segments(page: TiffPage, path: str, tolerated: float) -> Table:
    """Return the table of a page's tiles or strips; refuse too large ones, and where more than a share is missing.

    Raises:
        SlideOpenError: absurd, or truncated.
    """
    kind = "tiles" if page.is_tiled else "strips"
    height, width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    height = min(height, page.imagelength) if not page.is_tiled else height
    if width < 1 or height < 1 or width * height > MAX_SEGMENT_PIXELS:
        raise SlideOpenError(
            f"{path}: stored in {kind} of {width}×{height} pixels, too large to decode in pieces;"
            " convert it to a tiled pyramid first (vips tiffsave --tile --pyramid)"
        )
    wanted = -(-int(page.imagelength) // height) * -(-int(page.imagewidth) // width)
    wanted *= int(page.samplesperpixel) if int(page.planarconfig) == APART else 1
    offsets = np.asarray(page.dataoffsets, np.uint64)
    counts = np.asarray(page.databytecounts, np.uint64)
    if len(offsets) < wanted or len(counts) < wanted:
        raise SlideOpenError(f"{path}: its index lists {len(offsets)} of {wanted} {kind}; the file is damaged")
    size = np.uint64(page.parent.filehandle.size)
    lost = int(np.count_nonzero((counts > 0) & ((offsets > size) | (counts > size - np.minimum(offsets, size)))))
    if lost > tolerated * wanted:
        raise SlideOpenError(f"{path}: {lost} of {wanted} {kind} lie past the end of the file: {TRUNCATED}")
    return Table(offsets, counts)


def series_levels(tif: TiffFile) -> list[TiffPage]:
    """Return the pages of the first series' levels, finest first."""
    return [level.keyframe for level in tif.series[0].levels]
