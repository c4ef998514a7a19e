"""Open readers of one slide: one shared by all threads of a process, replaced whole when it goes wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock

from wsi_attention.errors import SlideError
from wsi_attention.protocols import SlideReader


@dataclass(eq=False)
class Lease:
    """A reader in use, and by how many calls."""

    reader: SlideReader
    users: int = 0
    retired: bool = False


class Handles:
    """Lends the process's reader; a retired one is closed when the last call that uses it has ended.

    Readers are kept by process id, so a forked child opens its own instead of sharing a file position.

    Args:
        opener: opens a fresh reader.
    """

    def __init__(self, opener: Callable[[], SlideReader]) -> None:
        self.open_fresh = opener
        self._shared: dict[int, Lease] = {}
        self._locks: dict[int, Lock] = {}
        self._closed = False

    @property
    def _lock(self) -> Lock:
        return self._locks.setdefault(os.getpid(), Lock())

    @contextmanager
    def borrow(self) -> Iterator[Lease]:
        """The shared reader of this process, opened on first use."""
        lease = self._take()
        try:
            yield lease
        finally:
            self._give(lease)

    def _take(self) -> Lease:
        pid = os.getpid()
        with self._lock:
            if self._closed:
                raise SlideError("the slide has been closed; open it again with open_slide(path)")
            if pid not in self._shared:
                self._shared[pid] = Lease(self.open_fresh())
            lease = self._shared[pid]
            lease.users += 1
            return lease

    def _give(self, lease: Lease) -> None:
        with self._lock:
            lease.users -= 1
            done = lease.retired and lease.users == 0
        if done:
            lease.reader.close()

    def retire(self, lease: Lease, heir: SlideReader | None = None) -> None:
        """Stops lending a reader that went wrong; the heir, if any, is lent from now on."""
        pid = os.getpid()
        with self._lock:
            lease.retired = True
            current = self._shared.get(pid) is lease
            if current:
                del self._shared[pid]
            if heir is not None and current and not self._closed:
                self._shared[pid] = Lease(heir)
                heir = None
        if heir is not None:
            heir.close()

    def __del__(self) -> None:
        with suppress(Exception):  # nobody is left to tell
            self.close()

    def close(self) -> None:
        """Stops lending; calls under way end first, then the reader is closed."""
        with self._lock:
            self._closed = True
            lease = self._shared.pop(os.getpid(), None)
            if lease is None:
                return
            lease.retired = True
            idle = lease.users == 0
        if idle:
            lease.reader.close()
