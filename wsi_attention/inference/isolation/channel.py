"""Messages between this process and a worker process, over a pair of pipes or a socket."""

from __future__ import annotations

import struct
from contextlib import suppress
from multiprocessing.reduction import ForkingPickler
from threading import Lock
from typing import IO, Any

LENGTH = struct.Struct(">Q")


class Channel:
    """Sends and receives whole Python values; any thread may send, one thread receives.

    Both ends are processes of one user that start each other, so values are pickled.
    """

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        """A channel over two open binary files, which it closes at the end."""
        self._reader = reader
        self._writer = writer
        self._sending = Lock()

    def send(self, value: Any) -> None:
        """Sends a value.

        Raises:
            OSError: the other side is gone.
        """
        content = bytes(ForkingPickler.dumps(value))
        with self._sending:
            self._writer.write(LENGTH.pack(len(content)) + content)
            self._writer.flush()

    def receive(self) -> Any:
        """Return the next value.

        Raises:
            EOFError: the other side is gone.
        """
        (length,) = LENGTH.unpack(self._read(LENGTH.size))
        return ForkingPickler.loads(self._read(length))

    def close(self) -> None:
        """Closes both directions; the other side then receives `EOFError`."""
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
