"""Open readers shared by threads; a request that failed is asked once more on a fresh one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import SlideError, SlideOpenError, TileReadError
from wsi_attention.geometry import Size
from wsi_attention.protocols import RegionsReader, SlideReader
from wsi_attention.slide.failures import what_is_wrong
from wsi_attention.slide.resample import on_white


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
        """Lend the shared reader of this process, opened on first use."""
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
        """Stop lending a reader that went wrong; the heir, if any, is lent from now on."""
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
        """Stop lending; calls under way end first, then the reader is closed."""
        with self._lock:
            self._closed = True
            lease = self._shared.pop(os.getpid(), None)
            if lease is None:
                return
            lease.retired = True
            idle = lease.users == 0
        if idle:
            lease.reader.close()


T = TypeVar("T")


def attempt(handles: Handles, request: Callable[[SlideReader], T], what: str) -> T:
    """Make a request on the shared handle; where it fails, once more on a fresh one, which is then lent instead.

    Args:
        handles: of the slide.
        request: takes a reader.
        what: the file and what was asked of it, for the message.

    Raises:
        TileReadError: the second attempt failed too.
    """
    with handles.borrow() as lease:
        try:
            return request(lease.reader)
        except Exception:  # a reader of another package may raise anything; what counts is the second attempt
            return _second_attempt(handles, lease, request, what)


def _second_attempt(handles: Handles, lease: Lease, request: Callable[[SlideReader], T], what: str) -> T:
    try:
        fresh = handles.open_fresh()
    except SlideOpenError as error:
        handles.retire(lease)
        raise TileReadError(f"{what} cannot be read: {what_is_wrong(error)}") from error
    try:
        result = request(fresh)
    except Exception as error:
        fresh.close()
        handles.retire(lease)
        raise TileReadError(f"{what} cannot be read: {what_is_wrong(error)}") from error
    handles.retire(lease, heir=fresh)
    return result


def read_one(
    reader: SlideReader, location: Size, level: int, size: Size, see: Callable[[NDArray[np.uint8]], None]
) -> NDArray[np.uint8]:
    """Return a reader's pixels on white, after `see` has seen them; refuse those of another size or type."""
    pixels = reader.read(location, level, size)
    if pixels.dtype != np.uint8 or pixels.shape not in {(size[1], size[0], 3), (size[1], size[0], 4)}:
        raise SlideError(f"the reader gave {pixels.dtype} {pixels.shape} for {size[0]}×{size[1]} pixels")
    see(pixels)
    return on_white(pixels)


def read_together(
    handles: Handles, locations: NDArray[np.int64], level: int, size: Size, out: NDArray[np.uint8]
) -> list[str | None] | None:
    """Read all regions in one request, if the reader can do that; those that fail once more on a fresh handle.

    Args:
        handles: of the slide.
        locations: (n, 2) level-0 corners.
        level: index of the level.
        size: (w, h) of every region in the level's pixels.
        out: (n, h, w, 3) to write to.

    Returns:
        For each region None, or why it cannot be read; None altogether if the reader reads one region at a time.
    """
    with handles.borrow() as lease:
        if not isinstance(lease.reader, RegionsReader):
            return None
        reasons, _ = _ask(lease.reader, locations, level, size, out)
        if any(reasons):
            _ask_again(handles, lease, reasons, locations, level, size, out)
        return reasons


def _ask_again(
    handles: Handles,
    lease: Lease,
    reasons: list[str | None],
    locations: NDArray[np.int64],
    level: int,
    size: Size,
    out: NDArray[np.uint8],
) -> None:
    """Ask again for regions that failed; a handle is lent on if it answered, and closed if it failed as a whole."""
    try:
        fresh = handles.open_fresh()
    except SlideOpenError:
        handles.retire(lease)
        return
    bad = [i for i, reason in enumerate(reasons) if reason is not None]
    again = np.empty((len(bad), *out.shape[1:]), np.uint8)
    found, usable = _ask(fresh, locations[bad], level, size, again)
    for i, reason, pixels in zip(bad, found, again, strict=True):
        reasons[i] = reason
        if reason is None:
            out[i] = pixels
    if not usable:
        fresh.close()
    handles.retire(lease, heir=fresh if usable else None)


def _ask(
    reader: SlideReader, locations: NDArray[np.int64], level: int, size: Size, out: NDArray[np.uint8]
) -> tuple[list[str | None], bool]:
    """Return the reader's answer, and whether it gave one."""
    try:
        return list(cast(RegionsReader, reader).read_regions(locations, level, size, out)), True
    except Exception as error:  # as in `attempt`
        return [what_is_wrong(error)] * len(locations), False
