"""Names in the results folder: short, safe, never two the same."""

from __future__ import annotations

import pytest

from wsi_attention.inference.batch.names import assign_names, suffix_of
from wsi_attention.safe_names import LONGEST, safe_name


def named(*relatives: str, known: dict[str, str] | None = None) -> dict[str, str]:
    return assign_names([(f"/in/{relative}", relative) for relative in relatives], known or {})


def test_suffix_is_dropped_and_folders_stay() -> None:
    assert list(named("a/b/x.svs", "y.ome.tif", "z.ome.zarr.zip").values()) == ["a/b/x", "y", "z"]


def test_equal_stems_keep_their_suffix() -> None:
    assert named("a/x.svs", "a/x.tif", "b/x.svs") == {
        "/in/a/x.svs": "a/x.svs",
        "/in/a/x.tif": "a/x.tif",
        "/in/b/x.svs": "b/x",
    }


@pytest.mark.parametrize(
    "relatives",
    [
        ("x.svs", "X.SVS", "x.tif"),
        ("x.svs", "x.tif", "x.svs.svs"),
        ("a?.svs", "a*.svs", "a_.svs"),
        ("e\u0301.svs", "\u00e9.svs"),
        ("f" * 250 + "1.svs", "f" * 250 + "2.svs"),
        ("ß.svs", "ss.svs"),
    ],
)
def test_no_two_names_are_equal_where_case_does_not_count(relatives: tuple[str, ...]) -> None:
    import unicodedata

    names = [unicodedata.normalize("NFC", name).casefold() for name in named(*relatives).values()]
    assert len(names) == len(relatives) == len(set(names))


def test_order_of_slides_does_not_matter() -> None:
    relatives = ("x.svs", "x.tif", "X.SVS", "x.svs.svs", "y.svs")
    assert named(*relatives) == named(*reversed(relatives))


def test_known_slides_keep_their_name_and_others_never_get_it() -> None:
    known = {"/in/x.svs": "x", "/elsewhere/y.svs": "y"}
    assert named("x.svs", "x.tif", "y.svs", known=known) == {
        "/in/x.svs": "x",
        "/in/x.tif": "x.tif",
        "/in/y.svs": "y.svs",
    }


@pytest.mark.parametrize("relatives", [("x.svs", "x.tif"), ("x.svs", "x.tif", "X.SVS", "x.svs.svs", "y.svs")])
def test_an_interrupted_batch_goes_on_under_the_same_names(relatives: tuple[str, ...]) -> None:
    whole = named(*relatives)
    for finished in range(2 ** len(relatives)):
        known = {path: name for bit, (path, name) in enumerate(whole.items()) if finished >> bit & 1}
        assert named(*relatives, known=known) == whole


@pytest.mark.parametrize(
    ("relative", "name"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("/srv/x", "srv/x"),
        ("..", "slide"),
        ("a\nb\tc", "a_b_c"),
        (".hidden/x", "_hidden/x"),
        ("x. ", "x"),
        ("bad\udcffbyte", "bad_byte"),
        ("a:b<c>", "a_b_c_"),
    ],
)
def test_names_are_safe(relative: str, name: str) -> None:
    assert safe_name(relative) == name


def test_long_names_are_cut_but_stay_apart() -> None:
    one, two = safe_name("é" * 200 + "1"), safe_name("é" * 200 + "2")
    assert one != two
    assert max(len(one.encode()), len(two.encode())) <= LONGEST


def test_suffix_is_found_whatever_its_case() -> None:
    assert suffix_of("a.OME.TIFF") == ".OME.TIFF"
    assert suffix_of("a.b.Svs") == ".Svs"
    assert suffix_of("notes.txt") == suffix_of(".svs") == ""
