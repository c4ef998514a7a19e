"""Slides in an S3 bucket: a real S3-compatible server on this machine (moto's), real requests by s3fs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from wsi_attention.errors import SlideOpenError
from wsi_attention.slide.readers.remote import system as remote_system
from wsi_attention.slide.readers.remote.byte_ranges import RemoteBytes
from wsi_attention.slide.slide import open_slide

pytest.importorskip("moto", reason="needs moto[server] and s3fs (tox run -e remote)")
pytest.importorskip("s3fs", reason="needs moto[server] and s3fs (tox run -e remote)")

QUICK = remote_system.Patience(connect=1, silent=1, total=4, attempts=2, pause=0.02, rest=5)
RUN = (
    "import sys; from moto.server import ThreadedMotoServer; s = ThreadedMotoServer('127.0.0.1', 0, verbose=False);"
    " s.start(); print(*s.get_host_and_port(), flush=True); sys.stdin.read()"
)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of a server in a process of its own; it ends when its stdin closes."""
    process = subprocess.Popen([sys.executable, "-c", RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield "http://{}:{}".format(*process.stdout.readline().split())
    finally:
        process.communicate()


@pytest.fixture(scope="module")
def bucket(endpoint: str, tiled_tiff: Path, ome_zarr: Path) -> Iterator[str]:
    """A bucket with the pyramid as TIFF and as OME-Zarr; fsspec is set up for it as a user would do it."""
    from fsspec.config import conf

    before = {name: os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    os.environ |= dict.fromkeys(before, "testing")
    conf["s3"] = {"endpoint_url": endpoint}
    import s3fs

    system = s3fs.S3FileSystem()
    system.mkdir("slides")
    system.put(str(tiled_tiff), "slides/ward/generic.tif")
    system.put(str(ome_zarr), "slides/ward/pyramid.ome.zarr", recursive=True)
    yield "s3://slides/ward"
    del conf["s3"]
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@pytest.mark.parametrize("name", ["generic.tif", "pyramid.ome.zarr"])
def test_the_same_as_the_file(name: str, bucket: str, tiled_tiff: Path, pyramid: tuple[np.ndarray, ...]) -> None:
    with open_slide(f"{bucket}/{name}") as far, open_slide(tiled_tiff.parent / name) as near:
        assert far.level_dimensions == near.level_dimensions
        assert far.fingerprint == near.fingerprint
        for level, expected in enumerate(pyramid):
            assert np.array_equal(far.read((0, 0), level, far.level_dimensions[level]), expected)


def test_ranges(bucket: str, tiled_tiff: Path) -> None:
    content = tiled_tiff.read_bytes()
    source = RemoteBytes(f"{bucket}/generic.tif")
    ranges = [(offset, 700) for offset in range(0, len(content) - 700, 50_000)]
    assert source.size == len(content)
    assert source.version
    assert source.read(ranges) == [content[offset : offset + count] for offset, count in ranges]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://slides/none.svs", "no such file"),
        ("s3://slides/none.zarr", "no zarr|multiscales|no such file"),
        ("s3://nowhere/a.svs", "no such file"),
        ("s3://slides/ward", "s3://slides/ward"),
    ],
)
def test_nothing_there(url: str, says: str, bucket: str) -> None:
    with pytest.raises(SlideOpenError, match=says) as caught:
        open_slide(url)
    assert "\n" not in str(caught.value)


def test_nobody_listens(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.config import conf

    monkeypatch.setattr(remote_system, "PATIENCE", QUICK)
    monkeypatch.setitem(conf, "s3", {"endpoint_url": "http://127.0.0.1:9"})
    with pytest.raises(SlideOpenError, match="again later"):
        open_slide("s3://slides/ward/generic.tif")
