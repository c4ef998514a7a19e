"""mpp and objective power out of tags, and what is not believed."""

from __future__ import annotations

import pytest

from wsi_attention.slide.metadata import UNKNOWN, Mpp, file_mpp, mpp_oddities, number, objective_power


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.499", 0.499), ("0,4990", 0.499), (" 0.25 ", 0.25), ("2.5e-1", 0.25), (0.5, 0.5)],
)
def test_numbers_with_point_or_comma(text: object, value: float) -> None:
    assert number(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["0", "0,0", "-0.5", "nan", "inf", "n/a", "", None, "0.25 0.25", b"\xff"])
def test_what_is_no_size_is_unknown(text: object) -> None:
    assert number(text) is None


@pytest.mark.parametrize(
    ("tags", "xy", "source"),
    [
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.26"}, (0.25, 0.26), "openslide.mpp-x"),
        ({"openslide.mpp-x": "0", "aperio.MPP": "0,4990"}, (0.499, 0.499), "aperio.MPP"),
        ({"aperio.MPP": "n/a"}, None, "none"),
        ({"openslide.mpp-x": "nan", "openslide.mpp-y": "nan"}, None, "none"),
        ({"openslide.mpp-x": "0.5"}, (0.5, 0.5), "openslide.mpp-x"),
        ({"tiff.XResolution": "20000", "tiff.YResolution": "10000", "tiff.ResolutionUnit": "CENTIMETER"},
         (0.5, 1.0), "tiff resolution"),
        ({"tiff.XResolution": "50800", "tiff.YResolution": "50800", "tiff.ResolutionUnit": "inch"},
         (0.5, 0.5), "tiff resolution"),
        ({"tiff.XResolution": "20000", "tiff.YResolution": "20000", "tiff.ResolutionUnit": "none"}, None, "none"),
        ({"tiff.XResolution": "20000", "tiff.YResolution": "20000"}, None, "none"),
        ({"tiff.XResolution": "0", "tiff.YResolution": "0", "tiff.ResolutionUnit": "inch"}, None, "none"),
        ({"ome-zarr.mpp-x": "0.5", "ome-zarr.mpp-y": "0.5"}, (0.5, 0.5), "ome-zarr scale"),
        ({}, None, "none"),
    ],
)  # fmt: skip
def test_sources(tags: dict[str, str], xy: tuple[float, float] | None, source: str) -> None:
    found = file_mpp(tags)
    assert found.source == source
    assert found.xy is None if xy is None else found.xy == pytest.approx(xy)


@pytest.mark.parametrize(
    ("attributes", "xy"),
    [
        ('PhysicalSizeX="0.25" PhysicalSizeY="0.25"', (0.25, 0.25)),
        ('PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.00025" PhysicalSizeYUnit="mm"', (0.25, 0.25)),
        ("PhysicalSizeX='0.25' PhysicalSizeXUnit='&#181;m'", (0.25, 0.25)),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="pixel"', None),
        ('SizeX="5"', None),
    ],
)
def test_ome_xml(attributes: str, xy: tuple[float, float] | None) -> None:
    description = f'<OME><Image><Pixels DimensionOrder="XYCZT" {attributes}></Pixels></Image></OME>'
    found = file_mpp({"tiff.ImageDescription": description})
    assert found.xy is None if xy is None else found.xy == pytest.approx(xy)


def test_ome_xml_beats_the_placeholder_in_the_tiff_tags() -> None:
    tags = {"tiff.ImageDescription": '<OME><Pixels PhysicalSizeX="0.5"/></OME>', "openslide.mpp-x": "352.78"}
    assert file_mpp(tags) == Mpp((0.5, 0.5), "ome physical size")


def test_oddities() -> None:
    assert mpp_oddities(Mpp((0.25, 0.25), "x"), Mpp((0.25, 0.25), "x")) == ()
    assert "no mpp" in mpp_oddities(UNKNOWN, UNKNOWN)[0]
    assert "72 dpi" in mpp_oddities(Mpp((352.8, 352.8), "x"), UNKNOWN)[0]
    assert "not square" in mpp_oddities(Mpp((0.25, 0.27), "x"), UNKNOWN)[0]
    assert mpp_oddities(Mpp((0.25, 0.26), "x"), UNKNOWN) == ()


@pytest.mark.parametrize(
    ("tags", "power"),
    [({"openslide.objective-power": "40"}, 40.0), ({"aperio.AppMag": "20"}, 20.0), ({"aperio.AppMag": "?"}, None)],
)
def test_objective_power(tags: dict[str, str], power: float | None) -> None:
    assert objective_power(tags) == power


def test_mpp_of_the_real_slides(shared_data: object) -> None:
    from wsi_attention.slide.slide import open_slide

    expected = {
        "slides/aperio/CMU-1-Small-Region.svs": 0.499,
        "slides/aperio/TCGA-CR-7395-01A-01-TS1.svs": None,
        "slides/dicom/bone-jpeg/jpeg.dcm": 16.783,
        "slides/generic-tiff/boxes.tiff": 352.7778,
        "slides-derived/cmu1sr-libvips-pyramid-jpeg.tif": 0.499,
        "slides-derived/cmu1sr-tifffile-pyramid.ome.tif": 0.499,
        "slides-derived/cmu1sr-v04.ome.zarr.zip": 0.499,
        "malformed/derived/mpp-decimal-comma.svs": 0.499,
        "malformed/derived/mpp-not-a-number.svs": None,
        "malformed/derived/mpp-zero.svs": None,
        "malformed/derived/no-mpp.svs": None,
    }
    for name, mpp in expected.items():
        with open_slide(shared_data / name) as slide:  # type: ignore[operator]
            assert slide.mpp_xy is None if mpp is None else slide.mpp == pytest.approx(mpp, rel=1e-4), name
