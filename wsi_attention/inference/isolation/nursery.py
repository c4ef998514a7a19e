"""Starts worker processes: forked from one that has imported everything where that is safe, else started anew.

Nothing here imports the caller's script, so a script needs no `if __name__ == "__main__":` for it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import IO, Protocol

from wsi_attention.errors import ClusterError
from wsi_attention.inference.isolation.channel import Channel
from wsi_attention.inference.isolation.last_words import Ending
from wsi_attention.inference.isolation.nursery_process import ANSWER, END, FORK, REQUEST

FORKS = sys.platform == "linux"
"""Whether workers are forked. Elsewhere a process that has imported the libraries of a slide cannot fork safely."""
START = 300.0
"""Seconds a worker may need to start: the first import of torch from a network disk is slow."""
DYING = 5.0
"""Seconds a worker that was killed may need to end."""
TOLD = 2**16
"""Bytes of a worker's last words that are kept."""
WAY_OUT = "do the slides in this process instead, with --in-process (in Python: in_process=True)"


class Worker(Protocol):
    """A worker process, and the connection to it."""

    channel: Channel

    def kill(self) -> None:
        """End it at once."""
        ...

    def ended(self) -> Ending:
        """Return how it ended; called once, after `kill`."""
        ...

    def forget_words(self) -> None:
        """Drop what it has written so far."""
        ...

    def traced(self) -> str:
        """Return where its threads are now, as faulthandler writes it; empty where that cannot be asked."""
        ...


class _Words:
    """What a process writes to its standard output and error: a file without a name, of which only the end is read."""

    def __init__(self) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by its owner
        if FORKS:
            import fcntl

            fcntl.fcntl(self.file, fcntl.F_SETFL, fcntl.fcntl(self.file, fcntl.F_GETFL) | os.O_APPEND)

    def read(self) -> str:
        with suppress(
            ValueError
        ):  # closed meanwhile: the process has ended, and another thread has read its last words
            size = self.file.seek(0, os.SEEK_END)
            self.file.seek(max(0, size - TOLD))
            return self.file.read().decode(errors="replace").replace("\0", "")
        return ""

    def forget(self) -> None:
        if FORKS:  # elsewhere the process would go on writing at the old place
            with suppress(ValueError):
                self.file.truncate(0)


class _Forked:
    def __init__(self, home: _Nursery) -> None:
        self._home = home
        self._words = _Words()
        here, there = socket.socketpair()
        with there, _closed_if_it_fails(here, self._words.file):
            self._process = home.fork(there.fileno(), self._words.file.fileno())
        with here:
            self.channel = Channel(here.makefile("rb"), here.makefile("wb"))

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)  # the nursery has not waited for it, so the number is still its own

    def ended(self) -> Ending:
        status, peak = self._home.wait(self._process)
        with self._words.file:
            return Ending(status, peak, self._words.read())

    def forget_words(self) -> None:
        self._words.forget()

    def traced(self) -> str:
        self._words.forget()
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGUSR1)  # faulthandler answers even while C code holds the interpreter
        time.sleep(0.2)
        return self._words.read()


class _Started:
    def __init__(self) -> None:
        self._words = _Words()
        with _closed_if_it_fails(self._words.file):
            self._process = _start("worker", subprocess.PIPE, subprocess.PIPE, self._words)
        assert self._process.stdin and self._process.stdout
        self.channel = Channel(self._process.stdout, self._process.stdin)

    def kill(self) -> None:
        self._process.kill()

    def ended(self) -> Ending:
        status = None
        with suppress(subprocess.TimeoutExpired):
            status = self._process.wait(DYING)
        with self._words.file:
            return Ending(status, 0, self._words.read())

    def forget_words(self) -> None:
        self._words.forget()

    def traced(self) -> str:
        return ""


class _Nursery:
    """The process of `nursery_process`, and requests to it."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._words = _Words()
        self._control, there = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._control.settimeout(START)
        self._asking = Lock()
        with there, _closed_if_it_fails(self._control, self._words.file):
            self._process = _start("nursery_process", there.fileno(), self._words.file, self._words)

    def fork(self, connection: int, words: int) -> int:
        """Fork a worker and return its process number."""
        with self._asking:
            socket.send_fds(self._control, [REQUEST.pack(FORK, 0, 0.0)], [connection, words])
            return self._answer()[0]

    def wait(self, process: int) -> tuple[int | None, int]:
        """Return how a worker ended, and its peak memory.

        None where the nursery is gone, and with it all its workers, or where not even SIGKILL ends the worker, as while
        it waits for a disk that does not answer.
        """
        try:
            with self._asking:
                self._control.send(REQUEST.pack(END, process, DYING))
                found, status, peak = self._answer()
        except OSError:
            return None, 0
        return (status, peak) if found else (None, 0)

    @property
    def alive(self) -> bool:
        """Whether it runs, and was started by this process."""
        return self.owner == os.getpid() and self._process.poll() is None

    def close(self) -> None:
        """End it, and all its workers with it."""
        self._control.close()
        with self._words.file:
            if self.owner == os.getpid():
                self._process.kill()
                self._process.wait()

    def _answer(self) -> tuple[int, int, int]:
        answer = self._control.recv(ANSWER.size)
        if len(answer) < ANSWER.size:
            raise ConnectionResetError(f"it ended: {self._words.read().strip()[-300:] or 'without a word'}")
        process, status, peak = ANSWER.unpack(answer)
        return process, status, peak


class _Home:
    """The nursery that is in use, and how many contexts need it."""

    nursery: _Nursery | None = None
    holders = 0
    lock = Lock()


@contextmanager
def kept() -> Iterator[None]:
    """Keep what was started for workers until the end, so that several batches share it."""
    with _Home.lock:
        _Home.holders += 1
    try:
        yield
    finally:
        with _Home.lock:
            _Home.holders -= 1
            if not _Home.holders and _Home.nursery is not None:
                _Home.nursery.close()
                _Home.nursery = None


@contextmanager
def prepared() -> Iterator[None]:
    """Import what workers need beside this process, so that a batch inside starts soon."""
    with kept():
        if FORKS:
            with suppress(OSError):  # whoever needs a worker says so
                _nursery()
        yield


def new_worker() -> Worker:
    """Start a worker process, which then waits for its `Setup`; within `kept` or `prepared`.

    Raises:
        ClusterError: none can be started here.
    """
    try:
        if not FORKS:
            return _Started()
        try:
            return _Forked(_nursery())
        except ConnectionError:  # the nursery was killed; once is no reason to give up
            return _Forked(_nursery())
    except (OSError, TimeoutError) as error:
        raise ClusterError(f"no worker process can be started here ({error}); {WAY_OUT}") from error


def _nursery() -> _Nursery:
    with _Home.lock:
        if _Home.nursery is None or not _Home.nursery.alive:
            if _Home.nursery is not None:
                _Home.nursery.close()
            _Home.nursery = _Nursery()
        return _Home.nursery


@contextmanager
def _closed_if_it_fails(*resources: socket.socket | IO[bytes]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for resource in resources:
            resource.close()
        raise


def _start(module: str, stdin: int, stdout: int | IO[bytes], words: _Words) -> subprocess.Popen[bytes]:
    """Start `main` of a module of this folder in a fresh interpreter that finds the packages this one finds."""
    if not sys.executable:
        raise OSError("this Python does not know its own program")
    code = f"from {__package__}.{module} import main; main()"
    found = os.pathsep.join(str(entry) or os.curdir for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=stdin,
        stdout=stdout,
        stderr=words.file,
        env={**os.environ, "PYTHONPATH": found},
    )
