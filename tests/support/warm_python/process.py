"""The warm process: it imports what commands import, computes nothing, and forks.

Each process it forks has a child that waits, as new as itself: that one becomes the first Python process which the
command starts, such as the one that forks its workers.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import io
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module, invalidate_caches
from pathlib import Path
from types import ModuleType
from typing import Any

from warm_python.popen import Popen
from warm_python.request import CODING, ENVIRONMENT, Request, receive, send, unpacked

NEEDED = (
    "wsi_attention.cli.app",
    "wsi_attention.inference.batch.classify",
    "wsi_attention.inference.batch.runners",
    "wsi_attention.inference.cluster.open",
    "wsi_attention.inference.isolation.worker",
    "wsi_attention.training.encoder_choice",
    "wsi_attention.evaluation.evaluation",
    "wsi_attention.training.run",
    "dask.delayed",
    "dask.threaded",
    "jinja2",
    "lightning_fabric",
    "rich.progress",
    "skimage.transform",
)
OPTIONAL = ("psutil", "typer._adapters")
"""What some of those import where it is installed."""
HIGH = 512
"""Nobody else takes file descriptors from here on."""


@dataclass(frozen=True)
class Birth:
    """What a new interpreter has, taken down before anything was imported.

    Attributes:
        interrupt: the handler of Ctrl-C.
        path: `sys.path` without what comes from the command and from PYTHONPATH.
        streams: encoding and error handler of each of the three.
    """

    interrupt: Any
    path: tuple[str, ...]
    streams: tuple[tuple[str, str], ...]


class Spare:
    """A waiting child of a process that has just begun; it becomes the first Python process started there."""

    def __init__(self) -> None:
        self.given: list[int] | None = None
        self._owner, (self._control, there) = os.getpid(), socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._process = os.fork()
        if self._process == 0:
            self._control.close()
            self.given = _waited(there)
        else:
            there.close()

    def start(self, request: Request, streams: Sequence[int]) -> tuple[int, None] | None:
        """Let it become what is asked for, once."""
        if self._control.fileno() == -1 or os.getpid() != self._owner:
            return None
        with self._control:
            send(self._control, request, [*streams, *request.kept])
        return self._process, None


def main(number: int) -> None:
    """Serve requests until nobody can ask any more; in each child, go on as the process that was asked for."""
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    kept: dict[str, ModuleType] = {}
    atexit.register(_keep, kept)  # before anything else can register, so that it is called last
    front = {"", *ENVIRONMENT.get("PYTHONPATH", "").split(os.pathsep), str(Path(__file__).parent.parent)}
    streams = tuple((stream.encoding, stream.errors) for stream in (sys.stdin, sys.stdout, sys.stderr))
    birth = Birth(interrupt, tuple(entry for entry in sys.path if entry not in front), streams)
    _import_all()
    kept |= sys.modules
    own = _open_descriptors() - {number}
    request = _begun(_forked(number), own, birth)
    spare = Spare()
    if spare.given is not None:
        request = _begun(spare.given, own, birth)
    else:
        Popen.source = spare
        subprocess.Popen = Popen  # type: ignore[misc]
    _leave_early()
    _run(request.command)


def _import_all() -> None:
    from wsi_attention.inference.isolation.nursery_process import USEFUL

    for name in (*NEEDED, *USEFUL):
        import_module(name)
    for name in OPTIONAL:
        with suppress(ImportError):
            import_module(name)
    gc.collect()
    gc.freeze()


def _keep(modules: dict[str, ModuleType]) -> None:
    """Save Python at its end from taking the shared modules apart, which would copy all their memory before."""
    for name in modules.keys() - sys.builtin_module_names - {"__main__"}:
        sys.modules.pop(name, None)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(modules))


def _leave_early() -> None:
    """End the process after Python and after libraries loaded from now on, but before those that are shared.

    Taking torch apart takes ten times as long as starting such a process.
    """
    c = ctypes.CDLL(None)
    c.on_exit(c._exit, None)
    c.__cxa_atexit(c.fflush, None, None)  # called before the other one


def _open_descriptors() -> set[int]:
    with os.scandir("/proc/self/fd") as entries:
        found = [int(entry.name) for entry in entries]
    return {number for number in found if Path(f"/proc/self/fd/{number}").is_symlink()}


def _forked(number: int) -> list[int]:
    """Fork for every request and tell how each child ended; return in a child alone, with its descriptors."""
    control, ends = socket.socket(fileno=number), dict[int, tuple[int, int]]()
    while True:
        for ready in select.select([number, *ends], [], [])[0]:
            if ready != number:
                _tell(ready, *ends.pop(ready))
            elif (given := receive(control)) is None:
                os._exit(0)
            elif child := os.fork():
                ends[os.pidfd_open(child)] = (child, given[0])
                os.write(given[0], child.to_bytes(4, "little"))
                for descriptor in given[1:]:
                    os.close(descriptor)
            else:
                control.detach()
                return given[1:]


def _tell(watched: int, child: int, end: int) -> None:
    _, status = os.waitpid(child, 0)
    with suppress(OSError):  # whoever started it is gone
        os.write(end, status.to_bytes(4, "little"))
    os.close(end)
    os.close(watched)


def _waited(control: socket.socket) -> list[int]:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    given = receive(control)
    if given is None:
        os._exit(0)
    control.detach()
    return given


def _begun(given: Sequence[int], own: set[int], birth: Birth) -> Request:
    """Make of this fork what a new interpreter would be, and return what it is to run."""
    request = unpacked(given[0])
    _give(given[1:], (0, 1, 2, *request.kept), own)
    if request.session:
        os.setsid()
    elif request.group != -1:
        os.setpgid(0, request.group)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    signal.signal(signal.SIGINT, birth.interrupt)
    tempfile.tempdir = None
    import_module("numpy").random.seed()
    front = [str(Path(entry).absolute()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = [*front, *birth.path]
    sys.path_importer_cache.clear()
    invalidate_caches()
    _open_streams(birth.streams)
    return request


def _give(descriptors: Sequence[int], numbers: Sequence[int], own: set[int]) -> None:
    """Move descriptors to the numbers that they must have, and close all that are nobody's."""
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH) for descriptor in descriptors]
    for descriptor in _open_descriptors() - own - set(moved):
        os.close(descriptor)
    for descriptor, number in zip(moved, numbers, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)


def _open_streams(coding: Sequence[tuple[str, str]]) -> None:
    if asked := os.environ.get(CODING):
        name, _, errors = asked.partition(":")
        coding = [(name, errors or "strict"), (name, errors or "strict"), (name, "backslashreplace")]
    for number, (name, (encoding, errors)) in enumerate(zip(("stdin", "stdout", "stderr"), coding, strict=True)):
        raw = open(number, "wb" if number else "rb", closefd=False)  # noqa: SIM115  # open until the process ends
        lines = number == 2 or raw.isatty()
        stream = io.TextIOWrapper(raw, encoding, errors, newline="\n", line_buffering=lines)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _run(command: Sequence[str]) -> None:
    """Do what Python does with its arguments; what is raised ends the process as it always does."""
    safe, command = command[0] == "-P", command[command[0] == "-P" :]
    first, *rest = command
    sys.orig_argv = [sys.executable, *command]
    module = sys.modules["__main__"] = ModuleType("__main__")
    if first == "-m":
        sys.argv = ["-m", *rest[1:]]
        sys.path[:0] = [] if safe else [str(Path.cwd())]
        runpy._run_module_as_main(rest[0])
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.path[:0] = [] if safe else [""]
        exec(compile(rest[0], "<string>", "exec", dont_inherit=True), module.__dict__)
    else:
        sys.argv = list(command)
        sys.path[:0] = [] if safe else [str(Path(first).resolve().parent)]
        module.__file__ = first
        exec(compile(Path(first).read_bytes(), first, "exec", dont_inherit=True), module.__dict__)
