"""The server as somebody who means harm meets it: this computer only, read only, a fixed list of answers."""

from __future__ import annotations

import http.client
import io
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from lesion_slide import EXTENT
from PIL import Image

from wsi_attention.errors import InputError
from wsi_attention.viewer.content import Content
from wsi_attention.viewer.library import Library
from wsi_attention.viewer.server import PAGES, Server, serving

Serve = Callable[..., Server]


def ask(server: Server, path: str, method: str = "GET", host: str | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host=host is not None)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def test_everything_the_page_asks_for(results: Path, serve: Serve) -> None:
    server = serve(results)
    for path in PAGES:
        status, headers, body = ask(server, path)
        assert status == 200 and body and headers["X-Content-Type-Options"] == "nosniff", path
    listed = json.loads(ask(server, "/slides.json")[2])
    assert [slide["name"] for slide in listed["slides"]] == ["a", "b"]
    facts = json.loads(ask(server, "/slides/0/facts.json")[2])
    assert facts["extent"] == list(EXTENT) and facts["boxes"][0]["weight"] == pytest.approx(0.9)
    assert json.loads(ask(server, "/slides/0/slide.json")[2]) == {"coarsest": 0, "trouble": ""}
    for name, kind in (("overview.jpg", "image/jpeg"), ("attention.png", "image/png"), ("unseen.png", "image/png")):
        status, headers, body = ask(server, f"/slides/0/{name}")
        assert (status, headers["Content-Type"]) == (200, kind)
        Image.open(io.BytesIO(body)).verify()
    tile = Image.open(io.BytesIO(ask(server, f"/slides/0/tiles/{facts['last']}/11_8.jpg")[2]))
    assert tile.size == (EXTENT[0] - 11 * 256, EXTENT[1] - 8 * 256)


SECRETS = (
    "/../../etc/passwd",
    "/slides/../../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "/..%252f..%252fetc/passwd",
    "/..\\..\\etc\\passwd",
    "/slides/0/../../states/a.json",
    "/slides/0/heatmap.jpg/../../../../etc/passwd",
    "//etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd",
    "http://example.org/",
    "/viewer.css%00.js",
    "/viewer.py",
    "/static/viewer.html",
    "/states/a.json",
    "/slides/0",
    "/slides/-1/facts.json",
    "/slides/1e3/facts.json",
    "/slides/٠/facts.json".encode().decode("latin-1"),
    "/slides/999999/facts.json",
    "/slides/1/facts.json",
    "/slides/0/tiles/99/0_0.jpg",
    "/slides/0/tiles/12/999999_0.jpg",
    "/slides/0/tiles/12/-1_0.jpg",
    "/slides/0/heatmap.jpg",
    "/?a=1",
)


@pytest.mark.parametrize("path", SECRETS)
def test_there_is_nothing_else(results: Path, serve: Serve, path: str) -> None:
    server = serve(results)
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as raw:
        raw.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\nConnection: close\r\n\r\n".encode(
                "latin-1"
            )
        )
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.split(b" ", 2)[1] in (b"404", b"400"), answer[:200]
    assert b"root:" not in answer


def test_a_link_to_the_outside_is_not_followed(results: Path, serve: Serve) -> None:
    (results / "heatmaps").mkdir()
    (results / "heatmaps/a.jpg").symlink_to("/etc/passwd")
    (results / "report").mkdir()
    (results / "report/a.json").symlink_to("/etc/passwd")
    server = serve(results)
    assert ask(server, "/slides/0/heatmap.jpg")[0] == 404
    status, _, body = ask(server, "/slides/0/overview.jpg")
    assert status == 200 and body[:2] == b"\xff\xd8"  # read from the slide instead


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "localhost.evil:{port}"]
)
def test_a_foreign_host_name_is_refused(results: Path, serve: Serve, host: str) -> None:
    server = serve(results)
    for path in ("/", "/slides.json", "/slides/0/tiles/0/0_0.jpg"):
        status, _, body = ask(server, path, host=host.format(port=server.server_port))
        assert status == 403 and b"slides" not in body


def test_its_own_names_are_accepted(results: Path, serve: Serve) -> None:
    server = serve(results)
    for name in ("127.0.0.1", "localhost"):
        assert ask(server, "/", host=f"{name}:{server.server_port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_it_is_read_only(results: Path, serve: Serve, method: str) -> None:
    status, headers, _ = ask(serve(results), "/", method=method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_head_has_the_headers_alone(results: Path, serve: Serve) -> None:
    server = serve(results)
    status, headers, body = ask(server, "/slides.json", method="HEAD")
    assert status == 200 and body == b"" and int(headers["Content-Length"]) == len(ask(server, "/slides.json")[2])


def test_every_answer_forbids_foreign_content_and_storing(results: Path, serve: Serve) -> None:
    server = serve(results)
    for path in ("/", "/nothing", "/slides/0/overview.jpg"):
        headers = ask(server, path)[1]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"


def test_it_listens_on_the_loopback_address_alone(results: Path, serve: Serve) -> None:
    assert serve(results).server_address[0] == "127.0.0.1"


def test_a_taken_or_impossible_port_is_one_line(results: Path, serve: Serve) -> None:
    taken = serve(results).server_port
    for port in (taken, 70_000):
        with pytest.raises(InputError, match=f"port {port} on 127.0.0.1 cannot be used .*--port"):
            Server(Content(Library(results)), port)


def test_without_a_port_the_usual_one_is_taken_or_a_free_one(
    results: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = serve(results).server_port
    monkeypatch.setattr("wsi_attention.viewer.server.VIEWER_PORT", taken)
    with serving(Content(Library(results))) as other:
        assert other.server_port != taken
    with pytest.raises(InputError, match=f"port {taken}"):
        serving(Content(Library(results)), taken)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = int(probe.getsockname()[1])
    monkeypatch.setattr("wsi_attention.viewer.server.VIEWER_PORT", free)
    with serving(Content(Library(results))) as usual:
        assert usual.server_port == free


def test_results_of_another_size_show_no_slide(results: Path, serve: Serve) -> None:
    path = results / "states/a.json"
    path.write_text(path.read_text().replace(f'"extent": [{EXTENT[0]}, {EXTENT[1]}]', '"extent": [3000, 2000]'))
    found = json.loads(ask(serve(results), "/slides/0/slide.json")[2])
    assert found["coarsest"] is None and "3001 x 2203 pixels, the result is of 3000 x 2000" in found["trouble"]


def test_a_damaged_prediction_is_told(results: Path, serve: Serve) -> None:
    path = results / "states/a.json"
    path.write_text(path.read_text().replace('"mpp": 0.5', '"mpp": -1'))
    status, _, body = ask(serve(results), "/slides/0/facts.json")
    assert status == 404 and b"mpp" in body
