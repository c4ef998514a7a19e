"""Ranges of a local file's bytes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wsi_attention.errors import SlideError, TileReadError
from wsi_attention.slide.readers import bytes as byte_ranges
from wsi_attention.slide.readers.bytes import GAP, LocalBytes
from wsi_attention.slide.readers.sources import bytes_of

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.tif"
    path.write_bytes(CONTENT)
    return path


def test_ranges_come_in_the_order_asked(file: Path) -> None:
    source = bytes_of(str(file))
    assert isinstance(source, LocalBytes)
    assert (source.path, source.size) == (str(file), len(CONTENT))
    assert source.read([(300, 5), (0, 3), (10_239, 1), (7, 0)]) == [CONTENT[300:305], CONTENT[:3], b"\xff", b""]


def test_threads_share_one_descriptor(file: Path) -> None:
    source = LocalBytes(str(file))
    places = [(i * 97 % 10_000, 200) for i in range(400)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda place: source.read([place])[0], places))
    assert found == [CONTENT[offset : offset + count] for offset, count in places]


def test_neighbours_are_read_at_once_and_others_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "large.tif"
    path.write_bytes(CONTENT * 10)
    asked: list[tuple[int, int]] = []
    at = byte_ranges._at

    def remembering(descriptor: int, path: str, count: int, offset: int) -> bytes:
        asked.append((offset, count))
        return at(descriptor, path, count, offset)

    monkeypatch.setattr(byte_ranges, "_at", remembering)
    ranges = [(0, 100), (100, 50), (150 + GAP, 10), (161 + 2 * GAP, 7), (90_000, 1), (40, 90)]
    found = LocalBytes(str(path)).read(ranges)
    assert found == [(CONTENT * 10)[offset : offset + count] for offset, count in ranges]
    assert asked == [(0, 160 + GAP), (161 + 2 * GAP, 7), (90_000, 1)]


@pytest.mark.parametrize("place", [(10_000, 300), (2**40, 1), (2**64, 1), (-1, 5)])
def test_what_is_not_there_is_an_error(place: tuple[int, int], file: Path) -> None:
    with pytest.raises(TileReadError, match=r"a\.tif: "):
        LocalBytes(str(file)).read([place])


def test_closed_and_missing_files(file: Path, tmp_path: Path) -> None:
    source = LocalBytes(str(file))
    with source.file() as stream:
        source.close()
        source.close()
        assert stream.read(3) == CONTENT[:3]
    with pytest.raises(SlideError, match="open it again"):
        source.read([(0, 1)])
    with pytest.raises(FileNotFoundError):
        bytes_of(str(tmp_path / "none.tif"))
