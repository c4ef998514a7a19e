"""A clock of where the time goes: it charges what passes to one kind of work at a time; it runs only when asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

Work = Literal["open", "overview", "attention", "read", "encode", "export", "waiting"]
KINDS: tuple[Work, ...] = ("open", "overview", "attention", "read", "encode", "export", "waiting")
"""Opening; overview and tissue; the model but for the next two; tiles; their features; results; none of these."""

_CLOCK: ContextVar[Clock | None] = ContextVar("clock", default=None)


class Clock:
    """Seconds by kind of work, of one slide; what no work claims is "waiting". Runs from the start.

    Work within work counts for the inner kind alone, so the kinds add up to the time that passed. One thread at a time
    may work for a clock; threads that it hands parts to are not counted.

    Attributes:
        seconds: of each kind.
        busy: (start, end) of the times that were not spent waiting, in seconds since the epoch, so that clocks of
            several threads, processes and machines can be laid side by side.
    """

    def __init__(self) -> None:
        self.seconds: dict[Work, float] = dict.fromkeys(KINDS, 0.0)
        self.busy: list[tuple[float, float]] = []
        self._epoch = time.time() - time.perf_counter()
        self._since = time.perf_counter()
        self._current: Work = "waiting"
        self._stopped = False

    def turn_to(self, kind: Work) -> Work:
        """Charge what passed to the kind so far, and from now on to another; return the former."""
        before, now = self._current, time.perf_counter()
        if self._stopped:
            return before
        self.seconds[before] += now - self._since
        if before != "waiting":
            self._add_busy(self._since, now)
        self._current, self._since = kind, now
        return before

    def stop(self) -> None:
        """Charge what passed; later work, such as that of a thread left behind, no longer counts."""
        self.turn_to("waiting")
        self._stopped = True

    def _add_busy(self, start: float, end: float) -> None:
        start, end = start + self._epoch, end + self._epoch
        if self.busy and start - self.busy[-1][1] < 1e-6:
            start = self.busy.pop()[0]
        self.busy.append((start, end))


@contextmanager
def timed() -> Iterator[Clock]:
    """Collect what is `spent_on` each kind of work inside, in this context and in copies of it."""
    clock = Clock()
    token = _CLOCK.set(clock)
    try:
        yield clock
    finally:
        clock.stop()
        _CLOCK.reset(token)


@contextmanager
def spent_on(kind: Work) -> Iterator[None]:
    """Charge the time inside to this kind of work, if a clock runs; otherwise this costs about a microsecond."""
    clock = _CLOCK.get()
    if clock is None:
        yield
        return
    before = clock.turn_to(kind)
    try:
        yield
    finally:
        clock.turn_to(before)
