"""A tiled TIFF's index, read once: where the tiles of each level lie, and how they are stored.

`images.py` decides which directories are levels of the slide. For files that OpenSlide reads they are the same ones as
OpenSlide's; here the SubIFDs of an OME-TIFF are levels too, and the slide need not be the first image of its file.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from wsi_attention.slide.channels import STORED
from wsi_attention.slide.images import Series, StoredImage
from wsi_attention.slide.readers.bytes import ByteRanges
from wsi_attention.slide.readers.limits import downsamples
from wsi_attention.slide.readers.tiff.checks import SOME_LOST, Table, check_chain, check_levels
from wsi_attention.slide.readers.tiff.coding import Coding, coding_of
from wsi_attention.slide.readers.tiff.held import Backed, taken
from wsi_attention.slide.readers.tiff.images import TiffImage, pick
from wsi_attention.slide.readers.tiff.philips import PhilipsText
from wsi_attention.slide.readers.tiff.tag_sizes import notes_on_tags
from wsi_attention.slide.readers.tiff.tags import (
    APERIO,
    IN_TEXT,
    PHILIPS,
    NotReadHereError,
    associated_of,
    pages_of,
    properties_of,
    vendor_of,
)
from wsi_attention.slide.urls import is_url

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

LARGEST = 2**20
"""Bytes that any stored tile may have; beyond it, four times the tile's pixels are the limit."""
MISSING, SOUND, OUTSIDE, OVERLAPS, TOO_LARGE = range(5)
"""What a stored tile can be. Missing ones (of no bytes, or at no place) are white; the last three cannot be read."""
FAULTS = {
    OUTSIDE: "lies past the end of the file",
    OVERLAPS: "shares bytes with another tile",
    TOO_LARGE: "claims more bytes than its pixels can have",
}


@dataclass(frozen=True, eq=False)
class TiffLevel:
    """One level.

    Attributes:
        size: (w, h) in pixels.
        tile: (w, h) of a stored tile.
        downsample: level-0 pixels per pixel.
        columns: tiles a row.
        offsets: of each tile, row by row.
        counts: bytes of each tile.
        states: of each tile, one of `MISSING` … `TOO_LARGE`.
        coding: how its tiles are stored.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    downsample: float
    columns: int
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    states: NDArray[np.uint8]
    coding: Coding


@dataclass(frozen=True, eq=False)
class TiffIndex:
    """What a file's directories say.

    Attributes:
        levels: finest first.
        properties: the file's tags under OpenSlide's names.
        associated: the directory of the label, macro and thumbnail, by name; `IN_TEXT` where XML holds them.
        images: all images of the file.
        image: the index of the one that is the slide.
        first: whether that begins with the file's first directory.
        notes: what a reader should know of the choice.
    """

    levels: tuple[TiffLevel, ...]
    properties: Mapping[str, str]
    associated: Mapping[str, int]
    images: tuple[StoredImage, ...]
    image: int
    first: bool
    notes: tuple[str, ...]


class _Last(NamedTuple):
    """The index that was read last, and of which state of which file."""

    state: tuple[object, ...]
    found: TiffIndex


_last: _Last | None = None


def read_index(source: ByteRanges, series: Series = None) -> TiffIndex:
    """Read and check the directories of a tiled TIFF; read no pixels.

    A local file is opened twice, to be compared with OpenSlide and to be used; the tables of a large slide are read
    only once, for the last index is remembered as long as its file does not change.

    Raises:
        NotReadHereError: of a kind that is left to others.
        SlideOpenError: damaged.
        UnsupportedSlideError: no 8-bit RGB.
        Exception: whatever tifffile raises on a broken file.
    """
    global _last  # noqa: PLW0603  a tuple takes another's place at once, so threads need no lock
    state, last = None if is_url(source.path) else _state_of(source.path, series), _last
    if last is not None and state is not None and last.state == state:
        return last.found
    try:
        index = _index_of(source, series)
        _last = _Last(state, index) if state is not None else last
        return index
    finally:
        gc.collect(1)  # tifffile's file and pages refer to each other, and their tables take 80 bytes a tile


@contextmanager
def put_back() -> Iterator[None]:
    """Remember afterwards the index that was remembered before: other files are read inside, and not again."""
    global _last  # noqa: PLW0603  as in `read_index`
    before = _last
    try:
        yield
    finally:
        _last = before


def remembered(path: str, series: Series = None) -> TiffIndex | None:
    """Return the index of a local file if it was the last that was read; the file has passed all checks then."""
    last = _last
    return last.found if last is not None and last.state == _state_of(path, series) else None


def _state_of(path: str, series: Series) -> tuple[object, ...]:
    """Return what identifies a local file's content, and the image that is wanted of it."""
    found = Path(path).stat()
    return series, Path(path).absolute(), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _index_of(source: ByteRanges, series: Series) -> TiffIndex:
    import tifffile

    with _stream(source) as stream:
        notes = notes_on_tags(stream, source.size, source.path) if is_url(source.path) else ()
        stream.seek(0)
        with tifffile.TiffFile(stream, name=source.path) as tif:
            found = _found(tif, source, series)
            return replace(found, notes=(*found.notes, *notes))


def _stream(source: ByteRanges) -> BinaryIO:
    """Open a file; of a local one, what `tag_sizes` has just read of its tables is not read again."""
    if is_url(source.path):
        return source.file()
    state = Path(source.path).stat()
    return cast(BinaryIO, Backed(source.file(), taken((source.path, state.st_size, state.st_mtime_ns))))


def _found(tif: TiffFile, source: ByteRanges, series: Series) -> TiffIndex:
    check_chain(tif, source.path)
    vendor = vendor_of(tif, source.path)
    directories = pages_of(tif, source.path)
    picked = pick(tif, vendor, source.path, series)
    pages = _level_pages(picked.image, source.path)
    tables = check_levels(pages, source.path, SOME_LOST)
    text = PhilipsText(directories[0].description, source.path) if vendor == PHILIPS else None
    levels = _levels(pages, tables, source, text)
    _check_holes(levels, vendor, source.path)
    found = properties_of(pages[0], vendor, picked.image.xml) | (text.properties if text else {})
    pictures = associated_of(directories, vendor) | dict.fromkeys(text.pictures if text else (), IN_TEXT)
    image = picked.image
    return TiffIndex(levels, found, pictures, picked.images, image.about.index, image.first, picked.notes)


def _level_pages(image: TiffImage, path: str) -> list[TiffPage]:
    """Return the directories of its levels.

    Raises:
        NotReadHereError: stored in strips, as three planes, or not in the order red, green, blue.
    """
    if image.planes:
        raise NotReadHereError(path, "its colours lie in three images")
    if image.order != STORED:
        raise NotReadHereError(path, "its channels are not in the order red, green, blue")
    if not image.levels[0].is_tiled:
        raise NotReadHereError(path, "the slide is stored in strips")
    return image.levels


def _levels(
    pages: list[TiffPage], tables: list[Table], source: ByteRanges, text: PhilipsText | None
) -> tuple[TiffLevel, ...]:
    sizes = [(int(page.imagewidth), int(page.imagelength)) for page in pages]
    coarser = list(downsamples(sizes))
    if text is not None:
        coarser, sizes = text.levels(sizes, source.path)
    found = [_tiles(page, table, source.size) for page, table in zip(pages, tables, strict=True)]
    _mark_overlaps(found)
    return tuple(
        TiffLevel(
            size, (page.tilewidth, page.tilelength), downsample, -(-page.imagewidth // page.tilewidth), *tiles,
            coding_of(page, source.path),
        )
        for page, size, downsample, tiles in zip(pages, sizes, coarser, found, strict=True)
    )  # fmt: skip


Tiles = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]


def _tiles(page: TiffPage, table: Table, file_size: int) -> Tiles:
    """Return offsets, byte counts and states of a level's tiles."""
    wanted = -(-page.imagelength // page.tilelength) * -(-page.imagewidth // page.tilewidth)
    offsets, counts = table.offsets[:wanted], table.counts[:wanted]
    states = np.full(wanted, SOUND, np.uint8)
    end = np.uint64(file_size)
    states[(offsets > end) | (counts > end - np.minimum(offsets, end))] = OUTSIDE
    states[counts > max(LARGEST, 12 * page.tilewidth * page.tilelength)] = TOO_LARGE
    states[(counts == 0) | (offsets == 0)] = MISSING
    good = states == SOUND
    return np.where(good, offsets, 0).astype(np.int64), np.where(good, counts, 0).astype(np.int64), states


def _mark_overlaps(levels: list[Tiles]) -> None:
    """Mark tiles that share some bytes with another; two with all bytes in common are one tile used twice."""
    sound = np.concatenate([states for _, _, states in levels]) == SOUND
    start = np.concatenate([offsets for offsets, _, _ in levels])[sound]
    end = start + np.concatenate([counts for _, counts, _ in levels])[sound]
    if (start[1:] >= end[:-1]).all():
        return
    order = np.argsort(start, kind="stable")
    start, end = start[order], end[order]
    new = np.ones(len(start), np.bool_)
    new[1:] = (start[1:] != start[:-1]) | (end[1:] != end[:-1])
    start, end = start[new], end[new]
    bad = np.zeros(len(start), np.bool_)
    bad[1:] = start[1:] < np.maximum.accumulate(end)[:-1]
    bad[:-1] |= start[1:] < end[:-1]
    where = np.flatnonzero(sound)[order[bad[np.cumsum(new) - 1]]]
    before = 0
    for _, _, states in levels:
        states[where[(where >= before) & (where < before + len(states))] - before] = OVERLAPS
        before += len(states)


def _check_holes(levels: tuple[TiffLevel, ...], vendor: str, path: str) -> None:
    """Leave Aperio files with holes in coarser levels to OpenSlide, which fills them from finer ones."""
    for number, level in enumerate(levels[1:], 1):
        if vendor == APERIO and (level.states == MISSING).any():
            raise NotReadHereError(path, f"level {number} has holes that are filled from finer levels")
