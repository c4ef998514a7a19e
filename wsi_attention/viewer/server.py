"""The viewer's web server: this computer only, read only, slides by number and a fixed list of files."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import ClassVar

from wsi_attention.errors import InputError, WsiAttentionError
from wsi_attention.viewer.content import Content

ADDRESS = "127.0.0.1"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    "png": "image/png",
    "jpg": "image/jpeg",
}
PAGES = {
    "/": "viewer.html",
    "/icon.svg": "icon.svg",
    "/viewer.css": "viewer.css",
    "/viewer.js": "viewer.js",
    "/panel.js": "panel.js",
    "/deepzoom.js": "deepzoom.js",
    "/layers.js": "layers.js",
}
"""Every file that is served: path -> name in `static/`."""

_OF_SLIDE = re.compile(
    r"/slides/([0-9]{1,6})/(facts\.json|slide\.json|overview\.jpg|attention\.png|unseen\.png|heatmap\.png)"
)
_TILE = re.compile(r"/slides/([0-9]{1,6})/tiles/([0-9]{1,2})/([0-9]{1,6})_([0-9]{1,6})\.jpg")


class Server(ThreadingHTTPServer):
    """Serves one results folder on the loopback address.

    Attributes:
        content: what is served.
    """

    daemon_threads = True

    def __init__(self, content: Content, port: int = 0) -> None:
        """Binds the port; 0 takes a free one.

        Raises:
            InputError: the port is taken or not allowed.
        """
        self.content = content
        self.static = {
            path: (files("wsi_attention.viewer") / "static" / name).read_bytes() for path, name in PAGES.items()
        }
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            raise InputError(f"port {port} on {ADDRESS} cannot be used ({error}); give another with --port") from error

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{ADDRESS}:{self.server_port}/"

    @property
    def hosts(self) -> set[str]:
        """What a request may name as its host; any other name was made to point here by somebody else."""
        names = (ADDRESS, "localhost")
        return {f"{name}:{self.server_port}" for name in names} | (set(names) if self.server_port == 80 else set())

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """(content type, body) of a path, exactly as it was sent; None where there is nothing."""
        if path in self.static:
            return TYPES[PAGES[path].rpartition(".")[2]], self.static[path]
        if path == "/slides.json":
            return TYPES["json"], self.content.slides()
        if tile := _TILE.fullmatch(path):
            number, level, col, row = (int(part) for part in tile.groups())
            return TYPES["jpg"], self.content.tile(number, level, col, row)
        if asked := _OF_SLIDE.fullmatch(path):
            kind, _, ending = asked[2].partition(".")
            make: Callable[[int], bytes | None] = getattr(self.content, kind)
            body = make(int(asked[1]))
            return None if body is None else (TYPES[ending], body)
        return None


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version: ClassVar[str] = "HTTP/1.1"  # type: ignore[misc]
    timeout = 30
    server_version, sys_version = "wsi-attention", ""

    def do_GET(self) -> None:
        """The only method besides HEAD."""
        if self.headers.get("Host", "") not in self.server.hosts:
            self._refuse(HTTPStatus.FORBIDDEN, "this server answers on its own address only")
            return
        try:
            found = self.server.answer(self.path)
        except WsiAttentionError as error:
            self._refuse(HTTPStatus.NOT_FOUND, str(error))
            return
        except Exception as error:  # one bad slide must not end the others' answers
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"unexpected {type(error).__name__}")
            return
        if found is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")
        else:
            self._send(HTTPStatus.OK, *found)

    do_HEAD = do_GET  # noqa: N815  (names that http.server looks for)

    def _not_allowed(self) -> None:
        self.close_connection = True  # a body may follow that nobody reads
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "this server is read only", Allow="GET, HEAD")

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _not_allowed  # noqa: N815

    def _refuse(self, status: HTTPStatus, reason: str, **more: str) -> None:
        self._send(status, "text/plain; charset=utf-8", f"{reason}\n".encode("utf-8", "replace"), **more)

    def _send(self, status: HTTPStatus, kind: str, body: bytes, **more: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **HEADERS, **more}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle(self) -> None:
        """A browser that goes away in the middle of an answer is no error."""
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are not logged."""
