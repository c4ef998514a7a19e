"""Web servers for tests: real ones, on this machine, with everything that servers do wrong."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BOUNDARY = "part-of-the-file"


@dataclass
class Manners:
    """How a server behaves.

    Attributes:
        ranges: whether it gives ranges at all.
        several: whether it gives several ranges by one request.
        ends: whether it gives the last bytes of a file whose size is not named.
        latency: seconds before each answer.
        fails: number of requests that are answered as they should be; those after them get `status`.
        heals: number of requests that get `status`; those after them are answered.
        status: what a failing server answers; 0 hangs, -1 breaks off in the middle of the body, -2 hangs there.
        password: asked for where not None, as "user:password" in base64.
        header: sent with every answer where not empty.
        versions: whether it tells one version of a file from another.
    """

    ranges: bool = True
    several: bool = True
    ends: bool = True
    latency: float = 0.0
    fails: float = float("inf")
    heals: int = 0
    status: int = 500
    password: str | None = None
    header: str = ""
    versions: bool = True


@dataclass
class Server:
    """A running server: its address, its manners (they can be changed), and what was asked of it."""

    address: str
    manners: Manners
    requests: list[str] = field(default_factory=list)
    sent: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"

    def reset(self) -> None:
        self.requests.clear()
        self.sent = 0


@contextmanager
def serving(folder: Path, manners: Manners | None = None) -> Iterator[Server]:
    """Serves the files of a folder until the block ends."""
    http = _Http(("127.0.0.1", 0), _Handler)
    http.folder, http.lock = folder, threading.Lock()
    http.server = Server(f"http://127.0.0.1:{http.server_address[1]}", manners or Manners())
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield http.server
    finally:
        http.server.stop.set()
        http.shutdown()
        http.server_close()
        thread.join()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    folder: Path
    lock: threading.Lock
    server: Server

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        told, manners = self.server.server, self.server.server.manners
        with self.server.lock:
            told.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
            failing = len(told.requests) <= manners.heals or len(told.requests) > manners.fails
        time.sleep(manners.latency)
        if failing and manners.status == 0:
            told.stop.wait(60)
            self.close_connection = True
        elif failing and manners.status > 0:
            self._send(manners.status, b"", {})
        elif manners.password and self.headers.get("Authorization") != f"Basic {manners.password}":
            self._send(401, b"", {})
        else:
            self._file(body, broken=failing)

    def _file(self, body: bool, broken: bool) -> None:
        path = self.server.folder / self.path.partition("?")[0].lstrip("/")
        if not path.is_file():
            self._send(404, b"", {})
            return
        state = path.stat()
        tag = {"ETag": f'"{state.st_size:x}-{state.st_mtime_ns:x}"'} if self.server.server.manners.versions else {}
        headers = {**tag, "Accept-Ranges": "bytes"}
        ranges = self._ranges(state.st_size)
        if not self.server.server.manners.ranges or ranges is None:
            headers["Accept-Ranges"] = "none" if ranges is not None else "bytes"
            self._send(200, path.read_bytes() if body else b"", headers, size=state.st_size, broken=broken)
        elif any(start >= state.st_size for start, _ in ranges):
            self._send(416, b"", headers | {"Content-Range": f"bytes */{state.st_size}"})
        else:
            self._send(206, *self._part(path, ranges, state.st_size, headers), broken=broken)

    def _ranges(self, size: int) -> list[tuple[int, int]] | None:
        text = self.headers.get("Range", "")
        if end := re.fullmatch(r"bytes=-(\d+)", text):
            return [(max(0, size - int(end[1])), size)] if self.server.server.manners.ends else None
        found = re.findall(r"(\d+)-(\d+)", text)
        if not text or (len(found) > 1 and not self.server.server.manners.several):
            return None
        return [(int(start), min(int(end) + 1, size)) for start, end in found]

    def _part(self, path: Path, ranges: list[tuple[int, int]], size: int, headers: dict) -> tuple[bytes, dict]:
        with path.open("rb") as file:
            contents = [(start, end, file.seek(start) * 0 or file.read(end - start)) for start, end in ranges]
        if len(contents) == 1:
            start, end, content = contents[0]
            return content, headers | {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
        lines = [
            f"\r\n--{BOUNDARY}\r\nContent-Range: bytes {start}-{end - 1}/{size}\r\n\r\n".encode() + content
            for start, end, content in contents
        ]
        kind = {"Content-Type": f"multipart/byteranges; boundary={BOUNDARY}"}
        return b"".join(lines) + f"\r\n--{BOUNDARY}--\r\n".encode(), headers | kind

    def _send(self, status: int, content: bytes, headers: dict, size: int | None = None, broken: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.server.server.manners.header:
            self.send_header(self.server.server.manners.header, "yes")
        self.send_header("Content-Length", str(len(content) if size is None else size))
        self.end_headers()
        content = content[: len(content) // 2] if broken else content
        for start in range(0, len(content), 2**16):
            with self.server.lock:  # counted first: a client that has it all may look at once
                self.server.server.sent += len(content[start : start + 2**16])
            self.wfile.write(content[start : start + 2**16])
        if broken and self.server.server.manners.status == -2:
            self.server.server.stop.wait(60)
        self.close_connection = self.close_connection or broken


def main() -> None:
    """`servers.py FOLDER MANNERS`, the manners as JSON: a line on stdin gives the counts and starts them anew."""
    import sys

    with serving(Path(sys.argv[1]), Manners(**json.loads(sys.argv[2]))) as server:
        print(server.address, flush=True)
        for _ in sys.stdin:
            print(json.dumps({"requests": len(server.requests), "bytes": server.sent}), flush=True)
            server.reset()


if __name__ == "__main__":
    main()
