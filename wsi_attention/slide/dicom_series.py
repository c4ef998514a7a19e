"""Which series a DICOM file belongs to, from its first bytes: no library that could crash on a hostile file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MOST = 2**18
"""Bytes that are looked at; the series stands in the first thousands."""
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
IMPLICIT = "1.2.840.10008.1.2"
UNREADABLE = ("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
"""Big-endian and deflated transfer syntaxes, which no scanner writes."""
SYNTAX, KIND, SERIES = (0x0002, 0x0010), (0x0008, 0x0016), (0x0020, 0x000E)
ITEM, ITEM_END, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
"""Value representations whose length has 32 bits."""
UNDEFINED = 0xFFFFFFFF


class _Element(NamedTuple):
    tag: tuple[int, int]
    value: int
    """Where its value begins."""
    length: int


def series_of(path: str) -> str | None:
    """Return the SeriesInstanceUID of a whole-slide instance; None of any other file, or where it cannot be told."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(MOST)
        return _series_in(head)
    except (OSError, struct.error):  # the bytes end within an element
        return None


def _series_in(head: bytes) -> str | None:
    if head[128:132] != b"DICM":
        return None
    texts: dict[tuple[int, int], str] = {}
    for element in _elements(head):
        if element.tag in (SYNTAX, KIND, SERIES):
            texts[element.tag] = _text(head, element)
        if element.tag >= SERIES or texts.get(SYNTAX) in UNREADABLE:
            break
    return (texts.get(SERIES) or None) if texts.get(KIND) == WHOLE_SLIDE else None


def _text(head: bytes, element: _Element) -> str:
    return head[element.value : element.value + min(element.length, 64)].decode("ascii", "replace").strip("\0 ")


def _elements(head: bytes) -> Iterator[_Element]:
    """Yield the elements of the file; leave out those within sequences.

    Raises:
        struct.error: the bytes end.
    """
    at, depth, implicit = 132, 0, False
    while True:
        group = struct.unpack_from("<H", head, at)[0]
        element = _element(head, at, implicit and group != 2)
        if element.tag in (ITEM_END, SEQUENCE_END):
            depth -= 1
        elif depth <= 0 and element.tag != ITEM:
            yield element
            if element.tag == SYNTAX:
                implicit = _text(head, element) == IMPLICIT
        if element.length == UNDEFINED:  # its end is marked by an element of its own
            depth, at = depth + 1, element.value
        else:
            at = element.value + element.length


def _element(head: bytes, at: int, implicit: bool) -> _Element:
    tag = struct.unpack_from("<HH", head, at)
    if implicit or tag[0] == 0xFFFE:
        return _Element(tag, at + 8, struct.unpack_from("<I", head, at + 4)[0])
    if head[at + 4 : at + 6] in LONG:
        return _Element(tag, at + 12, struct.unpack_from("<I", head, at + 8)[0])
    return _Element(tag, at + 8, struct.unpack_from("<H", head, at + 6)[0])
