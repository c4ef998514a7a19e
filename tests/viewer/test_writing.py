"""Who may write a review, and who may read: the viewer's own page, and no page of another address."""

from __future__ import annotations

import csv
import http.client
import json
import socket
from collections.abc import Callable
from pathlib import Path

from wsi_attention.viewer.server import MOST_BODY, Server

Serve = Callable[..., Server]
ASKED = {"person": "Anna", "number": 0, "verdict": "agree", "note": "clear", "x": 10, "y": 20.6, "zoom": 0.5}


def send(server: Server, body: bytes | str, **headers: str | None) -> tuple[int, bytes]:
    """Send a review as the page does, but for these headers; None leaves one out."""
    own = {
        "Host": f"127.0.0.1:{server.server_port}",
        "Origin": f"http://127.0.0.1:{server.server_port}",
        "Content-Type": "application/json",
        "Sec-Fetch-Site": "same-origin",
        "X-Review-Token": server.token,
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    raw = body.encode() if isinstance(body, str) else body
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest("POST", "/review", skip_host=True, skip_accept_encoding=True)
    for name, value in ({"Content-Length": str(len(raw))} | own).items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(raw)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def written(results: Path) -> list[Path]:
    return list((results / "reviews").glob("*")) if (results / "reviews").exists() else []


def test_a_review_is_written_and_told_again(results: Path, serve: Serve) -> None:
    server = serve(results)
    status, body = send(server, json.dumps(ASKED))
    assert status == 200 and json.loads(body)["verdict"] == "agree"
    [row] = csv.DictReader((results / "reviews/Anna.csv").read_text().splitlines())
    assert (row["slide"], row["label"], row["note"], row["weights_sha256"]) == ("a", "lesion", "clear", "ab" * 32)
    assert (row["x"], row["y"], row["zoom"]) == ("10", "21", "0.5")
    connection = http.client.HTTPConnection("127.0.0.1", serve(results).server_port, timeout=10)
    connection.request("GET", "/said.json")
    said = json.loads(connection.getresponse().read())
    connection.close()
    assert said["people"]["Anna"]["0"]["note"] == "clear" and said["trouble"] == {}


HEADERS: list[tuple[dict[str, str | None], int]] = [
    ({"Origin": None}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "https://127.0.0.1:{port}"}, 403),
    ({"Origin": "http://127.0.0.1"}, 403),
    ({"Origin": "http://127.0.0.1:1"}, 403),
    ({"Origin": "http://localhost:{port}"}, 403),
    ({"Origin": "http://127.0.0.1:{port}.evil.example"}, 403),
    ({"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"}, 403),
    ({"X_Review_Token": None}, 403),
    ({"X_Review_Token": ""}, 403),
    ({"X_Review_Token": "wrong"}, 403),
    ({"X_Review_Token": "\u00fc"}, 403),
    ({"Sec_Fetch_Site": "cross-site"}, 403),
    ({"Sec_Fetch_Site": "same-site"}, 403),
    ({"Content_Type": "text/plain"}, 415),
    ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
    ({"Content_Type": None}, 415),
    ({"Content_Length": None}, 400),
    ({"Content_Length": "-5"}, 400),
    ({"Content_Length": "+5"}, 400),
    ({"Content_Length": str(MOST_BODY + 1)}, 413),
    ({"Transfer_Encoding": "chunked"}, 400),
]


def test_only_the_own_page_may_write(results: Path, serve: Serve) -> None:
    server = serve(results)
    for headers, status in HEADERS:
        filled = {name: value and value.replace("{port}", str(server.server_port)) for name, value in headers.items()}
        assert send(server, json.dumps(ASKED), **filled)[0] == status, headers
    assert written(results) == []


BODIES: list[tuple[bytes | str, bytes]] = [
    (b"\xff\xfe", b"JSON in UTF-8"),
    ("[" * 5000, b"JSON"),
    ("[1]", b"one JSON object"),
    ("{}", b"found"),
    (json.dumps(ASKED | {"more": 1}), b"more"),
    (json.dumps(ASKED | {"number": 7}), b"slide 7 was asked"),
    (json.dumps(ASKED | {"number": 1}), b"no prediction"),
    (json.dumps(ASKED | {"number": True}), b"number of a review"),
    (json.dumps(ASKED | {"person": "../../x"}), b"name of a file"),
    (json.dumps(ASKED | {"verdict": "yes"}), b"agree, disagree"),
    (json.dumps(ASKED | {"x": "1"}), b"x of a review must be a number"),
    (json.dumps(ASKED).replace("20.6", "NaN"), b"y of a review must be a number"),
    (json.dumps(ASKED | {"note": "x" * 4001}), b"4001 characters"),
]


def test_what_is_no_review_is_refused_in_a_sentence(results: Path, serve: Serve) -> None:
    server = serve(results)
    for body, reason in BODIES:
        status, told = send(server, body)
        assert status == 409 and reason in told and told.count(b"\n") == 1, (body[:80], told)
    assert written(results) == []


def test_a_body_cut_short_and_one_too_long_write_nothing(results: Path, serve: Serve) -> None:
    server, body = serve(results), json.dumps(ASKED).encode()
    head = (
        f"POST /review HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\nOrigin: http://127.0.0.1:"
        f"{server.server_port}\r\nX-Review-Token: {server.token}\r\nContent-Type: application/json\r\nContent-Length: "
    )
    for length in (len(body) + 1, len(body) - 1):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as raw:
            raw.sendall(f"{head}{length}\r\n\r\n".encode() + body)
            raw.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda raw=raw: raw.recv(65536), b""))
        assert b" 409 " in answer.split(b"\r\n")[0] and answer.count(b"HTTP/1.1 ") == 1
    assert written(results) == []


VISIT = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
"""How a browser follows a link, for instance from a report."""
READS: list[tuple[str, dict[str, str], int]] = [
    ("/slides.json", {"Sec-Fetch-Site": "cross-site"}, 403),
    ("/slides/0/overview.jpg", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
    ("/viewer.js", {"Origin": "http://evil.example"}, 403),
    ("/", VISIT | {"Sec-Fetch-Dest": "iframe"}, 403),
    (
        "/said.json",
        VISIT,
        403,
    ),
    ("/", VISIT, 200),
    ("/slides.json", {"Sec-Fetch-Site": "same-origin"}, 200),
    ("/slides.json", {"Sec-Fetch-Site": "none"}, 200),
]


def test_pages_of_other_addresses_read_nothing_and_may_only_lead_here(results: Path, serve: Serve) -> None:
    server = serve(results)
    for path, headers, status in READS:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert answer.status == status, (path, headers)
        assert status == 200 or body == b"this server answers its own pages only\n"
