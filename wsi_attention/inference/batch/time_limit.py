"""A time limit that the steps of one slide share, also where a step hangs in a C library."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Generic, TypeVar

from wsi_attention.errors import SlideError
from wsi_attention.inference.batch.step_threads import done_in_time

T = TypeVar("T")


class TimeLimitError(SlideError, TimeoutError):
    """A slide took longer than its time limit; its thread was left behind."""


class TimeLimit:
    """Seconds that several steps share; only the time inside `run` counts, not the waiting in between.

    Attributes:
        seconds: the limit.
        name: the slide's name, for the message.
        spent: seconds used so far.
        left_behind: whether a step ran out of time; its thread may still be running.
    """

    def __init__(self, seconds: float, name: str) -> None:
        self.seconds = seconds
        self.name = name
        self.spent = 0.0
        self.left_behind = False

    def run(self, step: Callable[[], T]) -> T:
        """Return the step's result, or raise the exception that it raised.

        The step runs in another thread, because nothing can stop a C library that loops; whatever it still does after
        the limit must therefore be harmless (it may write temporary files, never a finished one).

        Raises:
            TimeLimitError: the step was not finished when the shared seconds were used up.
        """
        call = _Call(step)
        start = time.monotonic()
        seconds = min(max(0.0, self.seconds - self.spent), threading.TIMEOUT_MAX)
        in_time = done_in_time(partial(copy_context().run, call), seconds)
        self.spent += time.monotonic() - start
        if not in_time:
            self.left_behind = True
            raise TimeLimitError(f"{self.name}: not finished after {self.seconds:g} s; give it more with --limit")
        return call.result()


class _Call(Generic[T]):
    def __init__(self, step: Callable[[], T]) -> None:
        self._step = step
        self._values: list[T] = []
        self._error: BaseException | None = None

    def __call__(self) -> None:
        try:
            self._values.append(self._step())
        except BaseException as error:
            self._error = error

    def result(self) -> T:
        if self._error is not None and not isinstance(self._error, Exception):
            raise SlideError(f"a library wanted to end the program ({self._error!r})") from self._error
        if self._error is not None:
            raise self._error
        return self._values[0]
