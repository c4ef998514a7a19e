"""A remote file as a seekable binary file: fetched in blocks, ahead of whoever reads on."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from wsi_attention.slide.readers.bytes import Range

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK = 2**12
"""Bytes of a block: directories of a TIFF lie far apart and have one or two thousand."""
MOST_AHEAD = 2**19
"""Bytes fetched at once, at most, beyond what is asked for."""
FASTER = 4
"""How many times more is fetched ahead each time that reading goes on."""


def blocks_of(head: bytes, size: int) -> dict[Range, bytes]:
    """Return the first bytes of a file of some size as the blocks in which `RemoteFile` reads, as far as these go."""
    whole = len(head) // BLOCK if len(head) < size else -(-size // BLOCK)
    ranges = [_block(number, size) for number in range(whole)]
    return {(offset, count): head[offset : offset + count] for offset, count in ranges}


def _block(number: int, size: int) -> Range:
    return number * BLOCK, min(BLOCK, size - number * BLOCK)


class RemoteFile(io.RawIOBase):
    """Reads whole blocks; sequential reading fetches more and more ahead.

    Args:
        recent: returns those of some ranges that are at hand.
        fetch: returns the bytes of ranges, which are then at hand.
        size: of the whole.
    """

    def __init__(
        self,
        recent: Callable[[Sequence[Range]], dict[Range, bytes]],
        fetch: Callable[[Sequence[Range]], list[bytes]],
        size: int,
    ) -> None:
        super().__init__()
        self._recent, self._fetch, self._size, self._at = recent, fetch, size, 0
        self._ahead, self._end = 0, -1

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the file."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position; read nothing."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"cannot seek to {start + offset}")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer as far as the file goes.

        Raises:
            TileReadError: the bytes cannot be fetched.
        """
        view = memoryview(buffer).cast("B")
        count = min(len(view), max(self._size - self._at, 0))
        if count:
            view[:count] = self._bytes(self._at, count)
        self._at += count
        return count

    def _bytes(self, offset: int, count: int) -> bytes:
        first, last = offset // BLOCK, (offset + count - 1) // BLOCK
        wanted = [_block(number, self._size) for number in range(first, last + 1)]
        found = self._recent(wanted)
        missing = [each for each in wanted if each not in found]
        if missing:
            found |= self._fetched(missing)
        joined = b"".join(found[each] for each in wanted)
        return joined[offset - first * BLOCK : offset - first * BLOCK + count]

    def _fetched(self, missing: list[Range]) -> dict[Range, bytes]:
        """Fetch missing blocks, and some after them where the last fetch ended just before.

        Elsewhere one block comes with the one after it: what begins in it, such as a directory, often ends there.
        """
        first, end = missing[0][0] // BLOCK, missing[-1][0] // BLOCK + 1
        on = first == self._end
        self._ahead = min(max(FASTER * self._ahead, 1), MOST_AHEAD // BLOCK) if on else int(len(missing) == 1)
        self._end = end + self._ahead
        following = [_block(number, self._size) for number in range(end, min(self._end, -(-self._size // BLOCK)))]
        there = self._recent(following)
        wanted = [*missing, *(each for each in following if each not in there)]
        return dict(zip(wanted, self._fetch(wanted), strict=True))
