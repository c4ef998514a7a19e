"""A name means the slide of that name; never one that only begins alike, and never one of two."""

from __future__ import annotations

import unicodedata

import pytest

from wsi_attention.errors import InputError
from wsi_attention.inference.batch.matching import SlideNames, bare_name
from wsi_attention.inference.batch.names import SUFFIXES


def known(*names: str) -> SlideNames:
    index = SlideNames("labels.csv")
    for name in names:
        index.add(name, (name,))
    return index


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_of_a_slide_is_cut_once(suffix: str) -> None:
    assert bare_name(f"x/S12.2{suffix}") == bare_name(f"x/S12.2{suffix.upper()}") == "x/S12.2"
    assert bare_name(f"S12.svs{suffix}") == "S12.svs"


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("2021-11-11_09.59.06", "2021-11-11_09.59.30"),
        ("S12.2", "S12"),
        ("S12.2", "S12.1"),
        ("S12", "S12.2"),
        ("v1.0", "v1.5"),
        ("a.svs", "a.tiff"),
        ("a.jpg", "a"),
        ("S1", "s1"),
        ("x/a", "y/a"),
        ("x/a.svs", "y/a.svs"),
        ("1.2.840.1.dcm", "1.2.840.2.dcm"),
        ("1.2.840.1", "1.2.840"),
    ],
)
def test_other_slides_stay_other_slides(name: str, other: str) -> None:
    assert known(other).find(name) is None


@pytest.mark.parametrize(
    ("written", "slide"),
    [
        ("a", "a.svs"),
        ("a.SVS", "a"),
        ("a.svs", "a.SVS"),
        (".\\a.svs", "a"),
        ("./a.svs", "a"),
        ("sub\\a.svs", "sub/a"),
        ("C:\\slides\\sub\\a.svs", "sub/a"),
        ("a", "sub/a"),
        ("a.ome.zarr.zip", "a"),
        ("2021-11-11_09.59.06.svs", "2021-11-11_09.59.06"),
        (unicodedata.normalize("NFD", "Müller.svs"), unicodedata.normalize("NFC", "Müller")),
        (unicodedata.normalize("NFC", "Müller"), unicodedata.normalize("NFD", "Müller.svs")),
        ("a:b?.svs", "a_b_"),
        ("series/1.2.3.dcm", "series"),
        ("input/series/1.2.3.dcm", "series"),
    ],
)
def test_one_slide_under_many_names(written: str, slide: str) -> None:
    assert known(slide, "other").find(written) == slide


def test_the_same_name_comes_first() -> None:
    assert known("a", "sub/a").find("a") == "a"
    assert known("a.svs", "a.tif").find("a.tif") == "a.tif"
    assert known("x/a", "y/a").find("cohort/x/a.svs") == "x/a"


@pytest.mark.parametrize(
    ("names", "written"),
    [(("a.svs", "a.tif"), "a"), (("x/a", "y/a"), "a"), (("sub/a", "a"), "x/a.svs"), (("x/s/a", "y/s/a"), "s/a.svs")],
)
def test_a_name_of_two_slides_is_refused(names: tuple[str, ...], written: str) -> None:
    with pytest.raises(InputError, match=rf"labels.csv: slide '{written}' could be {names[0]}, {names[1]}; write"):
        known(*names).find(written)


def test_a_slip_is_told() -> None:
    assert known("S1.svs", "S2.svs").near("s1") == "S1.svs"
    assert known("S1.svs").near("S1.tiff") == "S1.svs"
    assert known("S1.svs").near("T1") is None
