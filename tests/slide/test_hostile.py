"""Broken and hostile files: refused in one line at open, or they lose single tiles; never another exception."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from wsi_attention.errors import SeveralImagesError, SlideError, SlideOpenError, TileReadError, UnsupportedSlideError
from wsi_attention.slide.slide import open_slide

OPENS = {
    "derived/corrupt-jpeg-tile.svs", "derived/tile-past-eof.svs", "derived/zero-length-tile.svs", "derived/ok-mini.svs",
    "derived/mpp-decimal-comma.svs", "derived/mpp-not-a-number.svs", "derived/mpp-zero.svs", "derived/no-mpp.svs",
    "openslide-python/unreadable.svs",
}  # fmt: skip
SAYS = {
    "derived/truncated-60pct.svs": "truncated",
    "derived/empty.svs": "empty",
    "derived/ifd-loop.svs": "loop",
    "pillow/multipage_single_frame_loop.tiff": "loop",
    "pillow/multipage_multiple_frame_loop.tiff": "loop",
    "pillow/crash-f46f5b2f43c370fe65706c11449f567ecc345e74.tif": "23 of 23 strips lie past the end",
    "histolab/broken-html.svs": "web page",
    "openslide/CMU-1-Saved-1_16.mrxs": "without its folder",
    "highdicom/sm_image_grayscale.dcm": "BitsAllocated",
    "ez-wsi/label-only-1/test.dcm": "No pyramid levels",
}


def attempt(file: Path) -> str | None:
    """Opens and reads; the refusal's text, or None."""
    try:
        with open_slide(file) as slide:
            for level in range(len(slide.level_dimensions)):
                try:
                    assert slide.read((0, 0), level, (64, 64)).shape == (64, 64, 3)
                except TileReadError as error:
                    assert one_line_about(file, error)
            assert len(slide.fingerprint) == 64
            slide.oddities()
            slide.bytes_read(0, (0, 0), (64, 64))
    except SlideError as error:
        assert isinstance(error, SlideOpenError | UnsupportedSlideError | SeveralImagesError)
        assert one_line_about(file, error)
        return str(error)
    return None


def one_line_about(file: Path, error: Exception) -> bool:
    text = str(error)
    return text.startswith(f"{file}: ") and "\n" not in text and 20 < len(text) - len(str(file)) < 400


def test_malformed_files(shared_data: Path) -> None:
    folder = shared_data / "malformed"
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != "README.md")
    assert len(files) == 50
    for file in files:
        started = time.monotonic()
        found = attempt(file)
        name = str(file.relative_to(folder))
        assert time.monotonic() - started < 10, name
        assert (found is None) == (name in OPENS), (name, found)
        assert SAYS.get(name, "") in (found or ""), (name, found)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 * 2**20  # KiB


def test_slides_that_are_no_rgb_brightfield(shared_data: Path) -> None:
    for name, reason in {
        "generic-tiff/grey10kx5k.tif": "1 channel",
        "generic-tiff/test_orient1.tif": "1 channel",
        "generic-tiff/test_orient6.tif": "1 channel",
        "hamamatsu/test3-DAPI-2-(387).ndpi": "excitation wavelength of 387 nm",
        "ome-tiff/2010-06-18x24y5z1t2c8b-text.ome.tiff": "5 along Z",
        "ome-tiff/multi-channel.ome.tif": "3 along C",
        "ome-zarr/blobs_image_v04.ome.zarr": "float64",
        "ome-zarr/blobs_image_v05.ome.zarr": "float64",
    }.items():
        with pytest.raises(UnsupportedSlideError, match="brightfield") as caught:
            open_slide(shared_data / "slides" / name)
        assert reason in str(caught.value)
        assert one_line_about(shared_data / "slides" / name, caught.value)


def test_missing_file_and_plain_folder(tmp_path: Path) -> None:
    with pytest.raises(SlideOpenError, match=r"nothing\.svs: no such file"):
        open_slide(tmp_path / "nothing.svs")
    with pytest.raises(SlideOpenError, match="a folder that is neither"):
        open_slide(tmp_path)


def test_damaged_zips_never_leak_another_exception(tmp_path: Path, write_ome_zarr: Callable[..., Path]) -> None:
    whole = write_ome_zarr(tmp_path / "whole.zarr.zip").read_bytes()
    for index, content in enumerate(flipped(whole[-4000:], 5)):
        broken = tmp_path / f"{index}.zarr.zip"
        broken.write_bytes(whole[:-4000] + content)
        attempt(broken)


def flipped(whole: bytes, seed: int) -> Iterator[bytes]:
    rng = np.random.default_rng(seed)
    for _ in range(25):
        broken = bytearray(whole)
        for place in rng.integers(0, len(whole), 12):
            broken[place] = int(rng.integers(0, 256))
        yield bytes(broken)
    for share in (0.01, 0.1, 0.5, 0.9, 0.99):
        yield whole[: int(len(whole) * share)]


@pytest.mark.parametrize("fixture", ["tiled_tiff", "ome_tiff"])
def test_damaged_tiffs_never_leak_another_exception(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source: Path = request.getfixturevalue(fixture)
    whole = source.read_bytes()
    for index, content in enumerate(flipped(whole, 3)):
        broken = tmp_path / f"{index}.tif"
        broken.write_bytes(content)
        attempt(broken)


def test_damage_in_the_index_never_leaks_another_exception(tiled_tiff: Path, tmp_path: Path) -> None:
    import tifffile

    whole = bytearray(tiled_tiff.read_bytes())
    with tifffile.TiffFile(tiled_tiff) as tif:
        places = [page.offset for page in tif.pages]
    rng = np.random.default_rng(4)
    for index in range(40):
        broken = whole.copy()
        place = places[index % len(places)] + int(rng.integers(0, 200))
        broken[place : place + 4] = rng.bytes(4)
        file = tmp_path / f"{index}.tif"
        file.write_bytes(broken)
        attempt(file)
