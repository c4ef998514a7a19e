"""Tiles and indices that cannot be trusted: they fail singly, or the slide does, in one line."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from tiff_kinds import write_kind
from tiff_philips import write_philips

from wsi_attention.errors import SlideOpenError, TileReadError
from wsi_attention.slide.readers.tiff.index import MISSING, OVERLAPS, _mark_overlaps
from wsi_attention.slide.readers.tiff.index import SOUND as SOUND_TILE
from wsi_attention.slide.readers.tiff.reader import TiffReader
from wsi_attention.slide.slide import open_slide

SOUND = (0, 0)
BAD = (64, 64)


def overwritten(file: Path, tag: str, values: dict[int, int], page: int = 0) -> Path:
    """Some values of a tag, in place."""
    with tifffile.TiffFile(file) as tif:
        found = tif.pages[page].tags[tag]
        place, kind = found.valueoffset, {3: "H", 4: "I", 16: "Q"}[int(found.dtype)]
    content = bytearray(file.read_bytes())
    for index, value in values.items():
        struct.pack_into(f"<{kind}", content, place + index * struct.calcsize(kind), value)
    file.write_bytes(content)
    return file


@pytest.fixture
def jpeg(tmp_path: Path, pyramid: tuple[np.ndarray, ...]) -> Path:
    return write_kind(tmp_path / "slide.tif", pyramid, "jpeg-420")


def fails_alone(file: Path, says: str) -> None:
    """The tile at `BAD` cannot be read, the first can, in one request and one by one."""
    reader = TiffReader(str(file))
    with pytest.raises(TileReadError, match=says):
        reader.read(BAD, 0, (64, 64))
    out = np.full((3, 64, 64, 3), 7, np.uint8)
    reasons = reader.read_regions(np.array([SOUND, BAD, (40, 40)]), 0, (64, 64), out)
    assert [reason is None for reason in reasons] == [True, False, False]
    assert all(says in (reason or says) and "\n" not in (reason or "") for reason in reasons)
    assert out[0].std() > 1
    with open_slide(file, reader="tiff") as slide, pytest.raises(TileReadError, match=r"slide\.tif: 64×64 pixels"):
        slide.read(BAD, 0, (64, 64))


def zeroed(file: Path, share: float) -> Path:
    """The end of the tile at `BAD` becomes zeros, a share of its bytes."""
    with tifffile.TiffFile(file) as tif:
        page = tif.pages[0]
        start, count = int(page.dataoffsets[11]), int(page.databytecounts[11])
    content, lost = bytearray(file.read_bytes()), round(share * count)
    content[start + count - lost : start + count] = bytes(lost)
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_jpeg_without_its_end(share: float, jpeg: Path) -> None:
    fails_alone(zeroed(jpeg, share), "the last bytes of a tile are zeros")


def test_a_jpeg_filled_up_with_zeros_behind_its_end(jpeg: Path) -> None:
    with tifffile.TiffFile(jpeg) as tif:
        start, count = int(tif.pages[0].dataoffsets[11]), int(tif.pages[0].databytecounts[11])
    before = TiffReader(str(jpeg)).read(BAD, 0, (64, 64))
    longer = jpeg.read_bytes()
    tile = longer[start : start + count]
    jpeg.write_bytes(longer + tile + bytes(14))
    overwritten(overwritten(jpeg, "TileOffsets", {11: len(longer)}), "TileByteCounts", {11: count + 14})
    assert np.array_equal(TiffReader(str(jpeg)).read(BAD, 0, (64, 64)), before)


def test_an_offset_past_the_end(jpeg: Path) -> None:
    fails_alone(overwritten(jpeg, "TileOffsets", {11: 2**31}), "lies past the end of the file")


def test_a_count_past_the_end(jpeg: Path) -> None:
    size = jpeg.stat().st_size
    fails_alone(overwritten(jpeg, "TileOffsets", {11: size - 10}), "lies past the end of the file")


def test_overlapping_tiles(jpeg: Path) -> None:
    with tifffile.TiffFile(jpeg) as tif:
        offsets = tif.pages[0].dataoffsets
    overwritten(jpeg, "TileOffsets", {11: offsets[12] + 5})
    fails_alone(jpeg, "shares bytes with another tile")
    with open_slide(jpeg, reader="tiff") as slide, pytest.raises(TileReadError):
        slide.read((128, 64), 0, (64, 64))


def test_overlaps_are_found_as_by_comparing_each_with_each() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        levels = [
            (rng.integers(0, 30, n), rng.integers(1, 6, n), np.where(rng.random(n) < 0.8, SOUND_TILE, MISSING))
            for n in rng.integers(1, 12, 2)
        ]
        tiles = [tuple(map(int, tile)) for level in levels for tile in zip(*level, strict=True)]
        _mark_overlaps(levels)
        found = [int(state) for _, _, states in levels for state in states]
        for (start, count, state), marked in zip(tiles, found, strict=True):
            clash = any(
                other == SOUND_TILE and (at, n) != (start, count) and at < start + count and start < at + n
                for at, n, other in tiles
            )
            assert marked == (OVERLAPS if state == SOUND_TILE and clash else state)


def test_tiles_that_are_one_tile_are_fine(jpeg: Path) -> None:
    with tifffile.TiffFile(jpeg) as tif:
        offset, count = tif.pages[0].dataoffsets[0], tif.pages[0].databytecounts[0]
    overwritten(jpeg, "TileOffsets", {11: offset})
    overwritten(jpeg, "TileByteCounts", {11: count})
    reader = TiffReader(str(jpeg))
    assert np.array_equal(reader.read(SOUND, 0, (64, 64)), reader.read(BAD, 0, (64, 64)))


@pytest.mark.parametrize("side", [32, 128])
@pytest.mark.parametrize("kind", ["jpeg-420", "aperio-33005", "deflate"])
def test_a_tile_of_another_size(kind: str, side: int, tmp_path: Path, pyramid: tuple[np.ndarray, ...]) -> None:
    file = write_kind(tmp_path / "slide.tif", pyramid, kind)
    other = np.full((side, side, 3), 90, np.uint8)
    stream = {
        "jpeg-420": lambda: imagecodecs.jpeg_encode(other, subsampling="420"),
        "aperio-33005": lambda: imagecodecs.jpeg2k_encode(other, codecformat="J2K"),
        "deflate": lambda: zlib.compress(other.tobytes()),
    }[kind]()
    place = file.stat().st_size
    file.write_bytes(file.read_bytes() + stream)
    overwritten(file, "TileOffsets", {11: place})
    overwritten(file, "TileByteCounts", {11: len(stream)})
    fails_alone(file, "cannot be decoded")


def test_a_stream_that_would_fill_the_memory(tmp_path: Path, pyramid: tuple[np.ndarray, ...]) -> None:
    file = write_kind(tmp_path / "slide.tif", pyramid, "deflate")
    packer = zlib.compressobj(9)
    stream = b"".join(packer.compress(bytes(2**24)) for _ in range(4)) + packer.flush()
    place = file.stat().st_size
    file.write_bytes(file.read_bytes() + stream)
    overwritten(file, "TileOffsets", {11: place})
    overwritten(file, "TileByteCounts", {11: len(stream)})
    fails_alone(file, "cannot be decoded")


def test_more_bytes_than_pixels_can_have(jpeg: Path) -> None:
    place = jpeg.stat().st_size
    jpeg.write_bytes(jpeg.read_bytes() + bytes(2**21))
    overwritten(jpeg, "TileOffsets", {11: place})
    overwritten(jpeg, "TileByteCounts", {11: 2**21})
    fails_alone(jpeg, "claims more bytes than its pixels can have")


def test_an_index_larger_than_the_file(jpeg: Path) -> None:
    content = bytearray(jpeg.read_bytes())
    with tifffile.TiffFile(jpeg) as tif:
        entry = tif.pages[0].tags["TileOffsets"].offset
    struct.pack_into("<I", content, entry + 4, 2**30)
    jpeg.write_bytes(content)
    for reader in ("tiff", "auto"):
        with pytest.raises(SlideOpenError, match=r"slide\.tif: ") as caught:
            open_slide(jpeg, reader=reader)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("&quot;0.001&quot;", "&quot;0&quot;"), "names 3 pixel sizes for 3 levels"),
        (lambda text: text.replace("WSI", "WSX"), "describes no slide"),
        (lambda text: text[:-40] + "</DataObject>", "XML is broken"),
        (lambda text: text.replace("<DataObject", "<!DOCTYPE a [<!ENTITY b 'c'>]><DataObject", 1), "defines entities"),
    ],
)
def test_philips_text_that_cannot_be_trusted(
    change: Callable[[str], str], says: str, tmp_path: Path, pyramid: tuple[np.ndarray, ...]
) -> None:
    file = write_philips(tmp_path / "slide.tiff", pyramid, 0.25, pyramid[2])
    with tifffile.TiffFile(file, mode="r+") as tif:
        tag = tif.pages[0].tags["ImageDescription"]
        tag.overwrite(change(tag.value))
    with pytest.raises(SlideOpenError, match=says):
        TiffReader(str(file))


def test_many_directories_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "many.tif"
    with tifffile.TiffWriter(file) as tif:
        for _ in range(1001):
            tif.write(np.zeros((16, 16, 3), np.uint8), photometric="rgb", tile=(16, 16), metadata=None)
    with pytest.raises(SlideOpenError, match="more than 1000 TIFF directories"):
        TiffReader(str(file))
