"""Raw bytes to the viewer: every request has one answer or none, and nobody can hold all connections."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from wsi_attention.viewer.server import MOST_HEAD, Server

Serve = Callable[..., Server]
GET = "GET / HTTP/1.1\r\n"


def exchanged(server: Server, request: str) -> bytes:
    """All that comes back until the server closes, or resets; `PORT` in the request is its port."""
    answer = b""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as raw, suppress(ConnectionError):
        with suppress(OSError):  # closed already, with the answer in the buffer
            raw.sendall(request.replace("PORT", str(server.server_port)).encode("latin-1"))
            raw.shutdown(socket.SHUT_WR)
        while part := raw.recv(65536):
            answer += part
    return answer


def statuses(answer: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", answer)


OWN = "Host: 127.0.0.1:PORT\r\n"
SECOND = f"GET /slides.json HTTP/1.1\r\n{OWN}\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (f"{GET}\r\n", b"400"),
        (f"{GET}{OWN}{OWN}\r\n", b"400"),
        (f"{GET}{OWN}Host: evil.example\r\n\r\n", b"400"),
        (f"{GET}Host: evil.example\r\n{OWN}\r\n", b"400"),
        (f"{GET}Host: evil.example\r\n\r\n", b"403"),
        (f"{GET}Host: 127.0.0.1:PORT, evil.example\r\n\r\n", b"403"),
        (f"{GET}Host:\r\n\r\n", b"403"),
        (f"GET /\r\n{OWN}\r\n", b"200"),
        (f"GET / HTTP/1.0\r\n{OWN}\r\n", b"200"),
        ("GET /\r\n\r\n", b"400"),
        (f"GET / HTTP/9.9\r\n{OWN}\r\n", b"505"),
        (f"GET / HTTX\r\n{OWN}\r\n", b"400"),
        (f"GET a b c d\r\n{OWN}\r\n", b"400"),
        (f"BREW / HTTP/1.1\r\n{OWN}\r\n", b"405"),
        (f"{GET}{OWN}Expect: 100-continue\r\nContent-Length: 4\r\n\r\nabcd", b"400"),
        (f"{GET}{OWN}X{'x' * MOST_HEAD}: 1\r\n\r\n", b"431"),
        (f"GET /{'x' * MOST_HEAD} HTTP/1.1\r\n{OWN}\r\n", b"431"),
        (f"{GET}{OWN}{''.join(f'X-{n}: 1{chr(13)}{chr(10)}' for n in range(101))}\r\n", b"431"),
    ],
)
def test_one_host_a_sound_head_one_answer(server: Server, request_: str, status: bytes) -> None:
    assert statuses(exchanged(server, request_ + SECOND if status != b"200" else request_)) == [status]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: {n}\r\n",
        "Content-Length: 0\r\nContent-Length: {n}\r\n",
        "Content-Length: +{n}\r\n",
        "Content-Length : {n}\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X\r\nContent-Length: {n}\r\n",
        "X: 1\r\n Content-Length: {n}\r\n",
        "X: 1\rContent-Length: {n}\r\n",
    ],
)
def test_a_body_is_no_second_request(server: Server, method: str, headers: str) -> None:
    """The body is itself a request for the list of slides: it must not be answered."""
    body = SECOND.replace("PORT", str(server.server_port))
    answer = exchanged(server, f"{method} / HTTP/1.1\r\n{OWN}{headers.format(n=len(body))}\r\n{body}")
    assert statuses(answer) == [b"405" if method == "POST" else b"400"]
    assert b"Connection: close" in answer and b'"slides"' not in answer


def test_two_requests_on_one_connection_are_two_answers(results: Path, serve: Serve) -> None:
    first = f"{GET}{OWN}Content-Length: 0\r\n\r\n"
    assert statuses(exchanged(serve(results), first + SECOND)) == [b"200", b"200"]


def test_a_connection_too_many_is_told_so(results: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "connections", 3)
    server = serve(results)
    held = [socket.create_connection(("127.0.0.1", server.server_port), timeout=10) for _ in range(3)]
    try:
        for raw in held:
            raw.sendall(b"GET / HT")
        assert statuses(exchanged(server, f"{GET}{OWN}\r\n")) == [b"503"]
    finally:
        for raw in held:
            raw.close()
    assert answered_within(server, 10.0)


def test_bytes_that_drip_hold_no_connection(results: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle connection, one idle after an answer, and one that sends a byte now and then are given up."""
    monkeypatch.setattr(Server, "connections", 3)
    monkeypatch.setattr(Server, "patience", 0.5)
    server = serve(results)
    held = [socket.create_connection(("127.0.0.1", server.server_port), timeout=10) for _ in range(3)]
    try:
        held[1].sendall(SECOND.replace("PORT", str(server.server_port)).encode())
        end, dripped = time.monotonic() + 10.0, 0
        while not answered_within(server, 0.0) and time.monotonic() < end:
            try:
                held[2].sendall(b"G")
                dripped += 1
            except OSError:
                pass
            time.sleep(0.1)
        assert dripped >= 3 and time.monotonic() < end
    finally:
        for raw in held:
            raw.close()


def answered_within(server: Server, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while True:
        if statuses(exchanged(server, f"{GET}{OWN}\r\n")) == [b"200"]:
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.05)
