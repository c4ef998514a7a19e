"""Bytes that were fetched a moment ago: a slide's index, and stored tiles that are looked at twice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from threading import Lock

from wsi_attention.slide.readers.bytes import Range

KEPT = 2**26
"""Bytes that a process keeps, of all files together; the index of a slide of 100,000² pixels has 3 MB."""
LARGEST_KEPT = 2**20
"""Bytes that one range may have to be kept."""


class Recent:
    """Ranges of files, those used last. Thread-safe.

    Args:
        limit: bytes that are kept.
    """

    def __init__(self, limit: int = KEPT) -> None:
        self._limit, self._bytes = limit, 0
        self._kept: OrderedDict[tuple[Hashable, Range], bytes] = OrderedDict()
        self._lock = Lock()

    def get(self, file: Hashable, ranges: Iterable[Range]) -> dict[Range, bytes]:
        """Return those of the ranges that are there.

        Args:
            file: tells a file in one version from all others.
            ranges: exactly as they were put.
        """
        with self._lock:
            found = {each: self._kept[file, each] for each in ranges if (file, each) in self._kept}
            for each in found:
                self._kept.move_to_end((file, each))
        return found

    def put(self, file: Hashable, contents: Mapping[Range, bytes]) -> None:
        """Add ranges; drop those that were used longest ago."""
        with self._lock:
            for each, content in contents.items():
                if len(content) <= LARGEST_KEPT:
                    self._bytes += len(content) - len(self._kept.pop((file, each), b""))
                    self._kept[file, each] = content
            while self._bytes > self._limit:
                self._bytes -= len(self._kept.popitem(last=False)[1])

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0


RECENT = Recent()
"""Of this process."""
