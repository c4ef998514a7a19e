"""What the tiff reader gets, what is left to OpenSlide, and that both are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from tiff_kinds import write_kind
from typer.testing import CliRunner

from wsi_attention.cli.app import app
from wsi_attention.errors import SlideOpenError
from wsi_attention.slide.readers.tiff.choice import Verdict, judge
from wsi_attention.slide.readers.tiff.reader import TiffReader
from wsi_attention.slide.slide import open_slide

RGB = np.full((256, 256, 3), 200, np.uint8)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hamamatsu/test3-DAPI-2-(387).ndpi", "its format (hamamatsu) is left to OpenSlide"),
        ("dicom/bone-jpeg/jpeg.dcm", "its format (dicom) is left to OpenSlide"),
        ("generic-tiff/grey10kx5k.tif", "OpenSlide does not know it to compare with"),
    ],
)
def test_formats_of_others(name: str, reason: str, shared_data: Path) -> None:
    assert judge(str(shared_data / "slides" / name)) == Verdict(False, reason)


def test_an_explicit_request_for_what_it_does_not_own(shared_data: Path, tmp_path: Path) -> None:
    ndpi = shared_data / "slides" / "hamamatsu" / "test3-DAPI-2-(387).ndpi"
    with pytest.raises(SlideOpenError, match=r"a ndpi file, which the tiff reader leaves to others; use reader='auto'"):
        open_slide(ndpi, reader="tiff")
    tifffile.imwrite(tmp_path / "strips.tif", RGB, photometric="rgb", rowsperstrip=64, metadata=None)
    with pytest.raises(SlideOpenError, match="the slide is stored in strips"):
        open_slide(tmp_path / "strips.tif", reader="tiff")
    with pytest.raises(SlideOpenError, match=r"jpeg\.dcm: tiff cannot open it"):
        open_slide(shared_data / "slides" / "dicom" / "bone-jpeg" / "jpeg.dcm", reader="tiff")


def test_a_difference_in_pixels_leaves_the_slide_to_openslide(
    tmp_path: Path, pyramid: tuple[np.ndarray, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Aperio's RGB tiles taken for YCbCr, as they were by readers that do not ask the TIFF."""
    file = write_kind(tmp_path / "slide.svs", pyramid, "aperio-rgb")
    plain = TiffReader.read

    def tinted(self: TiffReader, location: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
        return plain(self, location, level, size) ^ 1

    with open_slide(file) as slide:
        assert slide.reader == "tiff"
    monkeypatch.setattr(TiffReader, "read", tinted)
    with open_slide(file) as slide:
        assert slide.reader == "openslide"
        assert slide.reader_reason == "not tiff: a tile of level 0 decodes differently in OpenSlide"


def test_holes_that_openslide_fills(tmp_path: Path, pyramid: tuple[np.ndarray, ...]) -> None:
    file = write_kind(tmp_path / "slide.svs", pyramid, "aperio-rgb")
    with tifffile.TiffFile(file, mode="r+") as tif:
        counts = list(tif.pages[1].tags["TileByteCounts"].value)
        tif.pages[1].tags["TileByteCounts"].overwrite([0, *counts[1:]])
    with open_slide(file) as slide:
        assert slide.reader == "openslide"
        assert slide.reader_reason == "not tiff: level 1 has holes that are filled from finer levels"
        assert (slide.read((0, 0), 1, (64, 64)) < 255).any()


def test_info_says_which_reader_and_why(tiled_tiff: Path, ome_zarr: Path) -> None:
    shown = CliRunner().invoke(app, ["info", str(tiled_tiff), str(ome_zarr)]).stdout
    assert "reader       tiff (a tiled TIFF; a tissue tile is the same in OpenSlide)" in shown
    assert "reader       zarr (the first that knows the format)" in shown
    shown = CliRunner().invoke(app, ["info", "--reader", "openslide", str(tiled_tiff)]).stdout
    assert "reader       openslide (as asked)" in shown
