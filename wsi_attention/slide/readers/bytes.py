"""Bytes of a local file by position, neighbouring ranges in one read."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from wsi_attention.errors import SlideError, TileReadError

GAP = 2**12
"""Bytes between two ranges that are read with them: a page, which a disk delivers anyway."""
LARGEST = 2**22
"""Bytes that are read at once, at most, unless a single range is larger."""


class ByteRanges(Protocol):
    """The bytes of one file. Thread-safe, and without a cache that the caller does not see.

    Attributes:
        path: the file or URL, as messages name it.
        size: bytes in all.
    """

    path: str
    size: int

    def read(self, ranges: Sequence[Range]) -> list[bytes]:
        """Return the bytes of each range, in the order given; callers ask in the order of the offsets.

        Raises:
            TileReadError: a range reaches past the end, or the file could not be read.
            SlideError: it was closed.
        """
        ...

    def file(self) -> BinaryIO:
        """Open the whole as a seekable binary file, for reading the index; the caller closes it."""
        ...

    def close(self) -> None:
        """Close the file; closing twice is no error."""
        ...


def as_asked(descriptor: int) -> None:
    """Tell the system to fetch what is asked of a file and nothing around it: the next tile lies elsewhere."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)


class LocalBytes:
    """A local file, read by position through one descriptor: no seek, so no lock."""

    def __init__(self, path: str) -> None:
        """Open the file.

        Raises:
            OSError: it is not there, or may not be read.
        """
        self.path = path
        self._descriptor: int | None = None
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.size = os.fstat(self._descriptor).st_size
        as_asked(self._descriptor)

    def read(self, ranges: Sequence[Range]) -> list[bytes]:
        """Return the bytes of each range, in the order given."""
        descriptor = self._descriptor
        if descriptor is None:
            raise SlideError(f"{self.path}: the file was closed; open it again")
        wanted = sorted({each for each in ranges if each[1]})
        spans = list(merged(wanted, GAP, LARGEST)) if wanted else []
        try:
            contents = [_at(descriptor, self.path, count, offset) for offset, count in spans]
        except (OSError, OverflowError, ValueError) as error:
            raise TileReadError(f"{self.path}: cannot read its bytes: {error}") from error
        found = dict(zip(wanted, cut_out(spans, contents, wanted), strict=True))
        for (offset, count), content in found.items():
            if len(content) != count:
                raise TileReadError(
                    f"{self.path}: {count} bytes at {offset} asked, {len(content)} are there; the file is truncated"
                )
        return [found[each] if each[1] else b"" for each in ranges]

    def file(self) -> BinaryIO:
        """Open the whole as a seekable binary file."""
        opened = Path(self.path).open("rb")  # noqa: SIM115  the caller closes it
        as_asked(opened.fileno())
        return opened

    def close(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


if hasattr(os, "pread"):

    def _at(descriptor: int, path: str, count: int, offset: int) -> bytes:
        del path
        return os.pread(descriptor, count, offset)

else:  # Windows has no read by position; a handle of its own keeps threads apart

    def _at(descriptor: int, path: str, count: int, offset: int) -> bytes:
        del descriptor
        with Path(path).open("rb", buffering=0) as file:
            file.seek(offset)
            return file.read(count)


_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_tiff(path: str) -> bool:
    """Tell whether a file begins as TIFF and BigTIFF files do; never raise."""
    try:
        with Path(path).open("rb", buffering=0) as stream:
            as_asked(stream.fileno())
            return stream.read(4) in _TIFF_MAGIC
    except OSError:
        return False


Range = tuple[int, int]
"""(offset, count) in bytes."""


def merged(ranges: Sequence[Range], gap: int, largest: int) -> Iterator[Range]:
    """Join ranges to spans that hold them.

    Args:
        ranges: at least one, sorted.
        gap: ranges that lie at most so many bytes apart are joined …
        largest: … if they stay below so many bytes, or overlap.
    """
    start, end = ranges[0][0], sum(ranges[0])
    for offset, count in ranges[1:]:
        if offset - end <= gap and (max(end, offset + count) - start <= largest or offset < end):
            end = max(end, offset + count)
        else:
            yield start, end - start
            start, end = offset, offset + count
    yield start, end - start


def gap_within(ranges: Sequence[Range], spare: int, most: int) -> int:
    """Return the widest gap, at most `most`, such that all gaps up to it have no more than `spare` bytes together.

    Joining the narrowest gaps first makes the fewest spans for these bytes.

    Args:
        ranges: at least one, sorted.
        spare: bytes between ranges that may be read with them.
        most: the widest gap that may be worth it.
    """
    gaps, end = list[int](), sum(ranges[0])
    for offset, count in ranges[1:]:
        gaps.append(max(offset - end, 0))
        end = max(end, offset + count)
    widest = total = 0
    for gap in sorted(gap for gap in gaps if gap <= most):
        total += gap
        if total > spare:
            return min(widest, gap - 1)
        widest = gap
    return widest


def cut_out(spans: Sequence[Range], contents: Sequence[bytes], ranges: Sequence[Range]) -> list[bytes]:
    """Cut the bytes of each range out of those of the spans."""
    starts = [offset for offset, _ in spans]
    found = []
    for offset, count in ranges:
        number = bisect_right(starts, offset) - 1
        begin = offset - starts[number]
        found.append(contents[number][begin : begin + count])
    return found
