"""The viewer's web server: this computer and its own page only, slides by number and a fixed list of files.

It reads, but for what people say to a slide: that alone is written, where the page itself asks for it with the token
that only who started the server has.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from threading import BoundedSemaphore
from typing import ClassVar

from wsi_attention.defaults import VIEWER_PORT
from wsi_attention.errors import InputError, WsiAttentionError
from wsi_attention.json_values import JsonObject, parse
from wsi_attention.viewer.content import Content

ADDRESS = "127.0.0.1"
MOST_HEAD = 16_384
"""Bytes of a request line and its headers; a browser sends about 1,000."""
MOST_BODY = 65_536
"""Bytes of what the page sends; the longest note, each of its characters escaped, has fewer."""
TOKEN = "X-Review-Token"
"""Header in which the page sends the token of its address."""
REVIEW = "/review"
"""Where the page sends what somebody says to a slide; nothing else is taken."""
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
PAGES = {"/": "viewer.html"} | {
    f"/{name}": name
    for name in (
        *("icon.svg", "viewer.css", "viewer.js", "deepzoom.js", "keys.js", "layers.js", "link.js"),
        *("pane.js", "panel.js", "review.js", "snapshot.js", "text.js"),
    )
}
"""Every file that is served: path -> name in `static/`."""

LISTS = {"/slides.json": "slides", "/said.json": "said"}
"""Path -> method of `Content` without arguments."""

_LENGTH = re.compile("[0-9]{1,9}")
_OF_SLIDE = re.compile(
    r"/slides/([0-9]{1,6})/(facts\.json|slide\.json|overview\.jpg|attention\.png|unseen\.png|heatmap\.jpg)"
)
_PICTURE = re.compile(r"/slides/([0-9]{1,6})/picture/([0-9]{1,4})\.jpg")
_TILE = re.compile(r"/slides/([0-9]{1,6})/tiles/([0-9]{1,2})/([0-9]{1,6})_([0-9]{1,6})\.jpg")


_Request = socket.socket | tuple[bytes, socket.socket]


class Server(ThreadingHTTPServer):
    """Serves one results folder on the loopback address.

    Attributes:
        content: what is served.
        token: without it nothing is written: other users of this computer reach the port, and do not know it.
        connections: as many are held at once; a browser opens six.
        patience: seconds that a connection may take until a request's head is complete, idle ones included.
    """

    daemon_threads = True
    allow_reuse_address = os.name != "nt"  # there it would let two servers have one port
    connections: ClassVar[int] = 64
    patience: ClassVar[float] = 30.0

    def __init__(self, content: Content, port: int = 0) -> None:
        """Bind the port; 0 takes a free one.

        Raises:
            InputError: the port is taken or not allowed.
        """
        self.content = content
        self.token = secrets.token_urlsafe(16)
        self._room = BoundedSemaphore(self.connections)
        self._awaited: dict[socket.socket, float] = {}
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
    def page(self) -> str:
        """The page's address with the token, as who started the server opens it; the part behind # is never sent."""
        return f"{self.url}#token={self.token}"

    @property
    def hosts(self) -> set[str]:
        """What a request may name as its host; any other name is refused, because others could make it point here."""
        names = (ADDRESS, "localhost")
        return {f"{name}:{self.server_port}" for name in names} | (set(names) if self.server_port == 80 else set())

    @property
    def origins(self) -> set[str]:
        """What a browser calls our own pages; requests of all others are refused."""
        return {f"http://{host}" for host in self.hosts}

    def process_request(self, request: _Request, client_address: object) -> None:
        """Start a thread for a connection; one too many is refused and closed."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        with suppress(OSError):
            assert isinstance(request, socket.socket)  # TCP
            request.settimeout(1.0)
            request.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self.shutdown_request(request)

    def process_request_thread(self, request: _Request, client_address: object) -> None:
        """Answer a connection until it is closed, which makes room for another."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    @contextmanager
    def awaiting(self, connection: socket.socket) -> Iterator[None]:
        """Give a connection up when a request's head is not complete within `patience`, however slowly bytes arrive."""
        self._awaited[connection] = time.monotonic() + self.patience
        try:
            yield
        finally:
            self._awaited.pop(connection, None)

    def service_actions(self) -> None:
        """Give up connections whose time is over; called several times a second."""
        now = time.monotonic()
        for connection, end in list(self._awaited.items()):
            if now > end:
                with suppress(OSError):  # closed by the other side in the same moment
                    connection.shutdown(socket.SHUT_RDWR)

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """Return (content type, body) of a path, exactly as it was sent; None where there is nothing."""
        if path in self.static:
            return TYPES[PAGES[path].rpartition(".")[2]], self.static[path]
        if path in LISTS:
            return TYPES["json"], getattr(self.content, LISTS[path])()
        kind, body = self._of_slide(path)
        return None if body is None else (TYPES[kind], body)

    def _of_slide(self, path: str) -> tuple[str, bytes | None]:
        if tile := _TILE.fullmatch(path):
            number, level, col, row = (int(part) for part in tile.groups())
            return "jpg", self.content.tile(number, level, col, row)
        if picture := _PICTURE.fullmatch(path):
            return "jpg", self.content.picture(int(picture[1]), int(picture[2]))
        if asked := _OF_SLIDE.fullmatch(path):
            name, _, ending = asked[2].partition(".")
            make: Callable[[int], bytes | None] = getattr(self.content, name)
            return ending, make(int(asked[1]))
        return "", None


def serving(content: Content, port: int | None = None) -> Server:
    """Return a server on a port; without one on `VIEWER_PORT`, or on a free one where that is taken.

    Raises:
        InputError: the port that was asked for is taken or not allowed.
    """
    if port is not None:
        return Server(content, port)
    try:
        return Server(content, VIEWER_PORT)
    except InputError:
        return Server(content)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"
    timeout = 30
    server_version, sys_version = "wsi-attention", ""

    def handle_one_request(self) -> None:
        """Read one head, whole and of bounded length, and answer it once; a body after it is never read."""
        self.close_connection = True
        with self.server.awaiting(self.connection):
            head = self._head()
        if head is None:
            return
        stream, self.rfile = self.rfile, io.BufferedReader(io.BytesIO(head))
        self.raw_requestline = self.rfile.readline()
        understood = self.parse_request()
        self.rfile = stream
        if understood:
            getattr(self, f"do_{self.command}", self._not_allowed)()
            self.wfile.flush()

    def _head(self) -> bytes | None:
        """Return the bytes up to the first empty line; None where the connection ended before, or they are too many."""
        head = bytearray()
        while not head.endswith((b"\r\n\r\n", b"\n\n")):
            line = self.rfile.readline(MOST_HEAD + 1 - len(head))
            head += line
            if len(head) > MOST_HEAD:
                self.requestline, self.command, self.request_version = "", "", self.protocol_version
                self._close_with(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's headers are too large")
            if not line or len(head) > MOST_HEAD:
                return None
        return bytes(head)

    def handle_expect_100(self) -> bool:
        """Send nothing before the answer: no body is wanted."""
        return True

    def _why_foreign(self) -> tuple[HTTPStatus, str] | None:
        """Return why a head is not one of our own page, or is none at all; None where all is well."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1:
            return HTTPStatus.BAD_REQUEST, f"one Host header is needed, there are {len(hosts)}"
        if hosts[0] not in self.server.hosts:
            return HTTPStatus.FORBIDDEN, "this server answers on its own address only"
        if self._is_of_another_site():
            return HTTPStatus.FORBIDDEN, "this server answers its own pages only"
        folded = any("\n" in value for value in self.headers.values())
        if folded or self.headers.defects or self.headers.get_payload():
            return HTTPStatus.BAD_REQUEST, "a header is not written as HTTP writes it"
        return None

    def _is_of_another_site(self) -> bool:
        """Return whether a browser says that a page of another address asks; it may only lead a reader to our page."""
        if any(origin not in self.server.origins for origin in self.headers.get_all("Origin", [])):
            return True
        sites = self.headers.get_all("Sec-Fetch-Site", [])
        if all(site in ("same-origin", "none") for site in sites):
            return False
        goes = self.headers.get("Sec-Fetch-Mode"), self.headers.get("Sec-Fetch-Dest")
        return not (self.command == "GET" and self.path == "/" and goes == ("navigate", "document"))

    def _why_refused(self) -> tuple[HTTPStatus, str] | None:
        """Return what is wrong with the head of a request without a body, if anything is."""
        foreign = self._why_foreign()
        if foreign is not None:
            return foreign
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or lengths not in ([], ["0"]):
            return HTTPStatus.BAD_REQUEST, "a request here has no body"
        return None

    def do_GET(self) -> None:
        """Answer GET, as HEAD."""
        refused = self._why_refused()
        if refused is not None:
            self._close_with(*refused)
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

    def do_POST(self) -> None:
        """Answer POST, for reviews alone; the connection ends with it."""
        if self.path != REVIEW:
            self._not_allowed()
            return
        refused = self._why_not_written()
        if refused is not None:
            self._close_with(*refused)
            return
        try:
            body = self.server.content.say(self._asked())
        except WsiAttentionError as error:
            self._close_with(HTTPStatus.CONFLICT, str(error))
        except Exception as error:  # one bad review must not end the others' answers
            self._close_with(HTTPStatus.INTERNAL_SERVER_ERROR, f"unexpected {type(error).__name__}")
        else:
            self._send(HTTPStatus.OK, TYPES["json"], body, Connection="close")

    def _why_not_ours(self) -> tuple[HTTPStatus, str] | None:
        """Return why a request to write is not that of our own page, opened by who has its token; None where it is."""
        foreign = self._why_foreign()
        if foreign is not None:
            return foreign
        if self.headers.get_all("Origin", []) != [f"http://{self.headers['Host']}"]:
            return HTTPStatus.FORBIDDEN, "only the viewer's own page may write"
        tokens = [one.encode("latin-1", "replace") for one in self.headers.get_all(TOKEN, [])]
        if len(tokens) != 1 or not secrets.compare_digest(tokens[0], self.server.token.encode()):
            return HTTPStatus.FORBIDDEN, "open the page by the address, with its token, that wsi-attention view printed"
        return None

    def _why_not_written(self) -> tuple[HTTPStatus, str] | None:
        """Return why nothing is written: only our own page may ask, with one JSON body of known and small length."""
        foreign = self._why_not_ours()
        if foreign is not None:
            return foreign
        if self.headers.get_all("Content-Type", []) != [TYPES["json"]]:
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"a review is sent as {TYPES['json']}"
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]):
            return HTTPStatus.BAD_REQUEST, "a review has one Content-Length"
        if int(lengths[0]) > MOST_BODY:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a review has at most {MOST_BODY} bytes"
        return None

    def _asked(self) -> JsonObject:
        """Return what the body asks for.

        Raises:
            InputError: it is not all there, or no JSON object.
        """
        length = int(self.headers["Content-Length"])
        with self.server.awaiting(self.connection):
            body = self.rfile.read(length)
        try:
            asked = parse(body.decode("utf-8"))
        except ValueError as error:
            raise InputError(f"a review is JSON in UTF-8: {error}") from error
        if len(body) != length or not isinstance(asked, dict):
            raise InputError("a review is one JSON object")
        return asked

    def _not_allowed(self) -> None:
        self._close_with(HTTPStatus.METHOD_NOT_ALLOWED, "only reviews are written here", Allow="GET, HEAD")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what the parser does not understand."""
        self._close_with(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def _close_with(self, status: HTTPStatus, reason: str, **more: str) -> None:
        """Send the last answer of a connection: what follows, perhaps a body, is no request."""
        self._refuse(status, reason, Connection="close", **more)
        self.close_connection = True

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
        """Serve the connection; a browser that goes away in the middle of an answer is no error."""
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""
