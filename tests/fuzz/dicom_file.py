"""DICOM whole-slide instances of JPEG tiles, element by element, so that each element can be made wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_attention.testing.slide_levels import EncodedLevel, encoded

Pixels = NDArray[np.uint8]
Tag = tuple[int, int]

UID = "1.2.826.0.1.3680043.8.498"
JPEG = "1.2.840.10008.1.2.4.50"
SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
LONG = ("OB", "OW", "SQ", "UT", "UN")
"""Value representations whose length has 32 bits."""


@dataclass
class Element:
    """One element; `length` is written in place of the true length where it is given."""

    tag: Tag
    vr: str
    value: bytes
    length: int | None = None

    def encoded(self) -> bytes:
        """The element as bytes of Explicit VR Little Endian."""
        length = len(self.value) if self.length is None else self.length
        head = struct.pack("<HH", *self.tag) + self.vr.encode()
        if self.vr in LONG:
            return head + b"\0\0" + struct.pack("<I", length & 0xFFFFFFFF) + self.value
        return head + struct.pack("<H", length & 0xFFFF) + self.value


@dataclass
class Instance:
    """One level: its elements but for the pixels, its frames, and the offset table that is written for them.

    Attributes:
        elements: tag -> element, in the order of writing.
        frames: JPEG streams.
        offsets: the basic offset table; None for the true one.
        cut: bytes left out at the end of the file.
        syntax: UID of the transfer syntax.
    """

    elements: dict[Tag, Element]
    frames: list[bytes]
    offsets: list[int] | None = None
    cut: int = 0
    syntax: str = JPEG
    preamble: bytes = field(default=bytes(128) + b"DICM")

    def put(self, tag: Tag, vr: str, value: bytes) -> None:
        """Set an element."""
        self.elements[tag] = Element(tag, vr, value)

    def encoded(self) -> bytes:
        """The whole file."""
        meta = [
            Element((2, 1), "OB", b"\0\1"),
            Element((2, 2), "UI", uid(SLIDE)),
            Element((2, 3), "UI", self.elements[0x8, 0x18].value if (0x8, 0x18) in self.elements else uid(UID)),
            Element((2, 0x10), "UI", uid(self.syntax)),
            Element((2, 0x12), "UI", uid(f"{UID}.1")),
        ]
        described = b"".join(element.encoded() for element in meta)
        group = Element((2, 0), "UL", struct.pack("<I", len(described))).encoded()
        body = b"".join(self.elements[tag].encoded() for tag in sorted(self.elements))
        whole = self.preamble + group + described + body + self._pixels()
        return whole[: len(whole) - self.cut]

    def _pixels(self) -> bytes:
        items, true, at = [], [], 0
        for frame in self.frames:
            padded = frame + b"\0" * (len(frame) % 2)
            true.append(at)
            items.append(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(padded)) + padded)
            at += len(items[-1])
        table = struct.pack(f"<{len(true)}I", *(v & 0xFFFFFFFF for v in (self.offsets or true)[: len(true)]))
        head = struct.pack("<HH", 0x7FE0, 0x10) + b"OB\0\0" + b"\xff\xff\xff\xff"
        first = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(table)) + table
        return head + first + b"".join(items) + b"\xfe\xff\xdd\xe0\0\0\0\0"


def uid(text: str) -> bytes:
    """A UID, padded to an even length."""
    return text.encode() + b"\0" * (len(text) % 2)


def words(text: str) -> bytes:
    """A text, padded to an even length."""
    return text.encode() + b" " * (len(text) % 2)


def short(*numbers: int) -> bytes:
    """16-bit numbers."""
    return struct.pack(f"<{len(numbers)}H", *(number & 0xFFFF for number in numbers))


def long(*numbers: int) -> bytes:
    """32-bit numbers."""
    return struct.pack(f"<{len(numbers)}I", *(number & 0xFFFFFFFF for number in numbers))


def sequence(*items: Sequence[Element]) -> bytes:
    """A sequence's value: items of elements."""
    bodies = [b"".join(element.encoded() for element in item) for item in items]
    return b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(body)) + body for body in bodies)


def measures(spacing: str) -> bytes:
    """The value of the shared functional groups: the distance of pixels in mm, "row\\column"."""
    inner = sequence([Element((0x18, 0x50), "DS", words("0.004")), Element((0x28, 0x30), "DS", words(spacing))])
    return sequence([Element((0x28, 0x9110), "SQ", inner)])


def instances(levels: Sequence[Pixels], mpp: float, series: str = f"{UID}.10") -> list[Instance]:
    """The levels of one series, finest first."""
    made = []
    for index, level in enumerate(encoded(list(levels), 90)):
        kind = "ORIGINAL\\PRIMARY\\VOLUME\\NONE" if index == 0 else "DERIVED\\PRIMARY\\VOLUME\\RESAMPLED"
        made.append(_instance(level, mpp * levels[0].shape[1] / level.size[0], kind, series, index))
    return made


def _instance(level: EncodedLevel, mpp: float, kind: str, series: str, index: int) -> Instance:
    frames, (width, height) = list(level.tiles), level.size
    made = Instance({}, frames)
    for tag, vr, value in (
        ((0x8, 0x8), "CS", words(kind)),
        ((0x8, 0x16), "UI", uid(SLIDE)),
        ((0x8, 0x18), "UI", uid(f"{series}.{index + 1}")),
        ((0x8, 0x60), "CS", b"SM"),
        ((0x20, 0xD), "UI", uid(f"{UID}.2")),
        ((0x20, 0xE), "UI", uid(series)),
        ((0x20, 0x13), "IS", words(str(index + 1))),
        ((0x20, 0x52), "UI", uid(f"{UID}.3")),
        ((0x20, 0x9311), "CS", words("TILED_FULL")),
        ((0x28, 0x2), "US", short(3)),
        ((0x28, 0x4), "CS", words("YBR_FULL_422")),
        ((0x28, 0x6), "US", short(0)),
        ((0x28, 0x8), "IS", words(str(len(frames)))),
        ((0x28, 0x10), "US", short(256)),
        ((0x28, 0x11), "US", short(256)),
        ((0x28, 0x100), "US", short(8)),
        ((0x28, 0x101), "US", short(8)),
        ((0x28, 0x102), "US", short(7)),
        ((0x28, 0x103), "US", short(0)),
        ((0x28, 0x2110), "CS", b"01"),
        ((0x48, 0x1), "FL", struct.pack("<f", width * mpp / 1e3)),
        ((0x48, 0x2), "FL", struct.pack("<f", height * mpp / 1e3)),
        ((0x48, 0x6), "UL", long(width)),
        ((0x48, 0x7), "UL", long(height)),
        ((0x48, 0x302), "UL", long(1)),
        ((0x48, 0x303), "UL", long(1)),
        ((0x5200, 0x9229), "SQ", measures(f"{mpp / 1e3:.7g}\\{mpp / 1e3:.7g}")),
    ):
        made.put(tag, vr, value)
    return made


def write_series(folder: Path, levels: Sequence[Pixels], mpp: float) -> None:
    """Write the levels as one series, a file each, into a folder."""
    folder.mkdir(parents=True)
    for index, one in enumerate(instances(levels, mpp)):
        (folder / f"level_{index}.dcm").write_bytes(one.encoded())
