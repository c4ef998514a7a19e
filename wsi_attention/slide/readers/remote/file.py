"""A remote file as a seekable binary file: fetched in blocks, ahead of whoever reads on."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING

from wsi_attention.slide.readers.bytes import Range

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK = 2**16
KEPT = 2**24
"""Bytes of blocks that are kept; the index of a slide of 100,000² pixels has 3 MB."""
MOST_AHEAD = 2**18
"""Bytes fetched at once, at most, beyond what is asked for."""


class Blocks:
    """Blocks of one file by number, the last used ones. Thread-safe."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = Lock()

    def __contains__(self, number: int) -> bool:
        return number in self._blocks

    def get(self, numbers: Iterable[int]) -> dict[int, bytes]:
        """Return the blocks that are there."""
        with self._lock:
            found = {number: self._blocks[number] for number in numbers if number in self._blocks}
            for number in found:
                self._blocks.move_to_end(number)
        return found

    def put(self, blocks: Mapping[int, bytes]) -> None:
        """Add blocks; drop those that were used longest ago."""
        with self._lock:
            self._blocks.update(blocks)
            while len(self._blocks) > KEPT // BLOCK:
                self._blocks.popitem(last=False)

    def put_head(self, head: bytes, size: int) -> None:
        """Add the first bytes of a file of some size, as far as they are whole blocks."""
        whole = len(head) // BLOCK if len(head) < size else -(-size // BLOCK)
        self.put({number: head[number * BLOCK : (number + 1) * BLOCK] for number in range(whole)})


class RemoteFile(io.RawIOBase):
    """Reads whole blocks; sequential reading fetches more and more ahead.

    Args:
        fetch: returns the bytes of ranges.
        size: of the whole.
        blocks: those that are there already; new ones are added.
    """

    def __init__(self, fetch: Callable[[Sequence[Range]], list[bytes]], size: int, blocks: Blocks) -> None:
        super().__init__()
        self._fetch, self._size, self._blocks, self._at = fetch, size, blocks, 0
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
        found = self._blocks.get(range(first, last + 1))
        missing = [number for number in range(first, last + 1) if number not in found]
        if missing:
            fetched = self._fetched(missing)
            self._blocks.put(fetched)
            found |= fetched
        joined = b"".join(found[number] for number in range(first, last + 1))
        return joined[offset - first * BLOCK : offset - first * BLOCK + count]

    def _fetched(self, missing: list[int]) -> dict[int, bytes]:
        """Fetch missing blocks, and some after them where the last fetch ended just before."""
        self._ahead = min(max(2 * self._ahead, 1), MOST_AHEAD // BLOCK) if missing[0] == self._end else 0
        self._end = missing[-1] + 1 + self._ahead
        last = -(-self._size // BLOCK)
        more = [number for number in range(missing[-1] + 1, min(self._end, last)) if number not in self._blocks]
        wanted = [*missing, *more]
        ranges = [(number * BLOCK, min(BLOCK, self._size - number * BLOCK)) for number in wanted]
        return dict(zip(wanted, self._fetch(ranges), strict=True))
