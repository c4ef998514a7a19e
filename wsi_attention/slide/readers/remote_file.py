"""A remote file as a seekable binary file: fetched in blocks, ahead of whoever reads on."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

from wsi_attention.slide.readers.byte_ranges import Range

BLOCK = 2**16
KEPT = 2**25
"""Bytes of blocks that are kept; the index of a slide of 100,000² pixels has 3 MB."""
MOST_AHEAD = 2**18
"""Bytes fetched at once, at most, beyond what is asked for."""


class RemoteFile(io.RawIOBase):
    """Reads whole blocks and keeps them. Who reads on from where the last blocks ended gets more and more ahead.

    Args:
        fetch: gives the bytes of ranges.
        size: of the whole.
        head: first bytes that are there already.
    """

    def __init__(self, fetch: Callable[[Sequence[Range]], list[bytes]], size: int, head: bytes = b"") -> None:
        super().__init__()
        self._fetch, self._size, self._at = fetch, size, 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._ahead, self._end = 0, -1
        self._lock = Lock()
        for number in range(len(head) // BLOCK if len(head) < size else -(-size // BLOCK)):
            self._blocks[number] = head[number * BLOCK : (number + 1) * BLOCK]

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves the position; reads nothing."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"cannot seek to {start + offset}")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer as far as the file goes.

        Raises:
            TileReadError: the bytes cannot be fetched.
        """
        view = memoryview(buffer).cast("B")
        with self._lock:
            count = min(len(view), max(self._size - self._at, 0))
            if count:
                view[:count] = self._bytes(self._at, count)
            self._at += count
        return count

    def _bytes(self, offset: int, count: int) -> bytes:
        first, last = offset // BLOCK, (offset + count - 1) // BLOCK
        missing = [number for number in range(first, last + 1) if number not in self._blocks]
        found = {number: self._blocks[number] for number in range(first, last + 1) if number in self._blocks}
        if missing:
            found |= self._fetched(missing)
        for number, content in found.items():
            self._blocks[number] = content
            self._blocks.move_to_end(number)
        while len(self._blocks) > KEPT // BLOCK:
            self._blocks.popitem(last=False)
        joined = b"".join(found[number] for number in range(first, last + 1))
        return joined[offset - first * BLOCK : offset - first * BLOCK + count]

    def _fetched(self, missing: list[int]) -> dict[int, bytes]:
        """Missing blocks, and some after them where the last fetch ended just before."""
        self._ahead = min(max(2 * self._ahead, 1), MOST_AHEAD // BLOCK) if missing[0] == self._end else 0
        self._end = missing[-1] + 1 + self._ahead
        last = -(-self._size // BLOCK)
        more = [number for number in range(missing[-1] + 1, min(self._end, last)) if number not in self._blocks]
        wanted = [*missing, *more]
        ranges = [(number * BLOCK, min(BLOCK, self._size - number * BLOCK)) for number in wanted]
        return dict(zip(wanted, self._fetch(ranges), strict=True))
