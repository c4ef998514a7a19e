"""mpp and objective power out of tags, and what is not believed."""

from __future__ import annotations

import pytest

from wsi_attention.errors import InputError, SlideOpenError
from wsi_attention.slide.failures import opening
from wsi_attention.slide.metadata import Mpp, file_mpp, given_mpp, mpp_notes, number, objective_power


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


def at(dpi: float, unit: str = "inch", **more: str) -> dict[str, str]:
    return {"tiff.XResolution": f"{dpi:g}", "tiff.YResolution": f"{dpi:g}", "tiff.ResolutionUnit": unit, **more}


def both(value: float, **more: str) -> dict[str, str]:
    return {"openslide.mpp-x": repr(value), "openslide.mpp-y": repr(value), **more}


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        (at(72), "its tiff resolution says 352.8 µm, which is 72 dpi"),
        (at(96), "96 dpi"),
        (at(300), "300 dpi"),
        (at(600), "its tiff resolution says 42.33 µm, which is 600 dpi"),
        (at(1200), "1200 dpi"),
        (at(118.11, "centimeter"), "300 dpi"),
        (at(472, "centimeter"), "1200 dpi"),
        (at(10, "centimeter"), "1000 µm, which is outside what slides have"),
        (at(1, "centimeter"), "outside"),
        (at(1e7, "centimeter"), "0.001 µm, which is outside"),
        (both(25400 / 600, **{"openslide.vendor": "generic-tiff"}), "its tiff resolution says 42.33 µm, which is 600"),
        (both(25400 / 600, **{"openslide.vendor": "dicom"}), "600 dpi"),
        (at(600, **{"openslide.vendor": "aperio"}), "its tiff resolution says 42.33 µm, which is 600 dpi"),
        ({"aperio.MPP": "499", "openslide.vendor": "aperio"}, "its aperio.MPP says 499 µm, which is outside"),
        ({"ome-zarr.mpp-x": "1000", "ome-zarr.mpp-y": "1000"}, "its ome-zarr scale says 1000 µm"),
        (
            {"tiff.ImageDescription": '<OME><Pixels PhysicalSizeX="352.7778"/></OME>'},
            "its ome physical size says 352.8",
        ),
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.6"}, "0.25 × 0.6 µm, pixels that no scanner makes"),
    ],
)
def test_what_cannot_be_a_scale_is_disbelieved(tags: dict[str, str], why: str) -> None:
    found = file_mpp(tags)
    assert (found.xy, found.source) == (None, "none")
    assert why in found.disbelieved


@pytest.mark.parametrize(
    ("tags", "mpp"),
    [
        (both(25400 / 600, **{"openslide.vendor": "hamamatsu"}), 25400 / 600),
        (at(1513.4), 25400 / 1513.4),
        (at(200, "centimeter"), 50.0),
        (at(72, **{"tiff.ImageDescription": '<OME><Pixels PhysicalSizeX="0.5"/></OME>'}), 0.5),
        (at(20000, "centimeter", **{"tiff.ImageDescription": '<OME><Pixels PhysicalSizeX="352.8"/></OME>'}), 0.5),
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.45"}, 0.25),
    ],
)
def test_a_tag_that_can_be_believed_counts(tags: dict[str, str], mpp: float) -> None:
    found = file_mpp(tags)
    assert found.xy is not None
    assert found.xy[0] == pytest.approx(mpp)
    assert found.disbelieved == ""


@pytest.mark.parametrize("mpp", [0.0, -1.0, 0.019, 50.1, 352.8, float("nan"), float("inf")])
def test_a_given_mpp_that_no_slide_has_is_refused(mpp: float) -> None:
    with pytest.raises(InputError, match=r"from 0\.02 to 50, got"):
        given_mpp(mpp)


def test_notes() -> None:
    assert mpp_notes(Mpp((0.25, 0.25), "x"), Mpp((0.25, 0.25), "x")) == ()
    assert "not square" in mpp_notes(Mpp((0.25, 0.27), "x"), Mpp(None, "none"))[0]
    assert mpp_notes(Mpp((0.25, 0.26), "x"), Mpp(None, "none")) == ()
    assert mpp_notes(Mpp((1.0, 1.0), "given"), Mpp((0.5, 0.5), "tag")) == ("mpp 1 was given, the file says 0.5 (tag)",)


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
        "slides/generic-tiff/boxes.tiff": None,
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


def test_a_scanners_own_tag_that_cannot_be_is_told_where_another_one_gives_the_scale() -> None:
    tags = {"openslide.mpp-x": "500", "openslide.mpp-y": "500", "openslide.vendor": "aperio"}
    found = file_mpp(
        {**tags, "tiff.XResolution": "20000", "tiff.YResolution": "20000", "tiff.ResolutionUnit": "centimeter"}
    )
    assert found.xy == (0.5, 0.5)
    assert mpp_notes(found, found) == (
        "its openslide.mpp-x says 500 µm, which is outside what slides have (0.02 to 50 µm); "
        "its scale is taken from tiff resolution",
    )


def test_an_impossible_jump_in_a_file_is_told_without_numbers_of_errors() -> None:
    with pytest.raises(SlideOpenError, match="its content is not what the format allows") as caught, opening("a", "x"):
        raise OSError(22, "Invalid argument")
    assert "Errno" not in str(caught.value)
