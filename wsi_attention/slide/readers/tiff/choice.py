"""Whether a file is one for the `tiff` reader: OpenSlide must agree on its metadata and on a tissue tile."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import closing
from typing import NamedTuple

import numpy as np

from wsi_attention.errors import SeveralImagesError, TileReadError
from wsi_attention.protocols import SlideReader
from wsi_attention.slide.failures import what_is_wrong
from wsi_attention.slide.images import Series
from wsi_attention.slide.metadata import file_mpp, objective_power
from wsi_attention.slide.readers.openslide import OpenSlideReader, vendor_of
from wsi_attention.slide.readers.tiff.excerpt import excerpt
from wsi_attention.slide.readers.tiff.index import put_back
from wsi_attention.slide.readers.tiff.kinds import kind_of, samples
from wsi_attention.slide.readers.tiff.reader import TiffReader
from wsi_attention.slide.readers.tiff.tags import APERIO, GENERIC, PHILIPS, NotReadHereError
from wsi_attention.slide.resample import on_white
from wsi_attention.slide.urls import is_url

SAME = "a tiled TIFF; a tissue tile is the same in OpenSlide"
IN_EXCERPT = "a tiled TIFF; a tissue tile is the same in OpenSlide, which was shown an excerpt of the file"
SAME_KIND = "a tiled TIFF; a tissue tile of a slide of its kind is the same in OpenSlide"
AT_URL = "a tiled TIFF at a URL"
ALONE = "a tiled TIFF; OpenSlide does not tell its images apart"

LARGE = 2**14
"""Stored tiles from which on a file is not compared where one of its kind was, and the first of a kind on an excerpt:
OpenSlide would read its whole index three times over."""
_PROVED: set[Hashable] = set()
"""Kinds of which this process has compared a file, and found no difference."""


class Verdict(NamedTuple):
    """Whether a file is for the `tiff` reader, and why, or why not."""

    taken: bool
    reason: str


def judge(path: str, series: Series = None) -> Verdict:
    """Judge whether the `tiff` reader is to be used for a file.

    A URL is not compared, for OpenSlide reads none; nor is an image that OpenSlide does not take for the slide; nor a
    large file after another of its kind, small or large. The first large one is compared on an excerpt of it.

    Raises:
        SeveralImagesError: several images could be the slide.
        SlideOpenError: a URL that cannot be reached, or that holds a damaged file.
        UnsupportedSlideError: a URL of something that is no 8-bit RGB slide.
    """
    if is_url(path):
        return _judge_url(path, series)
    try:
        ours = TiffReader(path, series)  # first: what OpenSlide reads ahead would double what a cold disk costs
    except SeveralImagesError:
        raise
    except Exception as error:  # whatever is wrong, opening it with OpenSlide says so
        why = error.why if isinstance(error, NotReadHereError) else what_is_wrong(error).removeprefix(f"{path}: ")
        return Verdict(False, _foreign(path) or why)
    try:
        kind = _kind(ours)
        if kind is not None and sum(len(level.counts) for level in ours.levels) >= LARGE:
            if kind in _PROVED:
                return Verdict(True, SAME_KIND)
            if _same_in_excerpt(path, ours, kind):
                _PROVED.add(kind)
                return Verdict(True, IN_EXCERPT)
        foreign = _foreign(path)
        if foreign is None:
            return _compared(path, ours, series, kind)
        alone = not ours.first and vendor_of(path) is None
        return Verdict(True, ALONE) if alone else Verdict(False, foreign)
    finally:
        ours.close()


def why_not_openslide(path: str, series: Series = None) -> str | None:
    """Say why OpenSlide is not to be used for a TIFF that it recognises; None where it is.

    Whatever else goes wrong, opening the file with OpenSlide says so.
    """
    if vendor_of(path) not in {APERIO, GENERIC}:
        return None
    try:
        OpenSlideReader(path, series).close()
    except NotReadHereError as error:
        return error.why
    except Exception:
        return None
    return None


def _foreign(path: str) -> str | None:
    """Say why a file of another format, or of none, is not for this reader."""
    vendor = vendor_of(path)
    if vendor in {APERIO, PHILIPS, GENERIC}:
        return None
    return f"its format ({vendor}) is left to OpenSlide" if vendor else "OpenSlide does not know it to compare with"


def _compared(path: str, ours: TiffReader, series: Series, kind: Hashable | None) -> Verdict:
    verdict = _opened_and_compared(path, ours, series)
    if verdict == (True, SAME) and kind is not None:
        _PROVED.add(kind)
    return verdict


def _same_in_excerpt(path: str, ours: TiffReader, kind: Hashable) -> bool:
    """Tell whether OpenSlide agrees on a small slide of the same kind, with this file's tiles; if in doubt it does not.

    What is in doubt is compared on the file itself, which has the last word.
    """
    try:
        with put_back(), excerpt(path, ours.levels) as small, closing(TiffReader(small, ours.image)) as reader:
            alike = kind_of(reader) == kind and _foreign(small) is None
            return alike and _opened_and_compared(small, reader, ours.image) == (True, SAME)
    except Exception:  # of whatever kind: no excerpt of a file that is to be opened is ever refused
        return False


def _kind(ours: TiffReader) -> Hashable | None:
    try:
        return kind_of(ours)
    except TileReadError:
        return None


def _opened_and_compared(path: str, ours: TiffReader, series: Series) -> Verdict:
    try:
        theirs = OpenSlideReader(path, series)
    except NotReadHereError:
        return Verdict(True, ALONE)
    except Exception:  # opening it once more says why, unless it stumbles over levels of the other images
        if ours.properties["openslide.vendor"] == GENERIC and len(ours.images) > 1:
            return Verdict(True, ALONE)
        return Verdict(False, "OpenSlide cannot open it to compare with")
    try:
        difference = _difference(ours, theirs)
        return Verdict(False, difference) if difference else Verdict(True, SAME)
    finally:
        theirs.close()


def _judge_url(path: str, series: Series) -> Verdict:
    try:
        TiffReader(path, series).close()
    except NotReadHereError as error:
        return Verdict(False, error.why)
    return Verdict(True, AT_URL)


def _difference(ours: TiffReader, theirs: OpenSlideReader) -> str | None:
    """Say what two readers do not agree on; OME-TIFF's smaller levels in SubIFDs are only seen by ours."""
    shared = [size for size in ours.level_dimensions if size in theirs.level_dimensions]
    if tuple(shared) != theirs.level_dimensions or shared[0] != ours.level_dimensions[0]:
        return f"levels of {ours.level_dimensions} where OpenSlide sees {theirs.level_dimensions}"
    if set(ours.associated) != set(theirs.associated):
        return f"associated images {ours.associated} where OpenSlide sees {theirs.associated}"
    if _scales(ours, shared) != _scales(theirs, shared):
        return "OpenSlide finds another downsample, pixel size or objective power"
    for number, tile in samples(ours.levels):
        if not _same_pixels(ours, theirs, number, tile):
            return f"a tile of level {number} decodes differently in OpenSlide"
    return None


def _scales(reader: SlideReader, shared: list[tuple[int, int]]) -> tuple[object, ...]:
    """Return the downsamples of the shared levels, µm per pixel and objective power."""
    sizes = zip(reader.level_dimensions, reader.level_downsamples, strict=True)
    downsamples = [downsample for size, downsample in sizes if size in shared]
    return downsamples, file_mpp(reader.properties), objective_power(reader.properties)


def _same_pixels(ours: TiffReader, theirs: OpenSlideReader, number: int, tile: int) -> bool:
    level = ours.levels[number]
    if level.size not in theirs.level_dimensions:
        return True
    row, column = divmod(tile, level.columns)
    x, y = (round(at * side * level.downsample) for at, side in zip((column, row), level.tile, strict=True))
    place = theirs.level_dimensions.index(level.size)
    one, other = (_attempt(reader, (x, y), at, level.tile) for reader, at in ((ours, number), (theirs, place)))
    return one is other is None or (one is not None and other is not None and np.array_equal(one, other))


def _attempt(reader: SlideReader, location: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray | None:
    try:
        return on_white(reader.read(location, level, size))
    except TileReadError:
        return None
