"""A small slide of a large file's kind, cut out of it in memory: OpenSlide reads that at next to no cost.

OpenSlide reads the whole index of a file before it shows a tile, and three times over. An excerpt has the file's own
directories at their own places, byte for byte, but for two things: width and height of each level are divided by one
number, and the tables of stored tiles are as short as that makes them. They name one tile everywhere, the one that is
compared of its coding. So names, scale and coding are the file's, and so is the tile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from wsi_attention.geometry import Size
from wsi_attention.slide.readers.tiff.coding import Coding
from wsi_attention.slide.readers.tiff.index import TiffLevel
from wsi_attention.slide.readers.tiff.kinds import samples
from wsi_attention.slide.readers.tiff.tag_sizes import NUMBERS, Directory, Tag, directories

LEAST = 64
"""Pixels that a side of each level keeps at least; those that a tile is compared of keep a whole tile."""
WIDTH, LENGTH, OFFSETS, COUNTS = 256, 257, 324, 325
"""Tags: size of an image, and where its stored tiles lie and how many bytes they have."""


class NoExcerptError(Exception):
    """No excerpt can be made of a file."""


@contextmanager
def excerpt(path: str, levels: Sequence[TiffLevel]) -> Iterator[str]:
    """Make the excerpt of a local file in memory; it is there as long as the context.

    Args:
        path: of the file.
        levels: all that it has in tiles, finest first.

    Yields:
        The path under which the excerpt can be opened.

    Raises:
        NoExcerptError: the system has no files in memory; the levels cannot be made smaller, or others are stored in
            tiles too.
        SlideOpenError: a directory lies past the end of the file.
        OSError: the file cannot be read.
    """
    if not (hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir()):
        raise NoExcerptError("no files in memory")
    divisor = _divisor(levels)
    memory = os.memfd_create("excerpt", os.MFD_CLOEXEC)
    try:
        with Path(path).open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            os.ftruncate(memory, size)
            _copy(file, memory, 0, 16)
            left, tiles = {level.size: level for level in levels}, _tiles(levels)
            for tile in tiles.values():
                _copy(file, memory, *tile)
            for directory in directories(cast(BinaryIO, file), size, path):
                _copy_directory(file, memory, directory, left, tiles, divisor)
        yield f"/proc/self/fd/{memory}"
    finally:
        os.close(memory)


def _divisor(levels: Sequence[TiffLevel]) -> int:
    """Return by how much the levels are made smaller."""
    compared = [levels[number] for number, _ in samples(levels)]
    sides = [side // LEAST for level in levels for side in level.size]
    sides += [side // tile for level in compared for side, tile in zip(level.size, level.tile, strict=True)]
    if min(sides) < 2 or len({level.size for level in levels}) < len(levels):
        raise NoExcerptError("too small")
    return min(sides)


class Stored(NamedTuple):
    """Where a stored tile lies, and how many bytes it has."""

    offset: int
    length: int


def _tiles(levels: Sequence[TiffLevel]) -> dict[tuple[Coding, Size], Stored]:
    """Return the tile that stands for all of its coding and size: the one that is compared."""
    picked = [(levels[number], tile) for number, tile in samples(levels)]
    return {
        (level.coding, level.tile): Stored(int(level.offsets[tile]), int(level.counts[tile])) for level, tile in picked
    }


def _copy(file: RawIOBase, memory: int, at: int, count: int) -> None:
    file.seek(at)
    os.pwrite(memory, file.read(count) or b"", at)


def _copy_directory(
    file: RawIOBase,
    memory: int,
    found: Directory,
    left: dict[Size, TiffLevel],
    tiles: dict[tuple[Coding, Size], Stored],
    divisor: int,
) -> None:
    """Copy a directory with its values; one that has tiles becomes the smaller level, and leaves those still left."""
    form, tags = found.form, {tag.code: tag for tag in found.tags}
    _copy(file, memory, found.at, form.head + len(found.tags) * form.tag + form.wide)
    for tag in found.tags:
        if tag.bytes > form.wide and tag.code not in (OFFSETS, COUNTS):
            _copy(file, memory, tag.at, tag.bytes)
    if not tags.keys() & {OFFSETS, COUNTS}:
        return
    if not tags.keys() >= {WIDTH, LENGTH, OFFSETS, COUNTS}:
        raise NoExcerptError("tiles without a table")
    level = left.pop((_value(file, found, tags[WIDTH]), _value(file, found, tags[LENGTH])), None)
    tile = None if level is None else tiles.get((level.coding, level.tile))
    if level is None or tile is None:
        raise NoExcerptError("tiles that are no level of the slide, or none of which can be read")
    size = level.size[0] // divisor, level.size[1] // divisor
    number = -(-size[0] // level.tile[0]) * -(-size[1] // level.tile[1])
    for code, value, times in (
        (WIDTH, size[0], 1),
        (LENGTH, size[1], 1),
        (OFFSETS, tile.offset, number),
        (COUNTS, tile.length, number),
    ):
        _put(memory, found, code, [value] * times)


def _value(file: RawIOBase, found: Directory, tag: Tag) -> int:
    """Return the one number of a tag."""
    file.seek(tag.at)
    content = file.read(tag.bytes) or b""
    kind = _numbers(found, tag)
    return int(np.frombuffer(content, kind)[0]) if len(content) == kind.itemsize else 0


def _put(memory: int, found: Directory, code: int, values: list[int]) -> None:
    """Write the values of a tag, no more than it had, to where they were; few of them into the directory itself."""
    form = found.form
    place, tag = next((place, tag) for place, tag in enumerate(found.tags) if tag.code == code)
    entry = found.at + form.head + place * form.tag
    content = np.array(values, _numbers(found, tag)).tobytes()
    if len(values) > tag.number:
        raise NoExcerptError("a table shorter than its tiles")
    os.pwrite(memory, np.array([len(values)], f"{form.order}u{form.wide}").tobytes(), entry + 4)
    os.pwrite(memory, content, entry + 4 + form.wide if len(content) <= form.wide else tag.at)


def _numbers(found: Directory, tag: Tag) -> np.dtype[np.unsignedinteger]:
    if tag.kind not in NUMBERS:
        raise NoExcerptError("numbers of another type")
    return np.dtype(found.form.order + NUMBERS[tag.kind])
