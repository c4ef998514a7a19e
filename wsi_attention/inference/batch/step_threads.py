"""Threads that do steps of slides one after the other, and can be left behind where a step hangs in a C library.

A thread of its own for each step would cost more than it seems to: cuDNN plans its convolutions anew in each thread
(0.4 s a slide on an H200), and the threads and the memory that read tiles belong to the thread they read for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread

IDLE = 5.0
"""Seconds after which a thread that has nothing to do ends."""

_LOCK = Lock()


class _Step:
    """A step on its way.

    Attributes:
        ended: set when it is done.
        done: whether it is done.
        left: whether nobody waits for it any more.
    """

    def __init__(self, do: Callable[[], object]) -> None:
        self.do, self.ended = do, Event()
        self.done = self.left = False


class _StepThread(Thread):
    """Does the steps it is given, until it has been idle for long or one of them was left behind."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="slide")
        self.steps: SimpleQueue[_Step] = SimpleQueue()

    def run(self) -> None:
        going_on = True
        while going_on:
            try:
                going_on = _did(self.steps.get(timeout=IDLE))
            except Empty:
                going_on = not _FREE.forget(self)


class _Free:
    """The threads of this process that have nothing to do; those that did something last come first."""

    def __init__(self) -> None:
        self._threads: list[_StepThread] = []
        self._process = os.getpid()

    def take(self) -> _StepThread:
        """Return a thread, a new one where none is free."""
        with _LOCK:
            if self._process != os.getpid():  # a forked child has none of its parent's threads
                self._threads, self._process = [], os.getpid()
            if self._threads:
                return self._threads.pop()
        thread = _StepThread()
        thread.start()
        return thread

    def give_back(self, thread: _StepThread, step: _Step) -> bool:
        """Return whether its step is done, and the thread free; else it ends as soon as it can."""
        with _LOCK:
            step.left = not step.done
            if step.done:
                self._threads.append(thread)
            return step.done

    def forget(self, thread: _StepThread) -> bool:
        """Return whether the thread was free, and is no longer one of these."""
        with _LOCK:
            free = thread in self._threads
            if free:
                self._threads.remove(thread)
            return free


_FREE = _Free()


def _did(step: _Step) -> bool:
    """Do a step; return whether somebody still waited for it. Nothing of it is held on to."""
    try:
        step.do()
    finally:
        with _LOCK:
            step.done = True
        step.ended.set()
    return not step.left


def done_in_time(do: Callable[[], None], seconds: float) -> bool:
    """Do something in a thread that others use too; return whether it was done within so many seconds.

    Args:
        do: must not raise. Where it is late, its thread goes on with it and ends after it.
        seconds: to wait.
    """
    thread, step = _FREE.take(), _Step(do)
    try:
        thread.steps.put(step)
        step.ended.wait(seconds)
    finally:
        in_time = _FREE.give_back(thread, step)
    return in_time
