"""A hub of our own on this machine, as far as downloading goes: repositories in memory, some of them gated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "c" * 40
Repositories = Mapping[str, Mapping[str, bytes]]


@contextmanager
def hub_server(repositories: Repositories, gated: frozenset[str] = frozenset()) -> Iterator[str]:
    """Serve repositories; the value is the address for HF_ENDPOINT.

    Args:
        repositories: "owner/model" -> name of a file -> its content.
        gated: repositories whose files nobody gets, only their names.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            parts = self.path.partition("?")[0].strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                self._names("/".join(parts[2:4]), body)
            else:
                self._file("/".join(parts[:2]), "/".join(parts[4:]), body)

        def _names(self, repository: str, body: bool) -> None:
            if repository not in repositories:
                self._send(401, b"", {"X-Error-Code": "RepoNotFound"}, body)
                return
            siblings = [{"rfilename": name} for name in repositories[repository]]
            content = {"id": repository, "sha": COMMIT, "siblings": siblings}
            self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"}, body)

        def _file(self, repository: str, name: str, body: bool) -> None:
            if repository in gated:
                self._send(401, b"", {"X-Error-Code": "GatedRepo"}, body)
            elif repository not in repositories:
                self._send(401, b"", {"X-Error-Code": "RepoNotFound"}, body)
            elif name not in repositories[repository]:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
            else:
                content = repositories[repository][name]
                etag = hashlib.sha256(content).hexdigest()
                self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, body)

        def _send(self, status: int, content: bytes, headers: Mapping[str, str], body: bool) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
