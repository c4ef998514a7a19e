"""The kind of a TIFF: all that decides how its tiles are decoded and its tags are read, whatever the slide shows.

Files of one kind come from the same scanner or program; their tiles have one size and one coding, down to the header of
a JPEG or JPEG 2000 stream; their levels follow each other at the same steps, and they have the same tags.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from wsi_attention.slide.readers.tiff.coding import PLAIN, Coding
from wsi_attention.slide.readers.tiff.index import SOUND, TiffLevel
from wsi_attention.slide.readers.tiff.reader import TiffReader

HEADER = 2**11
"""Bytes at the beginning of a tile in which its header is looked for."""
STARTS = {b"\xff\xd8", b"\xff\x4f"}
"""The first marker of JPEG and of JPEG 2000."""
PIXELS = {0xDA, 0x90}
"""The markers after which pixels come: JPEG's start of a scan, JPEG 2000's start of a part of the tile."""
OF_THE_PICTURE = {0xDB, 0xC4, 0xFE, 0x5C, 0x5D, 0x64}
"""Tables of quantisation and Huffman codes, and comments: they follow the picture and its quality."""
TEXTS = ("tiff.Make", "tiff.Model", "tiff.Software", "aperio.ScanScope ID", "tiff.ResolutionUnit")
"""Tags whose text counts: who made the file, and the unit of its scale."""
_DIGITS, _NUMERIC = re.compile(r"[0-9]+"), re.compile(r"[0-9.,eE+\- ]+")


def kind_of(reader: TiffReader) -> Hashable | None:
    """Return what all files of a kind have in common; None where a tile's header is not understood.

    The beginning of one tile of each coding is read.

    Raises:
        TileReadError: the file could not be read.
    """
    headers = tuple(_headers(reader))
    if None in headers:
        return None
    tags = tuple(sorted((name, _form(value)) for name, value in reader.properties.items()))
    texts = tuple(reader.properties.get(name) for name in TEXTS)
    images = len(reader.images), reader.image, reader.first, tuple(sorted(reader.associated))
    return headers, tags, texts, frozenset(_levels(reader.levels)), images


def _levels(levels: tuple[TiffLevel, ...]) -> Iterator[tuple[Coding, tuple[int, int], int]]:
    """Yield the coding and tile of each level, and how many times coarser it is than the one before."""
    before = 1.0
    for level in levels:
        yield level.coding, level.tile, round(level.downsample / before)
        before = level.downsample


def samples(levels: Sequence[TiffLevel]) -> Iterator[tuple[int, int]]:
    """Yield level and number of one tile of each kind of coding: the one with the most bytes, which shows tissue."""
    seen: set[tuple[Coding, tuple[int, int]]] = set()
    for number, level in enumerate(levels):
        kind = level.coding, level.tile
        if kind not in seen and (level.states == SOUND).any():
            seen.add(kind)
            yield number, int(np.argmax(level.counts * (level.states == SOUND)))


def header_of(content: bytes) -> tuple[bytes, ...] | None:
    """Return the segments of a JPEG or JPEG 2000 stream before its pixels, without those that follow the picture.

    Returns:
        Each with its marker; None where this is neither, or where the pixels do not begin in these bytes.
    """
    at, found = 2, [content[:2]]
    if content[:2] not in STARTS:
        return None
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker, end = content[at + 1], at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if marker in PIXELS:
            return (*found, content[at:end] if marker == 0xDA else b"")
        if marker not in OF_THE_PICTURE:
            found.append(content[at:end])
        at = end
    return None


def _headers(reader: TiffReader) -> Iterator[tuple[bytes, ...] | None]:
    for level, tile in samples(reader.levels):
        plain = reader.levels[level].coding.compression in PLAIN
        yield () if plain else header_of(reader.stored_head(level, tile, HEADER))


def _form(value: str) -> str:
    """Return the text of a number with each run of digits as one 0; nothing for other texts."""
    return _DIGITS.sub("0", value) if _NUMERIC.fullmatch(value) else ""
