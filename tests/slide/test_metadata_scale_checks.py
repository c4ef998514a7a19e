"""A scale that the rest of the file contradicts is taken, and in doubt."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from wsi_attention.slide.metadata import Mpp, scale_doubts

EXTENT = (2000, 1000)


def doubts(mpp: tuple[float, float], properties: Mapping[str, str], source: str = "a tag") -> tuple[str, ...]:
    return scale_doubts(Mpp(mpp, source), properties, EXTENT)


@pytest.mark.parametrize(
    ("mpp", "power"), [(0.25, "40"), (0.2325, "40"), (0.2639, "40"), (0.499, "20"), (0.1, "100"), (1.0, "")]
)
def test_what_aperio_s_scanners_write_is_in_no_doubt(mpp: float, power: str) -> None:
    assert doubts((mpp, mpp), {"aperio.AppMag": power}) == ()


@pytest.mark.parametrize(("mpp", "power"), [(1.0, "20"), (0.25, "20"), (0.5, "40"), (5.0, "20")])
def test_another_magnification_is_a_doubt(mpp: float, power: str) -> None:
    (doubt,) = doubts((mpp, mpp), {"aperio.AppMag": power})
    assert f"at its magnification of {power}x a pixel has about {10 / float(power):.2g} µm" in doubt


def test_the_size_of_a_dicom_volume_is_compared() -> None:
    volume = {"dicom.ImagedVolumeWidth": "1.0", "dicom.ImagedVolumeHeight": "0.5"}
    assert doubts((0.5, 0.5), volume) == ()
    assert "makes 0.5 µm in x" in doubts((1.0, 1.0), volume)[0]
    assert "makes 0.5 µm in y" in doubts((0.5, 1.0), volume)[0]
    assert doubts((0.5, 0.5), {"dicom.ImagedVolumeWidth": "0", "dicom.ImagedVolumeHeight": "nan"}) == ()


def test_what_the_caller_gave_is_in_no_doubt() -> None:
    assert doubts((1.0, 1.0), {"aperio.AppMag": "20"}, "given") == ()
    assert scale_doubts(Mpp(None, "none"), {"aperio.AppMag": "20"}, EXTENT) == ()


def test_another_tag_that_could_be_right_is_a_doubt() -> None:
    ome = '<OME><Pixels PhysicalSizeX="1.0" PhysicalSizeY="1.0"/></OME>'
    tags = {"tiff.ImageDescription": ome, "tiff.XResolution": "20000", "tiff.YResolution": "20000"}
    tags["tiff.ResolutionUnit"] = "centimeter"
    assert "its tiff resolution says 0.5 × 0.5 µm" in doubts((1.0, 1.0), tags, "ome physical size")[0]
    assert doubts((0.5, 0.5), tags | {"tiff.ImageDescription": ""}, "ome physical size") == ()
    placeholder = tags | {"tiff.XResolution": "72", "tiff.YResolution": "72", "tiff.ResolutionUnit": "inch"}
    assert doubts((1.0, 1.0), placeholder, "ome physical size") == ()
