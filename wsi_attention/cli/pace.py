"""How fast slides go, and how long the rest takes."""

from __future__ import annotations

import time
from collections.abc import Callable

from wsi_attention.plain_text import lasting


class Pace:
    """Slides done since the first was, which the start of the workers delays; those kept from before do not count.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first, self._count = 0.0, -1

    def add(self) -> None:
        """Count a slide."""
        self._count += 1
        if not self._count:
            self._first = self._clock()

    def words(self, waiting: int) -> str:
        """Return slides an hour and the time that the waiting ones take, such as "412 slides/h, 2 min left"."""
        spent = self._clock() - self._first
        if self._count < 1 or spent <= 0:
            return ""
        left = f", {lasting(waiting * spent / self._count)} left" if waiting else ""
        return f"{3600 * self._count / spent:.0f} slides/h{left}"
