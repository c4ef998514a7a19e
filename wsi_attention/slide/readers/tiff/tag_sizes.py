"""How large a TIFF's tags are and how far they point, checked before any library loads them. No pixels."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import SlideOpenError
from wsi_attention.slide.readers.bytes import as_asked
from wsi_attention.slide.readers.tiff.held import Held, Noting, noted

LARGEST = 2**25
"""Bytes of a tag: a description with pictures in it has some millions."""
LARGEST_TABLE = 2**28
"""Bytes of a table of tile offsets or byte counts: 16 million tiles."""
TABLES = {273: 279, 324: 325}
"""Offsets of strips and tiles, and the byte counts that belong to them."""
SUB_DIRECTORIES = 330
PRIVATE = 2**15
"""From here on tags belong to vendors and extensions: pixels are found, and mean the same, without them."""
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
NUMBERS = {3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
"""Types of tags that hold places and counts."""
MOST, MOST_TAGS = 1000, 4096
"""Directories that are looked at, and tags that one may have."""
AT_ONCE = 2**17
"""Entries of a table that are held at once."""
TRUNCATED = "the file is truncated (an interrupted download?); copy it again"


class Form(NamedTuple):
    """A TIFF's byte order and how wide its numbers are."""

    order: str
    offset: str
    number: str
    tag: int

    @property
    def wide(self) -> int:
        """Bytes of an offset."""
        return struct.calcsize(self.order + self.offset)

    @property
    def head(self) -> int:
        """Bytes of the number of tags, with which a directory begins."""
        return struct.calcsize(self.order + self.number)


class Tag(NamedTuple):
    """A tag: its code, type and number of values, and where they begin."""

    code: int
    kind: int
    number: int
    at: int

    @property
    def bytes(self) -> int:
        """Bytes of its values."""
        return self.number * SIZES.get(self.kind, 1)


class Directory(NamedTuple):
    """A directory: the form of its file, where it begins, and its tags in their order."""

    form: Form
    at: int
    tags: list[Tag]


def notes_on_file(path: str) -> tuple[str, ...]:
    """Return what a reader should know of how far a local file's tags point; nothing for what is no TIFF.

    Raises:
        SlideOpenError: a tag is larger than any slide's; or a directory, or a tag that pixels depend on, lies past the
            end of the file.
        OSError: the file cannot be read.
    """
    if not Path(path).is_file():
        return ()
    state = Path(path).stat()
    return _looked(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1024)
def _looked(path: str, size: int, changed: int) -> tuple[str, ...]:
    """Look once at each state of a file: it is opened several times, and its tables may be large."""
    held = Held()
    with Path(path).open("rb", buffering=2**12) as stream:
        as_asked(stream.fileno())
        notes = notes_on_tags(cast(BinaryIO, Noting(stream, held)), size, path)
    noted((path, size, changed), held)
    return notes


def notes_on_tags(stream: BinaryIO, size: int, path: str) -> tuple[str, ...]:
    """Return the notes of `notes_on_file`, for an open file of so many bytes."""
    reach = max([0, *(_reach(stream, one.form, one.tags, size, path) for one in directories(stream, size, path))])
    if reach <= size:
        return ()
    return (f"the file ends at byte {size}, and its tags point as far as byte {reach}: {TRUNCATED}",)


def directories(stream: BinaryIO, size: int, path: str) -> Iterator[Directory]:
    """Yield the directories of an open file of so many bytes, those below others too; none of what is no usual TIFF.

    Raises:
        SlideOpenError: a directory lies past the end of the file.
    """
    stream.seek(0)
    form, first = _form(stream.read(16))
    if form is None or (form.offset == "I" and size >= 2**32):  # whose offsets are continued in a scanner's own way
        return
    waiting, seen = [first], set[int]()
    while waiting and len(seen) < MOST:
        at = waiting.pop()
        if at in seen or at == 0:
            continue
        seen.add(at)
        tags, following = _directory(stream, form, at, size, path)
        yield Directory(form, at, tags)
        waiting += [following, *_below(stream, form, tags)]


def _form(head: bytes) -> tuple[Form | None, int]:
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 16:
        return None, 0
    version = struct.unpack(f"{order}H", head[2:4])[0]
    if version == 42:
        return Form(order, "I", "H", 12), struct.unpack(f"{order}I", head[4:8])[0]
    if version == 43:
        return Form(order, "Q", "Q", 20), struct.unpack(f"{order}Q", head[8:16])[0]
    return None, 0


def _directory(stream: BinaryIO, form: Form, at: int, size: int, path: str) -> tuple[list[Tag], int]:
    """Return the tags of a directory, and the place of the next one, 0 where there is none."""
    width = form.head
    head = _at(stream, at, width, size)
    number = struct.unpack(form.order + form.number, head)[0] if len(head) == width else 0
    if number > MOST_TAGS:  # no directory
        return [], 0
    content = _at(stream, at + width, number * form.tag + form.wide, size)
    if len(head) < width or len(content) < number * form.tag:
        raise SlideOpenError(f"{path}: a TIFF directory lies past the end of the file ({size} bytes): {TRUNCATED}")
    tags = []
    for start in range(0, number * form.tag, form.tag):
        code, kind, count = struct.unpack_from(f"{form.order}HH{form.offset}", content, start)
        inline = start + 4 + form.wide
        short = count * SIZES.get(kind, 1) <= form.wide
        place = at + width + inline if short else struct.unpack_from(form.order + form.offset, content, inline)[0]
        tags.append(Tag(code, kind, count, place))
    rest = content[number * form.tag :]
    return tags, struct.unpack(form.order + form.offset, rest)[0] if len(rest) == form.wide else 0


def _at(stream: BinaryIO, at: int, count: int, size: int) -> bytes:
    if at >= size:
        return b""
    stream.seek(at)
    return stream.read(min(count, size - at))


def _reach(stream: BinaryIO, form: Form, tags: list[Tag], size: int, path: str) -> int:
    """Return the end of the last byte that the tags of a directory point to.

    Raises:
        SlideOpenError: a tag is too large, or lies past the end.
    """
    reach = 0
    for tag in tags:
        if tag.bytes > (LARGEST_TABLE if tag.code in {*TABLES, *TABLES.values()} else LARGEST):
            raise SlideOpenError(
                f"{path}: TIFF tag {tag.code} claims {tag.bytes} bytes, more than any slide's; the file is damaged"
            )
        if tag.code < PRIVATE and tag.at + tag.bytes > size:
            raise SlideOpenError(
                f"{path}: TIFF tag {tag.code} lies past the end of the file ({size} bytes): {TRUNCATED}"
            )
        reach = max(reach, tag.at + tag.bytes)
    by_code = {tag.code: tag for tag in tags}
    for offsets, counts in TABLES.items():
        if offsets in by_code and counts in by_code:
            pairs = zip(_blocks(stream, form, by_code[offsets]), _blocks(stream, form, by_code[counts]), strict=False)
            reach = max([reach, *(_end(*pair) for pair in pairs)])
    return reach


def _end(offsets: NDArray[np.int64], counts: NDArray[np.int64]) -> int:
    """Return the end of the last stored tile; tiles of no bytes or at no place are not stored."""
    n = min(len(offsets), len(counts))
    there = (offsets[:n] > 0) & (counts[:n] > 0)
    return int((offsets[:n] + counts[:n])[there].max(initial=0))


def _blocks(stream: BinaryIO, form: Form, tag: Tag) -> Iterator[NDArray[np.int64]]:
    """Yield the numbers that a tag holds, block by block."""
    if tag.kind not in NUMBERS:
        return
    dtype = np.dtype(form.order + NUMBERS[tag.kind])
    for first in range(0, tag.number, AT_ONCE):
        stream.seek(tag.at + first * dtype.itemsize)
        content = stream.read(min(AT_ONCE, tag.number - first) * dtype.itemsize)
        numbers = np.frombuffer(content[: len(content) // dtype.itemsize * dtype.itemsize], dtype)
        yield np.minimum(numbers.astype(np.uint64), 2**62 - 1).astype(np.int64)


def _below(stream: BinaryIO, form: Form, tags: list[Tag]) -> list[int]:
    """Return the places of the directories below one."""
    found = [tag._replace(number=min(tag.number, MOST)) for tag in tags if tag.code == SUB_DIRECTORIES]
    return [at for tag in found for block in _blocks(stream, form, tag) for at in block.tolist()]
