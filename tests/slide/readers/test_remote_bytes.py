"""Ranges over a real web server: few requests, the right bytes, and an end to waiting whatever the server does."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsi_attention.errors import MissingExtraError, SlideError, SlideOpenError, TileReadError
from wsi_attention.slide.readers.remote import system as remote_system
from wsi_attention.slide.readers.remote.byte_ranges import RemoteBytes
from wsi_attention.slide.readers.remote.objects import HEAD, STORES
from wsi_attention.slide.readers.sources import bytes_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from servers import Manners, Server, serving

CONTENT = random.Random(0).randbytes(3_000_000)
QUICK = remote_system.Patience(connect=1, silent=0.3, total=1.5, attempts=3, pause=0.02, rest=5)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    (tmp_path / "slide.bin").write_bytes(CONTENT)
    (tmp_path / "empty.bin").write_bytes(b"")
    monkeypatch.setattr(remote_system, "PATIENCE", QUICK)
    with serving(tmp_path) as running:
        yield running


def scattered(n: int, seed: int = 1) -> list[tuple[int, int]]:
    """Ranges of 100 to 5,000 bytes in rising order, some of them overlapping or the same."""
    rng = random.Random(seed)
    return sorted((rng.randrange(len(CONTENT) - 5000), rng.randrange(100, 5000)) for _ in range(n))


def cut(ranges: list[tuple[int, int]]) -> list[bytes]:
    return [CONTENT[offset : offset + count] for offset, count in ranges]


@pytest.mark.parametrize("several", [True, False])
def test_ranges_come_in_the_order_asked(server: Server, several: bool) -> None:
    server.manners.several = several
    source = bytes_of(server.url("slide.bin"))
    assert source.size == len(CONTENT)
    ranges = scattered(50)
    random.Random(2).shuffle(ranges)
    ranges += [(5, 0), (len(CONTENT) - 1, 1), (0, 1), ranges[0]]
    assert source.read(ranges) == cut(ranges)


def test_many_tiles_cost_few_requests_and_few_bytes(server: Server) -> None:
    source = RemoteBytes(server.url("slide.bin"))
    server.reset()
    ranges = [(offset, 2000) for offset in range(0, len(CONTENT) - 4000, 11_000)]
    assert source.read(ranges) == cut(ranges)
    assert len(server.requests) == -(-len(ranges) // 32)
    assert server.sent < 1.1 * sum(count for _, count in ranges)


def test_neighbours_are_fetched_by_one_request_where_a_request_takes_one_range(server: Server) -> None:
    server.manners.several = False
    source = RemoteBytes(server.url("slide.bin"))
    source.read([(0, 10), (1_000_000, 10)])
    server.reset()
    assert source.read([(0, 2000), (4000, 2000), (2_000_000, 100)]) == cut([(0, 2000), (4000, 2000), (2_000_000, 100)])
    assert sorted(server.requests) == ["GET /slide.bin bytes=0-5999", "GET /slide.bin bytes=2000000-2000099"]


@pytest.mark.parametrize("header", STORES)
def test_an_object_store_is_never_asked_for_several_ranges_at_once(server: Server, header: str) -> None:
    """It would begin to send the whole object, of which some megabytes are under way before anybody stops it."""
    server.manners = Manners(several=False, header=header)
    ranges = [(offset, 2000) for offset in range(100_000, 2_900_000, 400_000)]
    assert RemoteBytes(server.url("slide.bin")).read(ranges) == cut(ranges)
    assert all("," not in request for request in server.requests)
    assert len(server.requests) == 1 + len(ranges)
    assert server.sent == HEAD + sum(count for _, count in ranges)


def test_gaps_that_are_fetched_cost_at_most_half_of_what_is_wanted(server: Server) -> None:
    server.manners = Manners(several=False, header=STORES[0])
    source = RemoteBytes(server.url("slide.bin"))
    server.reset()
    ranges = [(number * (25_000 + 300 * number), 20_000) for number in range(1, 60)]
    assert source.read(ranges) == cut(ranges)
    wanted = sum(count for _, count in ranges)
    assert len(server.requests) < len(ranges) and wanted < server.sent <= 1.5 * wanted


def test_the_file_is_fetched_in_blocks(server: Server) -> None:
    server.reset()
    with RemoteBytes(server.url("slide.bin")).file() as file:
        assert (file.read(10), file.tell()) == (CONTENT[:10], 10)
        assert len(server.requests) == 1
        for place in (2_000_000, 2_000_500, 1_999_999, 2_030_000):
            file.seek(place)
            assert file.read(300) == CONTENT[place : place + 300]
        assert len(server.requests) <= 3
        file.seek(100_000)
        assert file.read(1_500_000) == CONTENT[100_000:1_600_000]
        assert len(server.requests) <= 4
        assert file.seek(-7, 2) == len(CONTENT) - 7
        assert file.read() == CONTENT[-7:]
        assert file.read(5) == b""


def test_reading_on_gets_ahead(server: Server) -> None:
    with RemoteBytes(server.url("slide.bin")).file() as file:
        server.reset()
        assert b"".join(iter(lambda: file.read(1000), b"")) == CONTENT
    assert len(server.requests) <= 15
    assert server.sent == len(CONTENT) - HEAD


@pytest.mark.parametrize("status", [500, 503, 0, -1])
def test_a_server_that_recovers_is_asked_again(server: Server, status: int) -> None:
    server.manners = server.manners.__class__(status=status, heals=2)
    assert RemoteBytes(server.url("slide.bin")).read([(1_000_000, 500_000)]) == cut([(1_000_000, 500_000)])


@pytest.mark.parametrize(("status", "says"), [(500, "answers 500"), (0, "time"), (-1, "again later"), (403, "refuses")])
def test_a_server_that_fails_halfway_is_given_up(server: Server, status: int, says: str) -> None:
    source = RemoteBytes(server.url("slide.bin"))
    server.manners = Manners(fails=len(server.requests), status=status)
    started = time.monotonic()
    with pytest.raises(TileReadError, match=says) as caught:
        source.read(scattered(100))
    assert time.monotonic() - started < QUICK.total + 1
    assert str(caught.value).startswith(server.url("slide.bin"))
    assert "\n" not in str(caught.value)


def test_a_url_that_was_given_up_fails_at_once_for_a_while(server: Server) -> None:
    source = RemoteBytes(server.url("slide.bin"))
    server.manners = Manners(fails=0)
    with pytest.raises(TileReadError):
        source.read([(100_000, 10)])
    server.reset()
    for _ in range(5):
        with pytest.raises(SlideOpenError, match="answers 500"):
            RemoteBytes(server.url("slide.bin"))
    assert not server.requests
    server.manners = Manners()
    remote_system.GIVEN_UP.add(source.path, "past", -1)
    assert source.read([(100_000, 10)]) == cut([(100_000, 10)])


def test_a_server_without_ranges_is_told_of_the_cache(server: Server) -> None:
    server.manners.ranges = False
    with pytest.raises(SlideOpenError, match=r"whole files only.*--cache FOLDER 3\.0 MB"):
        RemoteBytes(server.url("slide.bin"))


@pytest.mark.parametrize(("name", "says"), [("none.bin", "no such file"), ("empty.bin", "is empty")])
def test_files_that_are_none(server: Server, name: str, says: str) -> None:
    with pytest.raises(SlideOpenError, match=says):
        RemoteBytes(server.url(name))


def test_nobody_listens(server: Server) -> None:
    with pytest.raises(SlideOpenError, match="again later"):
        RemoteBytes("http://127.0.0.1:9/slide.svs")


def test_passwords_are_sent_and_not_shown(server: Server) -> None:
    server.manners.password = "YW5uOnNlY3JldA=="
    url = server.url("slide.bin?token=abc&part=1").replace("//", "//ann:secret@")
    source = RemoteBytes(url)
    assert source.read([(5, 5)]) == cut([(5, 5)])
    assert source.path == server.url("slide.bin?token=***&part=1").replace("//", "//***@")
    server.manners.password = "other"
    with pytest.raises(SlideOpenError, match="refuses access") as caught:
        RemoteBytes(url)
    assert "secret" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_a_file_that_changes_while_it_is_read(server: Server, tmp_path: Path) -> None:
    source = RemoteBytes(server.url("slide.bin"))
    (tmp_path / "slide.bin").write_bytes(CONTENT[:-10])
    with pytest.raises(TileReadError, match="size has changed"):
        source.read([(100_000, 10)])


def test_ranges_past_the_end_and_after_closing(server: Server) -> None:
    source = RemoteBytes(server.url("slide.bin"))
    with pytest.raises(TileReadError, match="truncated"):
        source.read([(len(CONTENT) - 5, 6)])
    source.close()
    source.close()
    with pytest.raises(SlideError, match="was closed"):
        source.read([(0, 1)])


def test_other_file_systems(tmp_path: Path) -> None:
    (tmp_path / "slide.bin").write_bytes(CONTENT)
    source = RemoteBytes(f"file://{tmp_path}/slide.bin")
    assert source.read(scattered(40)) == cut(scattered(40))
    with source.file() as file:
        assert file.read() == CONTENT
    with pytest.raises(SlideOpenError, match="no such file"):
        RemoteBytes(f"file://{tmp_path}/none.bin")


@pytest.mark.parametrize(
    ("url", "error", "says"),
    [
        ("nothing://a/b.svs", SlideOpenError, "nothing"),
        ("gdrive://a/b.svs", MissingExtraError, r"gdrive:// needs a package .*\(Please install gdrive[^;]*\)$"),
    ],
)
def test_schemes_that_are_not_there(url: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        RemoteBytes(url)
