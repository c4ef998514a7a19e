"""Files that unpack to gigabytes, and files that are none: refused at once, in little memory, without waiting."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import socket
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from wsi_attention.errors import SlideOpenError, TileReadError
from wsi_attention.slide.slide import open_slide

sys.path.insert(0, str(Path(__file__).resolve().parent))

from servers import serving
from sparse_slides import pyramid, write_zarr

Pixels = np.ndarray
CHUNK = "0/0.2.2"
READ = """
import resource, sys
from pathlib import Path
from wsi_attention.slide.slide import open_slide
try:
    with open_slide(sys.argv[1]) as slide:
        slide.read((128, 128), 0, (64, 64))
        print("read")
except Exception as error:
    print(type(error).__name__, str(error))
status = Path("/proc/self/status")  # where there is one: ru_maxrss begins with what the parent process has
told = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")] if status.exists() else []
most = int(told[0].split()[1]) if told else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(most // 1024)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_zarr(tmp_path_factory.mktemp("store") / "a.ome.zarr", pyramid(2), lambda *_: False)


def read_apart(path: Path) -> tuple[str, int]:
    """What reading says, and the MB it took, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    said, memory = done.stdout.strip().rsplit("\n", 1)
    return said, int(memory)


def zeros(packer: Callable[[bytes], bytes], size: int = 3 * 2**28) -> bytes:
    return packer(bytes(size))


def zlib_zeros() -> bytes:
    pack = zlib.compressobj(1)
    return b"".join([pack.compress(bytes(2**24)) for _ in range(48)] + [pack.flush()])


def zstd_zeros() -> bytes:
    import imagecodecs

    return bytes(imagecodecs.zstd_encode(bytes(3 * 2**28)))


def blosc_that_claims(size: int) -> bytes:
    from numcodecs import Blosc

    packed = bytearray(Blosc("zstd").encode(np.zeros(3 * 64 * 64, np.uint8)))
    packed[4:8] = size.to_bytes(4, "little")
    return bytes(packed)


PACKED: dict[str, Callable[[], bytes]] = {
    "zlib": zlib_zeros,
    "gzip": lambda: zeros(lambda whole: gzip.compress(whole, 1)),
    "bz2": lambda: zeros(bz2.compress, 2**27) * 6,
    "lzma": lambda: zeros(lambda whole: lzma.compress(whole, preset=0), 2**27) * 6,
    "zstd": zstd_zeros,
    "blosc": lambda: blosc_that_claims(2**31 - 17),
    "lz4": lambda: (2**31 - 1).to_bytes(4, "little") + bytes(100),
}


@pytest.mark.parametrize(
    "codec", [codec if codec in ("zlib", "zstd") else pytest.param(codec, marks=pytest.mark.slow) for codec in PACKED]
)
def test_a_chunk_that_unpacks_to_gigabytes(codec: str, store: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(store, tmp_path / "a.ome.zarr"))
    described = json.loads((path / "0/.zarray").read_text())
    (path / "0/.zarray").write_text(json.dumps(described | {"compressor": {"id": codec}}))
    (path / CHUNK).write_bytes(PACKED[codec]())
    said, memory = read_apart(path)
    assert said.startswith("TileReadError")
    assert "unpacks to more than its 12288 bytes" in said or "more than the" in said
    assert memory < 400


def test_an_honest_chunk_of_each_codec_is_read(store: Path, tmp_path: Path) -> None:
    from numcodecs import get_codec

    with open_slide(store) as slide:
        pixels = slide.read((128, 128), 0, (64, 64))
    for codec in PACKED:
        path = Path(shutil.copytree(store, tmp_path / f"{codec}.ome.zarr"))
        described = json.loads((path / "0/.zarray").read_text())
        (path / "0/.zarray").write_text(json.dumps(described | {"compressor": {"id": codec}}))
        (path / CHUNK).write_bytes(
            bytes(get_codec({"id": codec}).encode(np.ascontiguousarray(np.moveaxis(pixels, -1, 0))))
        )
        with open_slide(path) as slide:
            assert np.array_equal(slide.read((128, 128), 0, (64, 64)), pixels), codec


@pytest.mark.parametrize("name", [".zattrs", CHUNK])
def test_a_zip_entry_that_unpacks_to_gigabytes(name: str, store: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in sorted(file for file in store.rglob("*") if file.is_file()):
            relative = file.relative_to(store).as_posix()
            if relative != name:
                archive.write(file, relative)
        with archive.open(name, "w", force_zip64=True) as entry:
            for _ in range(48):
                entry.write(bytes(2**24))
    said, memory = read_apart(path)
    assert f"{name} has 805306368 bytes, more than the" in said
    assert memory < 400


def test_metadata_of_many_megabytes_and_deep_metadata(store: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(store, tmp_path / "a.ome.zarr"))
    (path / ".zattrs").write_text('{"a": "' + "a" * 2**24 + '"}')
    with pytest.raises(SlideOpenError, match="more than the 16777216 it can have"):
        open_slide(path)
    (path / ".zattrs").write_text('{"a": ' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(SlideOpenError, match="cannot open it"):
        open_slide(path)


def pipe(at: Path) -> None:
    os.mkfifo(at)


def link_out(at: Path) -> None:
    outside = at.resolve().parents[2] / "outside"
    outside.write_bytes(b"anything")
    at.symlink_to(outside)


def device(at: Path) -> None:
    at.symlink_to("/dev/zero")


STRANGE = {"pipe": pipe, "link out": link_out, "device": device}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_chunk_that_is_no_plain_file_of_the_store(kind: str, store: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(store, tmp_path / "in" / "a.ome.zarr"))
    (path / CHUNK).unlink()
    STRANGE[kind](path / CHUNK)
    said, memory = read_apart(path)
    assert said.startswith("SlideOpenError")
    assert "leads out of the store" in said if kind == "link out" else "no plain file" in said
    assert memory < 400


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_metadata_that_is_no_plain_file(kind: str, store: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(store, tmp_path / "in" / "a.ome.zarr"))
    (path / "0/.zarray").unlink()
    STRANGE[kind](path / "0/.zarray")
    assert "no plain file" in read_apart(path)[0]


def test_links_within_the_store_and_to_the_slide_are_followed(store: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(store, tmp_path / "a.ome.zarr"))
    (path / CHUNK).rename(path / "elsewhere")
    (path / CHUNK).symlink_to(path / "elsewhere")
    (tmp_path / "link.ome.zarr").symlink_to(path, target_is_directory=True)
    with open_slide(tmp_path / "link.ome.zarr") as slide:
        assert slide.read((128, 128), 0, (64, 64)).shape == (64, 64, 3)


@pytest.mark.parametrize("suffix", [".svs", ".dcm", ".zarr.zip"])
def test_a_slide_that_is_a_pipe_a_socket_or_a_device(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo(f"pipe{suffix}")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"socket{suffix}")
    Path(f"device{suffix}").symlink_to("/dev/zero")
    for name in ("pipe", "socket", "device"):
        for reader in ("auto", "openslide"):
            with pytest.raises(SlideOpenError, match=f"a {name}, not a slide"):
                open_slide(f"{name}{suffix}", reader)


def test_a_pipe_among_dicom_instances_and_a_link_out_of_a_mirax_folder(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "a.dcm").write_bytes(bytes(128) + b"DICM")
    os.mkfifo(tmp_path / "series" / "b.dcm")
    for path in (tmp_path / "series", tmp_path / "series" / "a.dcm"):
        with pytest.raises(SlideOpenError, match="is a pipe"):
            open_slide(path)
    (tmp_path / "m").mkdir()
    (tmp_path / "m.mrxs").write_bytes(b"\xff\xd8")
    (tmp_path / "m" / "Data0000.dat").symlink_to("/etc/hostname")
    with pytest.raises(SlideOpenError, match="leads out of its folder"):
        open_slide(tmp_path / "m.mrxs")


def test_a_tag_of_a_gigabyte(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), tile=(64, 64), photometric="rgb", description="a" * 100)
    whole = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages[0].tags["ImageDescription"]
    whole[tag.offset + 4 : tag.offset + 8] = struct.pack("<I", 2**30)
    path.write_bytes(whole)
    os.truncate(path, 2**30 + 2**20)  # sparse: no space is used
    said, memory = read_apart(path)
    assert "TIFF tag 270 claims 1073741824 bytes" in said
    assert memory < 400


@pytest.mark.parametrize("reader", ["tiff", "tiffslide"])
def test_a_tile_whose_jpeg_claims_to_be_huge(reader: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    rgb = np.full((256, 256, 3), 200, np.uint8)
    tifffile.imwrite(path, rgb, tile=(128, 128), photometric="rgb", compression="jpeg")
    with tifffile.TiffFile(path) as tif:
        start = tif.pages[0].dataoffsets[0]
    whole = bytearray(path.read_bytes())
    frame = whole.index(b"\xff\xc0", start)
    whole[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    path.write_bytes(whole)
    with open_slide(path, reader) as slide:
        with pytest.raises(TileReadError, match="a JPEG of 60000×60000 pixels in a tile of 128×128"):
            slide.read((0, 0), 0, (128, 128))
        assert slide.read((128, 128), 0, (128, 128)).mean() == pytest.approx(200, abs=2)


@pytest.mark.parametrize("name", [".zattrs", "0/.zarray", CHUNK])
@pytest.mark.parametrize("scheme", ["http", "memory"])
def test_a_file_of_a_store_elsewhere_that_is_too_large_is_not_fetched(
    name: str, scheme: str, store: Path, tmp_path: Path
) -> None:
    import fsspec

    path = Path(shutil.copytree(store, tmp_path / "a.ome.zarr"))
    (path / name).write_bytes(bytes(2**26))
    with serving(tmp_path) as server:
        url = server.url("a.ome.zarr")
        if scheme == "memory":
            url = f"memory://{tmp_path.name}/a.ome.zarr"
            fsspec.filesystem("memory").put(str(path), url, recursive=True)
        says = pytest.raises(
            (SlideOpenError, TileReadError), match=f"{name} has more than the [0-9]+ bytes that it can"
        )
        with says, open_slide(url) as slide:
            assert slide.read((0, 0), 0, (64, 64)).shape == (64, 64, 3)
            slide.read((128, 128), 0, (64, 64))
        assert server.sent < 2**25


def test_a_shard_whose_index_claims_a_huge_chunk(tmp_path: Path) -> None:
    from wsi_attention.testing.slides import SlideSpec, write_slide

    write_slide(tmp_path / "a.ome.zarr", SlideSpec(size=(1024, 1024)))
    shard = tmp_path / "a.ome.zarr/0/c/0/0/0"
    whole = bytearray(shard.read_bytes())
    chunks = 16
    place = len(whole) - 4 - 16 * chunks
    whole[place : place + 16] = struct.pack("<QQ", 0, 2**26)
    import google_crc32c  # zarr's own checksum of the index

    whole[-4:] = struct.pack("<I", google_crc32c.value(bytes(whole[place:-4])))
    shard.write_bytes(bytes(2**26) + whole)
    with open_slide(tmp_path / "a.ome.zarr") as slide, pytest.raises(TileReadError, match=r"67108864 bytes, more than"):
        slide.read((0, 0), 0, (64, 64))
