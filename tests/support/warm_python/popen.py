"""`subprocess.Popen` and `subprocess.run`, but for how a Python process starts."""

from __future__ import annotations

import atexit
import inspect
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from warm_python.request import ENVIRONMENT, Request, request_of, send

PLAIN = subprocess.Popen
"""That of `subprocess` itself, for which a test may put another."""
EXECUTE = inspect.signature(PLAIN._execute_child)
PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
KILLED = bytes([9, 0, 0, 0])
"""What is said of a process when the one that knew it is gone."""


class Source(Protocol):
    """Where processes come from."""

    def start(self, request: Request, streams: Sequence[int]) -> tuple[int, socket.socket | None] | None:
        """Start one; return its number, and what tells its end unless it is a child of this process.

        None where no process comes from here.
        """


class Popen(PLAIN[Any]):
    """A process that the source started, or `subprocess`."""

    source: Source
    _end: socket.socket | None = None

    def _execute_child(self, *given: Any) -> None:
        asked = EXECUTE.bind(self, *given).arguments
        request = request_of(asked)
        ends = (asked["p2cread"], asked["c2pwrite"], asked["errwrite"])
        streams = [own if end == -1 else end for own, end in enumerate(ends)]
        started = None if request is None else self.source.start(request, streams)
        if started is None:
            super()._execute_child(*given)
            return
        self.pid, self._end = started
        self._child_created = True
        self._close_pipe_fds(*(asked[name] for name in PIPES))

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._end is None:
            return super()._try_wait(wait_flags)
        self._end.setblocking(not wait_flags & os.WNOHANG)
        try:
            status = self._end.recv(4)
        except BlockingIOError:
            return 0, 0
        self._end.close()
        return self.pid, int.from_bytes(status or KILLED, "little")

    def _internal_poll(self, *given: Any, **named: Any) -> int | None:
        if self._end is None:
            return super()._internal_poll(*given, **named)
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                ended, status = self._try_wait(os.WNOHANG)
                if ended:
                    self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a command to its end."""
    if input is not None:
        options["stdin"] = subprocess.PIPE
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(command, **options) as process:
        try:
            stdout, stderr = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    ended = subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
    if check:
        ended.check_returncode()
    return ended


class Warm:
    """The warm process of `warm_python.process`; started with the first request."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._control: socket.socket | None = None

    def start(self, request: Request, streams: Sequence[int]) -> tuple[int, socket.socket] | None:
        """Start a child of the warm process."""
        if sys.platform != "linux":  # elsewhere a process that has imported so much cannot fork safely
            return None
        with self._lock:
            if self._control is None:
                self._control = _warm_process()
        end, there = socket.socketpair()
        with there:
            send(self._control, request, [*streams, *request.kept], [there.fileno()])
        number = int.from_bytes(end.recv(4), "little")
        if not number:
            raise ChildProcessError("the warm Python process is gone")
        return number, end


def _warm_process() -> socket.socket:
    here, there = socket.socketpair(type=socket.SOCK_SEQPACKET)
    support = str(Path(__file__).parent.parent)
    code = f"import sys; sys.path.append({support!r}); from warm_python.process import main; main({there.fileno()})"
    with there:
        process = PLAIN(
            [sys.executable, "-c", code], env=ENVIRONMENT, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL
        )

    @atexit.register
    def ended() -> None:
        here.close()
        process.wait()

    return here


Popen.source = Warm()
