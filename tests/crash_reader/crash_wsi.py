"""A reader that takes its process down as C libraries do. Its slides are text: `CRASH how where`.

how: abort, segv, exit, sysexit, hang, hang_gil, loop, kill, kill_once; where: open, read.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

FIRST = b"CRASH "
LONG = 100_000


class CrashReader:
    """A grey slide of 4096² pixels, if it gets that far."""

    name: ClassVar[str] = "crash"

    def __init__(self, path: str) -> None:
        _, how, self._where = Path(path).read_text().split()
        self._die = _WAYS[how] if how != "kill_once" else lambda: kill_once(path)
        self.level_dimensions, self.level_downsamples = ((4096, 4096), (1024, 1024)), (1.0, 4.0)
        self.tile_sizes = ((256, 256), (256, 256))
        self.properties = {"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.5"}
        self.bounds = None
        self.associated: tuple[str, ...] = ()
        if self._where == "open":
            self._die()

    @classmethod
    def recognises(cls, path: str) -> bool:
        try:
            with open(path, "rb") as file:  # noqa: PTH123
                return file.read(len(FIRST)) == FIRST
        except OSError:
            return False

    def read(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        if self._where == "read":
            self._die()
        pixels = np.full((size[1], size[0], 3), 240, np.uint8)
        pixels[: size[1] // 2] = (210, 130, 180)
        return pixels

    def read_associated(self, name: str) -> NDArray[np.uint8]:
        raise KeyError(name)

    def close(self) -> None:
        pass


def segv() -> None:
    ctypes.string_at(0)  # reads address 0


def loop() -> None:
    while True:
        pass


def kill_once(path: str) -> None:
    """As the system kills a process that is not to blame for the memory running out."""
    mark = Path(path).with_suffix(".killed")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


_WAYS: dict[str, Callable[[], object]] = {
    "abort": os.abort,
    "segv": segv,
    "exit": lambda: os._exit(3),
    "sysexit": lambda: sys.exit(3),
    "hang": lambda: ctypes.CDLL(None).sleep(LONG),
    "hang_gil": lambda: ctypes.PyDLL(None).sleep(LONG),
    "loop": loop,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}
