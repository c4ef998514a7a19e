"""Slides behind URLs: the same pixels and fingerprint as the file, and one clear line when the server fails."""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from wsi_attention.errors import SlideError, SlideOpenError, TileReadError
from wsi_attention.slide.readers.remote import system as remote_system
from wsi_attention.slide.slide import open_slide

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from servers import Manners, Server, serving
from sparse_slides import write_zarr

QUICK = remote_system.Patience(connect=1, silent=0.3, total=1.5, attempts=3, pause=0.02, rest=5)
FILES = ["generic.tif", "pyramid.ome.tif", "pyramid.ome.zarr", "three.ome.zarr"]


@pytest.fixture(scope="module")
def stored(tiled_tiff: Path, ome_tiff: Path, ome_zarr: Path, write_ome_zarr: Callable[..., Path]) -> Path:
    """The folder with the pyramid in four formats."""
    if not (tiled_tiff.parent / "three.ome.zarr").exists():
        write_ome_zarr(tiled_tiff.parent / "three.ome.zarr", 3, "yxc")
    assert {ome_tiff.parent, ome_zarr.parent} == {tiled_tiff.parent}
    return tiled_tiff.parent


@pytest.fixture
def server(stored: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(remote_system, "PATIENCE", QUICK)
    with serving(stored) as running:
        yield running


@pytest.mark.parametrize("name", FILES)
def test_the_same_as_the_file(name: str, server: Server, stored: Path, pyramid: tuple[np.ndarray, ...]) -> None:
    with open_slide(server.url(name)) as far, open_slide(stored / name) as near:
        assert far.level_dimensions == near.level_dimensions
        assert far.mpp_xy == pytest.approx(near.mpp_xy)
        assert far.fingerprint == near.fingerprint
        for level, expected in enumerate(pyramid):
            assert np.array_equal(far.read((0, 0), level, far.level_dimensions[level]), expected)
        assert np.array_equal(far.read((-20, 380), 0, (100, 50)), near.read((-20, 380), 0, (100, 50)))


@pytest.mark.parametrize("name", FILES)
def test_reopens_in_another_process(name: str, server: Server, pyramid: tuple[np.ndarray, ...]) -> None:
    with open_slide(server.url(name)) as slide, pickle.loads(pickle.dumps(slide)) as again:
        assert np.array_equal(again.read((64, 64), 0, (30, 20)), pyramid[0][64:84, 64:94])


def test_only_the_chunks_that_are_needed(server: Server) -> None:
    with open_slide(server.url("pyramid.ome.zarr")) as slide:
        server.reset()
        slide.read((70, 70), 0, (100, 50))
        assert sorted(server.requests) == [f"GET /pyramid.ome.zarr/0/0.1.{column}" for column in (1, 2)]
        slide.read((100, 70), 0, (60, 50))
        assert len(server.requests) == 2


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("status", [500, 0, -1])
def test_a_server_that_fails_halfway(name: str, status: int, server: Server) -> None:
    with open_slide(server.url(name)) as slide:
        server.manners = Manners(fails=len(server.requests), status=status)
        started = time.monotonic()
        for place in range(0, 600, 100):
            with pytest.raises((TileReadError, SlideOpenError), match=f"^http.*{name}: ") as caught:
                slide.read((place, 300), 0, (50, 50))
            assert "\n" not in str(caught.value)
        assert time.monotonic() - started < 2 * QUICK.total


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("status", "says"), [(500, "answers 500"), (0, "in time"), (403, "refuses access")])
def test_a_server_that_never_answers(name: str, status: int, says: str, server: Server) -> None:
    server.manners = Manners(fails=0, status=status)
    started = time.monotonic()
    with pytest.raises(SlideOpenError, match=says) as caught:
        open_slide(server.url(name))
    assert time.monotonic() - started < 2 * QUICK.total
    assert str(caught.value).startswith(server.url(name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_server_that_stumbles(name: str, server: Server, pyramid: tuple[np.ndarray, ...]) -> None:
    server.manners = Manners(heals=1, status=503)
    with open_slide(server.url(name)) as slide:
        assert np.array_equal(slide.read((0, 0), 0, (70, 70)), pyramid[0][:70, :70])


@pytest.mark.parametrize("name", ["none.svs", "none.zarr", "none"])
def test_nothing_there(name: str, server: Server) -> None:
    with pytest.raises(SlideOpenError, match=r"no such file|no zarr|multiscales"):
        open_slide(server.url(name))


def test_a_page_is_no_slide(server: Server, stored: Path) -> None:
    (stored / "page.svs").write_text("<!doctype html><title>Log in</title>")
    with pytest.raises(SlideOpenError, match=r"page\.svs: "):
        open_slide(server.url("page.svs"))


@pytest.mark.parametrize("ends", [True, False])
def test_shards_of_a_server_that_gives_no_last_bytes(
    ends: bool, tmp_path: Path, pyramid: tuple[np.ndarray, ...]
) -> None:
    """A shard's index is its end, asked for once; where the server sends the whole instead, the size is asked for."""
    write_zarr(tmp_path / "a.ome.zarr", pyramid, lambda *_: False, shards=True)
    with serving(tmp_path, Manners(ends=ends)) as server, open_slide(server.url("a.ome.zarr")) as slide:
        for level in reversed(range(len(pyramid))):  # the last is a single shard
            assert np.array_equal(slide.read((0, 0), level, slide.level_dimensions[level]), pyramid[level])
        ends_asked = sum("bytes=-" in each for each in server.requests)
        sizes_asked = sum(each.startswith("HEAD") and "/c/" in each for each in server.requests)
    shards = len(list((tmp_path / "a.ome.zarr").glob("*/c/*/*/*")))
    assert (ends_asked, sizes_asked) == ((shards, 0) if ends else (1, shards))


def test_shards_of_a_server_that_gives_whole_files_only(tmp_path: Path, pyramid: tuple[np.ndarray, ...]) -> None:
    write_zarr(tmp_path / "a.ome.zarr", pyramid, lambda *_: False, shards=True)
    told = pytest.raises(TileReadError, match="the server gives whole files only, no ranges of bytes; download it")
    with serving(tmp_path, Manners(ranges=False)) as server, open_slide(server.url("a.ome.zarr")) as slide, told:
        slide.read((0, 0), 0, slide.dimensions)


def test_zip_stores_are_refused(server: Server) -> None:
    with pytest.raises(SlideOpenError, match="download it first"):
        open_slide(server.url("a.zarr.zip"))


@pytest.mark.parametrize("name", FILES)
def test_secrets_stay_secret(name: str, server: Server) -> None:
    server.manners.password = "YW5uOnNlY3JldA=="
    url = server.url(name).replace("//", "//ann:secret@")
    with open_slide(url) as slide:
        assert slide.path == server.url(name).replace("//", "//***@")
        server.manners.password = "other"
        with pytest.raises(SlideError) as caught:
            slide.read((100, 300), 0, (50, 50))
    with pytest.raises(SlideError, match="refuses access") as refused:
        open_slide(url)
    assert "secret" not in f"{caught.value!r} {refused.value!r} {slide!r}"
