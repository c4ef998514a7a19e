"""TIFFs that must not be trusted."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from wsi_attention.errors import SlideOpenError, UnsupportedSlideError
from wsi_attention.slide.slide import open_slide

RGB = np.full((256, 256, 3), 200, np.uint8)


def written(path: Path, pixels: np.ndarray, **options: object) -> Path:
    tifffile.imwrite(path, pixels, metadata=None, **options)
    return path


def patched(path: Path, tag: str, values: list[int], page: int = 0) -> Path:
    """Overwrites the first values of a tag in place."""
    with tifffile.TiffFile(path) as tif:
        found = tif.pages[page].tags[tag]
        place, kind = found.valueoffset, {3: "H", 4: "I", 16: "Q"}[int(found.dtype)]
    content = bytearray(path.read_bytes())
    struct.pack_into(f"<{len(values)}{kind}", content, place, *values)
    path.write_bytes(content)
    return path


def test_a_plain_rgb_tiff_opens(tmp_path: Path) -> None:
    with open_slide(written(tmp_path / "a.tif", RGB, photometric="rgb", rowsperstrip=32)) as slide:
        assert slide.reader == "tiffslide"
        assert slide.facts.tile_sizes == (None,)
        assert any("not tiled" in oddity for oddity in slide.oddities())
        assert (slide.read((10, 10), 0, (20, 20)) == 200).all()


def test_truncated_tiles_are_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", RGB, photometric="rgb", tile=(64, 64))
    path.write_bytes(path.read_bytes()[: -3 * 64 * 64 * 3 + 1])
    for reader in ("auto", "openslide", "tiffslide"):
        with pytest.raises(SlideOpenError, match="3 of 16 tiles lie past the end of the file: the file is truncated"):
            open_slide(path, reader=reader)


def test_absurd_dimensions_are_refused_without_allocating(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", RGB, photometric="rgb", tile=(64, 64))
    for tag in ("ImageWidth", "ImageLength"):
        patched(path, tag, [2_000_000_000 if path.stat().st_size else 0])
    with pytest.raises(SlideOpenError):
        open_slide(path)
    with pytest.raises(SlideOpenError, match="2000000000×2000000000 pixels, more than any slide has"):
        open_slide(path, reader="tiffslide")


def test_an_index_too_short_for_its_dimensions_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", RGB, photometric="rgb", tile=(64, 64))
    patched(path, "ImageWidth", [100_000])
    with pytest.raises(SlideOpenError, match="lists 16 of 6252 tiles"):
        open_slide(path, reader="tiffslide")


def test_strips_too_large_to_decode_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", RGB, photometric="rgb", rowsperstrip=256)
    for tag, value in (("ImageWidth", 10_000), ("ImageLength", 10_000), ("RowsPerStrip", 10_000)):
        patched(path, tag, [value])
    with pytest.raises(SlideOpenError, match="strips of 10000×10000 pixels, too large to decode"):
        open_slide(path)


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (RGB[..., 0], {"photometric": "minisblack"}),
        (RGB[..., 0], {"photometric": "miniswhite"}),
        (RGB.astype(np.uint16), {"photometric": "rgb"}),
        (np.zeros((256, 256, 5), np.uint8), {"photometric": "rgb", "planarconfig": "contig", "extrasamples": (0, 0)}),
        (np.zeros((3, 256, 256), np.uint8), {"photometric": "minisblack"}),
    ],
)
@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_what_is_no_rgb_is_refused(
    pixels: np.ndarray, options: dict[str, object], tile: tuple[int, int] | None, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.tif", pixels, tile=tile, **options)
    with pytest.raises(UnsupportedSlideError, match="only 8-bit RGB brightfield"):
        open_slide(path)


def test_fluorescence_named_in_ome_xml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    channel = {"Name": "stain", "Fluor": "DAPI"}
    tifffile.imwrite(path, RGB, photometric="rgb", tile=(64, 64), metadata={"axes": "YXS", "Channel": channel})
    with pytest.raises(UnsupportedSlideError, match="a fluorescence slide"):
        open_slide(path)


@pytest.mark.parametrize("values", [[0, 0], [0, 1], [1, 0]])
def test_resolutions_that_are_no_numbers_are_unknown(values: list[int], tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", RGB, photometric="rgb", rowsperstrip=64, resolution=(20000, 20000))
    with tifffile.TiffFile(path) as tif:
        places = [tif.pages[0].tags[name].valueoffset for name in ("XResolution", "YResolution")]
    content = bytearray(path.read_bytes())
    for place in places:
        struct.pack_into("<2I", content, place, *values)
    path.write_bytes(content)
    with open_slide(path) as slide:
        assert slide.mpp_xy is None


def test_resolution_unit_none_gives_no_mpp(tmp_path: Path) -> None:
    for tile in (None, (64, 64)):
        path = written(tmp_path / "a.tif", RGB, photometric="rgb", tile=tile, resolution=(20000, 20000),
                       resolutionunit="NONE")  # fmt: skip
        with open_slide(path) as slide:
            assert slide.mpp_xy is None
