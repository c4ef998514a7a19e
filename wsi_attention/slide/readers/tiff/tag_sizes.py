"""How large a TIFF's tags are, looked at before any library loads them. No pixels, no values."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from wsi_attention.errors import SlideOpenError
from wsi_attention.slide.readers.byte_ranges import as_asked

LARGEST = 2**25
"""Bytes of a tag: a description with pictures in it has some millions."""
LARGEST_TABLE = 2**28
"""Bytes of a table of tile offsets or byte counts: 16 million tiles."""
TABLES = {273, 279, 324, 325}
"""Offsets and byte counts of strips and tiles."""
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
MOST = 1000
"""Directories that are looked at."""


class _Form(NamedTuple):
    """A TIFF's byte order and how wide its numbers are."""

    order: str
    offset: str
    number: str
    tag: int


def check_tag_sizes(path: str) -> None:
    """Goes by for what is no TIFF, and where the tags are as large as a slide's.

    Raises:
        SlideOpenError: a tag is larger than any slide's.
    """
    with Path(path).open("rb", buffering=2**12) as stream:
        as_asked(stream.fileno())
        form, at = _form(stream.read(16))
        size, seen = os.fstat(stream.fileno()).st_size, set[int]()
        while form is not None and 0 < at < size and at not in seen and len(seen) < MOST:
            seen.add(at)
            at = _check_directory(stream, form, at, path)


def _form(head: bytes) -> tuple[_Form | None, int]:
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 16:
        return None, 0
    version = struct.unpack(f"{order}H", head[2:4])[0]
    if version == 42:
        return _Form(order, "I", "H", 12), struct.unpack(f"{order}I", head[4:8])[0]
    if version == 43:
        return _Form(order, "Q", "Q", 20), struct.unpack(f"{order}Q", head[8:16])[0]
    return None, 0


def _check_directory(stream: BinaryIO, form: _Form, at: int, path: str) -> int:
    """Looks at a directory's tags; the place of the next one, 0 where there is none."""
    stream.seek(at)
    width = struct.calcsize(form.order + form.number)
    head = stream.read(width)
    if len(head) < width:
        return 0
    number = min(struct.unpack(form.order + form.number, head)[0], 4096)
    tags = stream.read(number * form.tag)
    for start in range(0, len(tags) - form.tag + 1, form.tag):
        code, kind, count = struct.unpack(f"{form.order}HH{form.offset}", tags[start : start + 4 + _wide(form)])
        bytes_of_tag = count * SIZES.get(kind, 1)
        if bytes_of_tag > (LARGEST_TABLE if code in TABLES else LARGEST):
            raise SlideOpenError(
                f"{path}: TIFF tag {code} claims {bytes_of_tag} bytes, more than any slide's; the file is damaged"
            )
    following = stream.read(_wide(form))
    return struct.unpack(form.order + form.offset, following)[0] if len(following) == _wide(form) else 0


def _wide(form: _Form) -> int:
    return struct.calcsize(form.order + form.offset)
