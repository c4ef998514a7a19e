"""TIFFs that end before what their tags point at: refused, or noted where the slide's own pixels are all there."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tiff_kinds import write_kind

from wsi_attention.errors import SlideOpenError, TileReadError
from wsi_attention.slide.readers.tiff import tag_sizes
from wsi_attention.slide.slide import open_slide

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from servers import serving

MPP = {f"PhysicalSize{axis}": 0.5 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
TILED = {"tile": (64, 64), "photometric": "rgb", "compression": "zlib"}
RESOLUTION = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}


def levels() -> Iterator[np.ndarray]:
    rgb = np.random.default_rng(0).integers(60, 220, (1024, 1024, 3), np.uint8)
    return iter((rgb, rgb[::2, ::2], rgb[::4, ::4]))


def pyramid(path: Path, ome: bool) -> Path:
    """Levels in SubIFDs; of an OME-TIFF its text comes last."""
    with tifffile.TiffWriter(path, bigtiff=True, ome=ome) as file:
        for index, level in enumerate(levels()):
            first = {"subifds": 2, "metadata": {"axes": "YXS", **MPP} if ome else None}
            file.write(level, **TILED, **RESOLUTION, **({"subfiletype": 1, "metadata": None} if index else first))
    return path


def single(path: Path) -> Path:
    tifffile.imwrite(path, next(levels()), metadata=None, **TILED, **RESOLUTION)
    return path


def cut(path: Path, to: int | float) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: to if isinstance(to, int) else int(len(whole) * to)])
    return path


@pytest.mark.parametrize("share", [0.99, 0.95, 0.9, 0.8])
def test_an_ome_tiff_without_its_end_is_refused_by_all_readers(share: float, tmp_path: Path) -> None:
    path = pyramid(tmp_path / "a.ome.tif", ome=True)
    assert open_slide(path).notes == ()
    cut(path, share)
    for reader in ("auto", "tiff", "openslide", "tiffslide"):
        with pytest.raises(SlideOpenError, match=r"lies past the end of the file \(\d+ bytes\): the file is truncated"):
            open_slide(path, reader)


def test_a_sub_directory_past_the_end_is_refused(tmp_path: Path) -> None:
    path = pyramid(tmp_path / "a.tif", ome=False)
    with tifffile.TiffFile(path) as tif:
        last = tif.pages[0].pages[1].offset
    with pytest.raises(SlideOpenError, match="a TIFF directory lies past the end"):
        open_slide(cut(path, int(last)))


@pytest.mark.parametrize("reader", ["auto", "tiff", "openslide"])
def test_a_tile_past_the_end_is_noted_and_unread(reader: str, tmp_path: Path) -> None:
    path = write_kind(tmp_path / "a.tif", list(levels()), "jpeg-420")
    whole = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        offsets = tif.pages[0].tags["TileOffsets"]
    struct.pack_into("<I", whole, offsets.valueoffset + 4 * 255, len(whole) - 10)
    path.write_bytes(whole)
    with open_slide(path, reader) as slide:
        (note,) = [note for note in slide.notes if "its tags point as far as" in note]
        assert f"ends at byte {len(whole)}" in note
        with pytest.raises(TileReadError):
            slide.read((960, 960), 0, (64, 64))
        assert slide.read((0, 0), 0, (64, 64)).std() > 5


def test_a_level_that_is_not_used_past_the_end_is_noted(tmp_path: Path) -> None:
    path = cut(pyramid(tmp_path / "a.tif", ome=False), 0.99)
    with open_slide(path) as slide:
        assert any("its tags point as far as" in note for note in slide.notes)


def test_the_same_over_a_network(tmp_path: Path) -> None:
    cut(single(tmp_path / "tiles.tif"), 0.97)
    cut(pyramid(tmp_path / "text.ome.tif", ome=True), 0.99)
    with serving(tmp_path) as server:
        with open_slide(server.url("tiles.tif")) as slide:
            assert any("its tags point as far as" in note for note in slide.notes)
        with pytest.raises(SlideOpenError, match="TIFF tag 270 lies past the end of the file"):
            open_slide(server.url("text.ome.tif"))


def test_a_tag_of_a_gigabyte_over_a_network_is_not_fetched(tmp_path: Path) -> None:
    path = single(tmp_path / "a.tif")
    whole = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages[0].tags["TileOffsets"]
    whole[tag.offset + 4 : tag.offset + 8] = struct.pack("<I", 2**28)
    path.write_bytes(whole)
    with serving(tmp_path) as server:
        with pytest.raises(SlideOpenError, match="TIFF tag 324 claims 1073741824 bytes, more than any slide's"):
            open_slide(server.url("a.tif"))
        assert server.sent < 2**20


def test_tiles_that_are_not_stored_point_nowhere(tmp_path: Path) -> None:
    path = single(tmp_path / "a.tif")
    whole = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        offsets, counts = (tif.pages[0].tags[name] for name in ("TileOffsets", "TileByteCounts"))
    struct.pack_into("<I", whole, offsets.valueoffset, 2**31)
    struct.pack_into({3: "<H", 4: "<I"}[int(counts.dtype)], whole, counts.valueoffset, 0)
    path.write_bytes(whole)
    assert tag_sizes.notes_on_file(str(path)) == ()


def test_tables_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = single(tmp_path / "a.tif")
    monkeypatch.setattr(tag_sizes, "AT_ONCE", 7)
    with path.open("rb") as stream:
        size = path.stat().st_size
        assert tag_sizes.notes_on_tags(stream, size, "a") == ()
        assert tag_sizes.notes_on_tags(stream, size - 1, "a") != ()
