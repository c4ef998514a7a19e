"""Ctrl-C: one line and status 130 at any moment, also while libraries are imported that would hide it."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wsi_attention.files import KEPT

STATUS = 130
LINE = "wsi-attention: interrupted"
AGAIN = 0.05
"""Seconds after which a Ctrl-C that was swallowed is sent once more."""
CLEAN = "\r\x1b[2K\x1b[?25h"
"""Clears the line of a progress bar, and shows the cursor that the bar had hidden."""


@contextmanager
def starting() -> Iterator[None]:
    """End the program at once on Ctrl-C inside; for phases in which nothing has begun that must be cleaned up.

    `KeyboardInterrupt` will not do: some libraries catch it while they are imported, or turn it into another error.
    """
    with _on_interrupt(_leave):
        yield


@contextmanager
def noted() -> Iterator[list[int]]:
    """Collect each Ctrl-C that comes inside; it raises `KeyboardInterrupt` as usual.

    Python swallows what is raised while an object is taken away, or in a callback of the garbage collector. A Ctrl-C
    that comes just then is sent once more, a moment later.
    """
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before = sys.unraisablehook

    def swallowed(lost: sys.UnraisableHookArgs) -> None:
        if lost.exc_type is KeyboardInterrupt:
            threading.Timer(AGAIN, _interrupt).start()
        else:
            before(lost)

    sys.unraisablehook = swallowed
    try:
        with _on_interrupt(note):
            yield came
    finally:
        sys.unraisablehook = before


@contextmanager
def resumable() -> Iterator[None]:
    """Say after Ctrl-C inside that nothing is lost; for commands that go on when they are started again."""
    try:
        yield
    except KeyboardInterrupt:
        print(KEPT, file=sys.stderr)
        raise


def _interrupt() -> None:
    """Interrupt the main thread, from another one."""
    if hasattr(signal, "pthread_kill") and (main := threading.main_thread().ident) is not None:
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()


@contextmanager
def _on_interrupt(handler: Callable[[int, object], None]) -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield  # whoever started this process wants Ctrl-C to be ignored, or a thread cannot say
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(number: int, frame: object) -> None:
    place = sys.__stderr__.fileno() if sys.__stderr__ else 2
    os.write(place, f"{CLEAN if os.isatty(place) else ''}{LINE}\n".encode())
    os._exit(STATUS)
