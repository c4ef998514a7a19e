"""The cache folder: nothing is fetched twice, killed runs leave nothing that counts, and it stays small."""

from __future__ import annotations

import logging
import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import warm_python

from wsi_attention.errors import InputError, SlideOpenError
from wsi_attention.slide.readers.remote import cache as remote_cache
from wsi_attention.slide.readers.remote import system as remote_system
from wsi_attention.slide.readers.remote.byte_ranges import RemoteBytes
from wsi_attention.slide.readers.remote.cache import RemoteCache
from wsi_attention.slide.readers.remote.objects import HEAD
from wsi_attention.slide.readers.remote.recent import RECENT

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from servers import Manners, Server, serving

CONTENT = random.Random(0).randbytes(3_000_000)
RANGES = [(offset, 900) for offset in range(100_000, 2_900_000, 40_000)]
QUICK = remote_system.Patience(connect=1, silent=0.3, total=1.5, attempts=3, pause=0.02, rest=0.0)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(remote_cache.FOLDER_VARIABLE, str(folder))
    monkeypatch.setattr(remote_system, "PATIENCE", QUICK)
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "slide.bin").write_bytes(CONTENT)
    with serving(tmp_path / "served") as running:
        yield running


def read_all(server: Server, name: str = "slide.bin") -> None:
    """Reads ranges and the file's beginning, and checks them."""
    source = RemoteBytes(server.url(name))
    assert source.read(RANGES) == [CONTENT[offset : offset + count] for offset, count in RANGES]
    with source.file() as file:
        assert file.read(300_000) == CONTENT[:300_000]
    source.close()


def test_a_second_run_asks_only_whether_the_file_is_the_same(server: Server, cache: Path) -> None:
    read_all(server)
    server.reset()
    RECENT.clear()  # as in another process
    read_all(server)
    assert server.requests == [f"GET /slide.bin bytes=0-{HEAD - 1}"]


def test_a_changed_file_is_fetched_again(server: Server, cache: Path, tmp_path: Path) -> None:
    read_all(server)
    changed = bytes(255 - value for value in CONTENT)
    (tmp_path / "served" / "slide.bin").write_bytes(changed)
    assert RemoteBytes(server.url("slide.bin")).read([RANGES[0]]) == [changed[RANGES[0][0] : sum(RANGES[0])]]


def test_without_a_cache_nothing_is_written(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(remote_cache.FOLDER_VARIABLE)
    read_all(server)
    assert not cache.exists()


def test_a_shortened_piece_is_fetched_again(server: Server, cache: Path) -> None:
    read_all(server)
    piece = next(cache.glob(f"*/{RANGES[9][0]}-900"))
    piece.write_bytes(piece.read_bytes()[:100])
    RECENT.clear()  # as in another process
    read_all(server)
    assert piece.stat().st_size == 900


def test_a_server_without_ranges_is_fetched_whole_and_once(
    server: Server, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.manners.ranges = False
    with caplog.at_level(logging.INFO, "wsi_attention.download"):
        read_all(server)
    assert re.search(r"slide\.bin: [01] of 3 MB fetched", caplog.text)
    server.reset()
    read_all(server)
    assert len(server.requests) == 1  # asks whether the file is still the same, and takes no more of it
    assert sorted(file.name for file in cache.glob("*/*")) == ["about.json", "whole"]


def test_a_download_that_breaks_off_leaves_nothing(server: Server, cache: Path) -> None:
    server.manners = Manners(ranges=False, fails=1, status=-1)
    with pytest.raises(SlideOpenError, match="again later"):
        RemoteBytes(server.url("slide.bin"))
    assert [file.name for file in cache.glob("*/*")] == ["about.json"]
    server.manners = Manners(ranges=False)
    read_all(server)


def test_a_killed_download_is_not_taken_for_the_file(server: Server, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "served" / "large.bin").write_bytes(CONTENT * 16)
    server.manners = Manners(ranges=False, fails=1, status=-2)
    code = (
        "import sys; from wsi_attention.slide.readers.remote.byte_ranges import RemoteBytes; RemoteBytes(sys.argv[1])"
    )
    process = warm_python.Popen([sys.executable, "-c", code, server.url("large.bin")], env={**os.environ})
    while not list(cache.glob("*/.whole*")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(cache.glob("*/whole"))
    server.manners = Manners(ranges=False)
    assert RemoteBytes(server.url("large.bin")).read([(30_000_000, 9)]) == [CONTENT[:9]]


def test_files_used_longest_ago_leave(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RemoteCache(cache, 2500)
    for number in range(4):
        monkeypatch.setattr(remote_cache, "_LOOKED", {})
        slot = folder.slot(f"https://server/{number}.svs", "v", 10)
        os.utime(slot.folder / remote_cache.MARK, (number, number))
        slot.put((0, 1000), bytes(1000))
    monkeypatch.setattr(remote_cache, "_LOOKED", {})
    last = folder.slot("https://server/3.svs", "v", 10)
    assert last.get((0, 1000)) == bytes(1000)
    assert folder.slot("https://server/0.svs", "v", 10).get((0, 1000)) is None
    assert sum(1 for _ in cache.glob("*/0-1000")) == 2


def test_other_files_in_the_folder_are_left_alone(cache: Path) -> None:
    (cache / "mine").mkdir(parents=True)
    (cache / "mine" / "notes.txt").write_text("x" * 5000)
    RemoteCache(cache, 100).slot("https://server/0.svs", "v", 10)
    assert (cache / "mine" / "notes.txt").exists()


def test_a_file_larger_than_the_cache(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.manners.ranges = False
    monkeypatch.setenv(remote_cache.LIMIT_VARIABLE, "0.001")
    with pytest.raises(SlideOpenError, match=r"3.0 MB do not fit .* 0\.001 GB"):
        RemoteBytes(server.url("slide.bin"))
    monkeypatch.setenv(remote_cache.LIMIT_VARIABLE, "much")
    with pytest.raises(InputError, match="'much' is not a positive number"):
        RemoteBytes(server.url("slide.bin"))


def test_a_folder_that_cannot_be_one(server: Server, cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(InputError, match="cannot be written to"):
        RemoteBytes(server.url("slide.bin"))


@pytest.mark.parametrize("versions", [True, False])
def test_a_cache_that_nobody_asked_for_never_takes_one_version_for_another(
    versions: bool, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that tells no version: the next process must not see bytes of the file as it was."""
    monkeypatch.delenv(remote_cache.FOLDER_VARIABLE, raising=False)
    server.manners.versions = versions
    changed = bytes(byte ^ 255 for byte in CONTENT)
    with remote_cache.by_default(tmp_path / "fetched"):
        for content in (CONTENT, changed):
            (tmp_path / "served" / "slide.bin").write_bytes(content)
            RECENT.clear()
            source = RemoteBytes(server.url("slide.bin"))
            assert source.read(RANGES) == [content[offset : offset + count] for offset, count in RANGES]
    assert (tmp_path / "fetched").exists() == versions


def test_a_range_is_listed_once(tmp_path: Path) -> None:
    slot = RemoteCache(tmp_path, 1e9).slot("url", "1", 100)
    for _ in range(3):
        slot.put((0, 50), bytes(50))
    assert slot._ranges == [(0, 50)] and slot.get((10, 20)) == bytes(20)
