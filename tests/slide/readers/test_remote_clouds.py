"""Slides in Google's and Microsoft's stores: real requests of gcsfs and adlfs to emulators on this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from wsi_attention.errors import SlideOpenError
from wsi_attention.slide.slide import open_slide

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sparse_slides import write_zarr

WHY = "needs gcsfs and gcp-storage-emulator, or adlfs and azurite-blob of npm's azurite (tox run -e remote)"
AZURITE = shutil.which("azurite-blob")
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of the account that every emulator has; Microsoft publishes it."""
GOOGLE = (
    "import sys; from gcp_storage_emulator.server import create_server;"
    " create_server('127.0.0.1', int(sys.argv[1]), in_memory=True, default_bucket='slides').run()"
)
EXIT = "from wsi_attention import open_slide; open_slide({url!r}).read((0, 0), 0, (30, 20))"


def there(scheme: str) -> bool:
    if scheme == "gs":
        return find_spec("gcsfs") is not None and find_spec("gcp_storage_emulator") is not None
    return find_spec("adlfs") is not None and AZURITE is not None


def command(scheme: str, port: int, folder: Path) -> list[str]:
    if scheme == "gs":
        return [sys.executable, "-c", GOOGLE, str(port)]
    quiet = ["--silent", "--disableTelemetry", "--skipApiVersionCheck", "--location", str(folder)]
    return [AZURITE or "", "--blobHost", "127.0.0.1", "--blobPort", str(port), *quiet]


def environment(scheme: str, port: int) -> dict[str, str]:
    """What a user sets for an emulator; gcsfs else asks Google by gRPC which kind of bucket it is."""
    if scheme == "gs":
        own = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}", "FSSPEC_GS_TOKEN": "anon"}
        return own | {"FSSPEC_GCS_TOKEN": "anon", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
    place = f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1"
    account = f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={KEY};{place};"
    return {"AZURE_STORAGE_CONNECTION_STRING": account}


def wait_for(port: int) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < until, "the emulator does not answer"
            time.sleep(0.1)


@pytest.fixture(scope="module", params=["gs", "az"])
def bucket(
    request: pytest.FixtureRequest, tiled_tiff: Path, ome_zarr: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a folder with the pyramid as TIFF, as OME-Zarr, and as OME-Zarr in shards."""
    scheme = request.param
    if not there(scheme):
        pytest.skip(WHY)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = subprocess.Popen(command(scheme, port, tmp_path_factory.mktemp(scheme)), stderr=subprocess.DEVNULL)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment(scheme, port).items():
                patch.setenv(name, value)
            patch_settings(patch, scheme)
            wait_for(port)
            yield filled(scheme, tiled_tiff, ome_zarr)
    finally:
        running.terminate()
        running.wait(20)


def patch_settings(patch: pytest.MonkeyPatch, scheme: str) -> None:
    """Read fsspec's settings again: it looked at its environment when it was imported."""
    from fsspec.config import conf, set_conf_env

    fresh: dict[str, dict[str, object]] = {}
    set_conf_env(fresh, dict(os.environ))
    for name in ("gs", "gcs"):
        patch.setitem(conf, name, fresh.get(name, {}))


def filled(scheme: str, tiled_tiff: Path, ome_zarr: Path) -> str:
    import fsspec

    system = fsspec.filesystem(scheme)
    if scheme == "az":
        system.mkdir("slides")
    system.put(str(tiled_tiff), "slides/ward/generic.tif")
    system.put(str(ome_zarr), "slides/ward/pyramid.ome.zarr", recursive=True)
    return f"{scheme}://slides/ward"


@pytest.mark.parametrize("name", ["generic.tif", "pyramid.ome.zarr"])
def test_the_same_as_the_file(name: str, bucket: str, tiled_tiff: Path, pyramid: tuple[np.ndarray, ...]) -> None:
    with open_slide(f"{bucket}/{name}") as far, open_slide(tiled_tiff.parent / name) as near:
        assert far.level_dimensions == near.level_dimensions
        assert far.fingerprint == near.fingerprint
        for level, expected in enumerate(pyramid):
            assert np.array_equal(far.read((0, 0), level, far.level_dimensions[level]), expected)


def test_shards(bucket: str, tmp_path: Path, pyramid: tuple[np.ndarray, ...]) -> None:
    """The index of a shard is its end, which Azure gives only after its size was asked for."""
    import fsspec

    write_zarr(tmp_path / "shards.ome.zarr", pyramid, lambda *_: False, shards=True)
    place = f"{bucket}/shards.ome.zarr"
    fsspec.filesystem(bucket[:2]).put(str(tmp_path / "shards.ome.zarr"), place, recursive=True)
    with open_slide(place) as far:
        assert np.array_equal(far.read((0, 0), 0, far.dimensions), pyramid[0])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none.svs", "no such file on the server"),
        ("none.zarr", "a zarr store without OME-Zarr"),
        ("", "a folder on the server, not a file"),
    ],
)
def test_nothing_there(name: str, says: str, bucket: str) -> None:
    with pytest.raises(SlideOpenError, match=says) as caught:
        open_slide(f"{bucket}/{name}".rstrip("/"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["generic.tif", "pyramid.ome.zarr"])
def test_a_program_that_read_one_ends_in_silence(name: str, bucket: str) -> None:
    program = EXIT.format(url=f"{bucket}/{name}")
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
