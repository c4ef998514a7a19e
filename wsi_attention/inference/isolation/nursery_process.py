"""A process that has imported everything and does nothing but fork workers: a new worker starts in milliseconds."""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

FORK, END = 0, 1
REQUEST, ANSWER = struct.Struct("=iid"), struct.Struct("=iiq")
"""What to do, the process, seconds of patience; the process, how it ended, its peak memory in bytes."""
NEEDED = ("wsi_attention.inference.isolation.worker",)
USEFUL = (
    "openslide",
    "tifffile",
    "imagecodecs",
    "skimage.measure",
    "skimage.morphology",
    "skimage.filters.thresholding",
    "skimage.transform",
    "shapely",
    "dask.threaded",
    "wsi_attention.export.geojson",
    "wsi_attention.export.report",
    "wsi_attention.export.table",
    "wsi_attention.slide.readers.openslide",
    "wsi_attention.slide.readers.tiff.reader",
)
"""What most slides need; imported before the first worker is asked for, or as soon as there is no request."""
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Fork a worker, or answer how one ended, for each request on standard input, a socket; end with the other side.

    No thread is started and nothing is computed here, so that forking is safe; workers die with this process.
    """
    gc.disable()  # a collection would leave holes, which are filled after forking: pages copied for nothing
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")  # on forking: the threads of an imported library take care of themselves
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    for name in NEEDED:
        import_module(name)
    for name in USEFUL:
        while select.select([control], [], [], 0)[0]:
            _serve(control)
        with suppress(Exception):  # whoever needs it says better what is wrong with it
            import_module(name)
    while True:
        _serve(control)


def _serve(control: socket.socket) -> None:
    request, descriptors, _, _ = socket.recv_fds(control, REQUEST.size, 2)
    if not request:
        os._exit(0)
    kind, process, patience = REQUEST.unpack(request)
    control.send(_fork(control, descriptors) if kind == FORK else _end(process, patience))


def _fork(control: socket.socket, descriptors: Sequence[int]) -> bytes:
    gc.freeze()  # else a worker's first collection goes through all that was imported, and copies the pages it is on
    here, process = os.getpid(), os.fork()
    if process == 0:
        gc.enable()
        control.close()
        _become_worker(here, *descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    return ANSWER.pack(process, 0, 0)


def _become_worker(parent: int, connection: int, words: int) -> NoReturn:
    from wsi_attention.inference.isolation.worker import work

    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for target in (1, 2):
            os.dup2(words, target)
        with socket.socket(fileno=connection) as given:
            if os.getppid() == parent:  # it may have died before it could take this process with it
                work(given.makefile("rb"), given.makefile("wb"), words)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)


def _end(process: int, patience: float) -> bytes:
    """Answer how a killed worker ended; with process 0 where it is still there after so many seconds."""
    late = time.monotonic() + patience
    while time.monotonic() < late:
        found, status, usage = os.wait4(process, os.WNOHANG)
        if found:
            return ANSWER.pack(process, os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)
        time.sleep(0.002)
    return ANSWER.pack(0, 0, 0)
