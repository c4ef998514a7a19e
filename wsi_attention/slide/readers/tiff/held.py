"""Large tables of a TIFF that were read while its tags were checked, so that its index is not read twice."""

from __future__ import annotations

import io
from bisect import bisect_right
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LEAST, MOST = 2**12, 2**23
"""Bytes that a part must have to be held, and that all parts of a file may have; a slide of 100,000² has 3 million."""
FILES = 4
"""Files of which parts are held at once: as many as are opened side by side."""

State = tuple[str, int, int]
"""Path, size and time of the last change."""


class Held:
    """Parts of one file."""

    def __init__(self) -> None:
        self._parts: dict[int, bytes] = {}
        self._starts: list[int] = []
        self._bytes = 0

    def put(self, offset: int, content: bytes) -> None:
        """Hold bytes that were read at an offset, if they are enough to matter and there is room for them."""
        if len(content) >= LEAST and self._bytes + len(content) <= MOST and offset not in self._parts:
            self._parts[offset] = content
            self._starts = sorted(self._parts)
            self._bytes += len(content)

    def get(self, offset: int, count: int) -> bytes:
        """Return bytes from an offset on, up to `count`, as far as one part goes; none where no part holds it."""
        number = bisect_right(self._starts, offset) - 1
        if number < 0:
            return b""
        start = self._starts[number]
        return self._parts[start][offset - start : offset - start + count]


_held: dict[State, Held] = {}


def noted(state: State, held: Held) -> None:
    """Keep parts of a file for whoever reads it next; those of files that nobody read leave."""
    _held[state] = held
    while len(_held) > FILES:
        _held.pop(next(iter(_held)), None)


def taken(state: State) -> Held:
    """Return the parts that are held of a file, and hold them no longer."""
    return _held.pop(state, None) or Held()


class Noting(io.RawIOBase):
    """A binary file whose larger reads are held.

    Args:
        file: is read, and closed by the caller.
        held: takes them.
    """

    def __init__(self, file: BinaryIO, held: Held) -> None:
        super().__init__()
        self._file, self._held = file, held

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position."""
        return self._file.seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes."""
        at = self._file.tell()
        content = self._file.read(-1 if size is None else size)
        self._held.put(at, content)
        return content


class Backed(io.RawIOBase):
    """A binary file that reads held parts from memory; closing it closes the file."""

    def __init__(self, file: BinaryIO, held: Held) -> None:
        super().__init__()
        self._file, self._held = file, held

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the file."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position."""
        return self._file.seek(offset, whence)

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer as far as the file goes."""
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view):
            at = self._file.tell()
            if content := self._held.get(at, len(view) - done):
                view[done : done + len(content)] = content
                self._file.seek(at + len(content))
            else:
                content = self._file.read(len(view) - done)
                view[done : done + len(content)] = content
                if not content:
                    break
            done += len(content)
        return done

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
