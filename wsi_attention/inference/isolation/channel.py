"""Messages between this process and a worker process, over a pair of pipes or a socket."""

from __future__ import annotations

import struct
from contextlib import suppress
from multiprocessing.reduction import ForkingPickler
from threading import Lock
from typing import IO

LENGTH = struct.Struct(">Q")


class Channel:
    """Sends and receives whole Python values; any thread may send, one thread receives.

    Both ends are processes of one user that start each other, so values are pickled.
    """

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        """Take two open binary files, which `close` closes."""
        self._reader = reader
        self._writer = writer
        self._sending = Lock()

    def send(self, value: object) -> None:
        """Send a value.

        Raises:
            OSError: the other side is gone.
        """
        content = bytes(ForkingPickler.dumps(value))
        with self._sending:
            self._writer.write(LENGTH.pack(len(content)) + content)
            self._writer.flush()

    def receive(self) -> object:
        """Return the next value.

        Raises:
            EOFError: the other side is gone.
        """
        (length,) = LENGTH.unpack(self._read(LENGTH.size))
        value: object = ForkingPickler.loads(self._read(length))
        return value

    def close(self) -> None:
        """Close both directions; the other side then receives `EOFError`."""
        for file in (self._writer, self._reader):
            with suppress(OSError, ValueError):
                file.close()

    def _read(self, length: int) -> bytes:
        try:
            content = self._reader.read(length)
        except (OSError, ValueError) as error:
            raise EOFError from error
        if content is None or len(content) < length:
            raise EOFError
        return content
