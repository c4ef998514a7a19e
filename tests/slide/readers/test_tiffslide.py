"""tiffslide: URLs, and NDPI without its warning."""

from __future__ import annotations

from pathlib import Path

import fsspec
import numpy as np
import pytest

from wsi_attention.errors import SlideOpenError
from wsi_attention.slide.slide import open_slide


def test_urls_open_through_fsspec(tiled_tiff: Path, pyramid: tuple[np.ndarray, ...]) -> None:
    with fsspec.open("memory://slides/generic.tif", "wb") as stream:
        stream.write(tiled_tiff.read_bytes())
    with open_slide("memory://slides/generic.tif", reader="tiffslide") as slide, open_slide(tiled_tiff) as local:
        assert slide.reader == "tiffslide"
        assert np.array_equal(slide.read((0, 0), 1, (300, 201)), pyramid[1])
        assert slide.mpp == pytest.approx(0.5)
        assert slide.fingerprint == local.fingerprint
        assert slide.bytes_read(0, (0, 0), (64, 64)) == 0


@pytest.mark.parametrize("url", ["memory://nothing/here.tif", "nosuchscheme://a/b.tif"])
def test_bad_urls_are_one_line(url: str) -> None:
    with pytest.raises(SlideOpenError, match=url) as caught:
        open_slide(url)
    assert "\n" not in str(caught.value)


def test_ome_sizes_beat_the_resolution_tags(ome_tiff: Path) -> None:
    with open_slide(ome_tiff) as slide:
        assert slide.mpp == pytest.approx(0.25)
        assert slide.mpp_source == "ome physical size"


def test_ndpi_opens_without_a_warning(shared_data: Path) -> None:
    file = shared_data / "slides" / "hamamatsu" / "test3-DAPI-2-(387).ndpi"
    with open_slide(file, reader="tiffslide") as slide:  # its fluorescence tags are only seen by OpenSlide
        assert (slide.facts.vendor, slide.facts.objective_power) == ("hamamatsu", 40.0)
        assert slide.mpp == pytest.approx(0.228175)
