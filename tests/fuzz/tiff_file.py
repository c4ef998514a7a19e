"""A TIFF as bytes that can be changed in place: directories, entries, values."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of one value of each type."""

WHOLE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, DESCRIPTION = 256, 257, 258, 259, 262, 270
STRIP_OFFSETS, SAMPLES, ROWS, STRIP_COUNTS, X_RESOLUTION, Y_RESOLUTION = 273, 277, 278, 279, 282, 283
PLANAR, UNIT, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, OFFSETS, COUNTS = 284, 296, 317, 322, 323, 324, 325
SUBIFDS, TABLES, SUBSAMPLING, SUBFILE = 330, 347, 530, 254


@dataclass(frozen=True)
class Entry:
    """One entry: where it stands, and where its values are."""

    at: int
    tag: int
    type: int
    count: int
    values_at: int


@dataclass(frozen=True)
class Directory:
    """One directory: where it stands, its entries, and where the pointer to the next one is."""

    at: int
    entries: tuple[Entry, ...]
    next_at: int

    def entry(self, tag: int) -> Entry | None:
        """The entry of a tag."""
        return next((entry for entry in self.entries if entry.tag == tag), None)


class TiffBytes:
    """The bytes of a sound TIFF, and what stands where in them.

    Attributes:
        data: the bytes; whoever changes them keeps what is asked next in mind.
        directories: of the main chain and of sub-directories, as they were at first.
    """

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.order = "<" if data[:2] == b"II" else ">"
        self.big = self.number(2, "H") == 43
        self.word = "Q" if self.big else "I"
        self.directories = tuple(self._walk(self.number(8 if self.big else 4, self.word)))

    def number(self, at: int, code: str) -> int:
        """A whole number at a place."""
        return int(struct.unpack_from(self.order + code, self.data, at)[0])

    def put(self, at: int, code: str, value: int) -> None:
        """Write a whole number at a place, cut to its size."""
        size = struct.calcsize(code)
        struct.pack_into(self.order + code, self.data, at, value & ((1 << 8 * size) - 1))

    def values(self, entry: Entry) -> list[int]:
        """The whole numbers of an entry."""
        code = WHOLE[entry.type]
        return [self.number(entry.values_at + i * SIZES[entry.type], code) for i in range(entry.count)]

    def put_value(self, entry: Entry, value: int, index: int = 0) -> None:
        """Write one of an entry's whole numbers."""
        self.put(entry.values_at + index * SIZES[entry.type], WHOLE[entry.type], value)

    def put_type(self, entry: Entry, value: int) -> None:
        """Write an entry's type."""
        self.put(entry.at + 2, "H", value)

    def put_count(self, entry: Entry, value: int) -> None:
        """Write an entry's number of values."""
        self.put(entry.at + 4, self.word, value)

    def put_tag(self, entry: Entry, value: int) -> None:
        """Write an entry's tag."""
        self.put(entry.at, "H", value)

    def put_pointer(self, entry: Entry, value: int) -> None:
        """Write where an entry's values are."""
        self.put(entry.at + (12 if self.big else 8), self.word, value)

    def text(self, entry: Entry) -> bytes:
        """The bytes of an entry's values."""
        return bytes(self.data[entry.values_at : entry.values_at + entry.count * SIZES[entry.type]])

    def replace_text(self, entry: Entry, text: bytes) -> None:
        """Give a text entry another text, kept at the end of the file."""
        if entry.count and len(text) <= entry.count:
            self.data[entry.values_at : entry.values_at + entry.count] = text.ljust(entry.count, b"\0")
            return
        self.data += b"\0" * (len(self.data) % 2)
        self.put_pointer(entry, len(self.data))
        self.put_count(entry, len(text) + 1)
        self.data += text + b"\0"

    def pyramid(self) -> list[Directory]:
        """The tiled directories, finest first."""
        tiled = [one for one in self.directories if one.entry(OFFSETS)]
        return sorted(tiled, key=lambda one: -self.value(one, WIDTH))

    def value(self, directory: Directory, tag: int) -> int:
        """The first whole number of a tag; 0 where it is not there."""
        entry = directory.entry(tag)
        return self.values(entry)[0] if entry else 0

    def _walk(self, at: int) -> Iterator[Directory]:
        seen: set[int] = set()
        todo = [at]
        while todo:
            at = todo.pop(0)
            if at == 0 or at in seen:
                continue
            seen.add(at)
            directory = self._directory(at)
            yield directory
            sub = directory.entry(SUBIFDS)
            todo += [*(self.values(sub) if sub else []), self.number(directory.next_at, self.word)]

    def _directory(self, at: int) -> Directory:
        count = self.number(at, "Q" if self.big else "H")
        start, size = (at + 8, 20) if self.big else (at + 2, 12)
        entries = tuple(self._entry(start + i * size) for i in range(count))
        return Directory(at, entries, start + count * size)

    def _entry(self, at: int) -> Entry:
        kind, count = self.number(at + 2, "H"), self.number(at + 4, self.word)
        place, room = (at + 12, 8) if self.big else (at + 8, 4)
        inside = SIZES.get(kind, 1) * count <= room
        return Entry(at, self.number(at, "H"), kind, count, place if inside else self.number(place, self.word))
