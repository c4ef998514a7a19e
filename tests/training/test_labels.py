"""The labels CSV as people write it, and the files its names mean."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from wsi_attention.errors import InputError
from wsi_attention.training.labels import LabelRow, bare_name, find_slides, read_labels, with_series


def labels_file(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    "text",
    [
        "slide,label,patient,mpp\na.svs,tumour,p1,0.25\n",
        "\ufeffSlide;LABEL;Patient;MPP;;\r a.svs;tumour;p1;0,25;;\r;;;;;\r",
        "\ufeffSlide ; Label;patient ;mpp\r\n a.svs; tumour ;p1;0,25\r\n\r\n;;;\r\n",
        'mpp\tpatient\tslide\tlabel\n0.25\tp1\t"a.svs"\ttumour\n',
    ],
)
def test_one_row_however_it_is_written(tmp_path: Path, text: str) -> None:
    assert read_labels(labels_file(tmp_path, text)) == (LabelRow("a.svs", "tumour", "p1", 0.25),)


def test_a_row_s_own_series_comes_before_that_of_the_call(tmp_path: Path) -> None:
    rows = read_labels(labels_file(tmp_path, "slide,label,series\na,1,0\nb,1,\n"))
    assert [row.series for row in with_series(rows, "2")] == ["0", "2"]
    assert with_series(rows, None) == rows


def test_the_slide_stands_in_for_the_patient(tmp_path: Path) -> None:
    row = read_labels(labels_file(tmp_path, "slide,label,split\nsub\\a,1,Val\n"))[0]
    assert row == LabelRow("sub/a", "1", "sub/a", None, "val")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide,class\na,1\n", "column 'label' is missing; found: slide, class"),
        ("", "column 'slide' is missing; found: nothing"),
        ("slide,label\n", "no rows"),
        ("slide,label\na,1\nb,\n", "line 3: label is empty"),
        ("slide,label\na,1\na,0\n", "1 slides stand more than once: a"),
        ("slide,label,mpp\na,1,20x\n", "line 2: mpp must be a number of µm .*, got '20x'"),
        ("slide,label,mpp\na,1,0\n", "line 2: mpp must be .*, got '0'"),
        ('slide,label\n"' + "a,1\n" * 50_000, r"labels\.csv, line \d+: not CSV .*quotation mark left open"),
        ("slide,label,split\na,1,dev\n", "line 2: split is 'dev'; possible: train, val, test"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_labels(labels_file(tmp_path, text))
    assert "labels.csv" in str(caught.value)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.csv does not exist"):
        read_labels(tmp_path / "none.csv")
    with pytest.raises(InputError, match="UTF-8"):
        read_labels(labels_file(tmp_path, "slide,label\nä,1\n", "latin-1"))


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("a.svs", "a"),
        ("x/a.b.ome.tiff", "x/a.b"),
        ("a.ome.zarr", "a"),
        ("a.ome.zarr.zip", "a"),
        ("x.y/a", "x.y/a"),
        ("a", "a"),
    ],
)
def test_bare_names(name: str, bare: str) -> None:
    assert bare_name(name) == bare


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    (folder / "sub" / "c.ome.zarr" / "0").mkdir(parents=True)
    (folder / "sub" / "c.ome.zarr" / "0" / "a.svs").touch()
    for name in ("a.svs", "b.tif", "b.geojson", "sub/d.svs", "e.svs", "sub/e.svs"):
        (folder / name).touch()
    return folder


def test_names_with_and_without_suffix_and_path(slides: Path) -> None:
    found = find_slides(["a", "b.tif", "sub/c", "d", "sub/e.svs"], [slides], "labels.csv")
    relative = {name: path.relative_to(slides).as_posix() for name, path in found.items()}
    assert relative == {
        "a": "a.svs",
        "b.tif": "b.tif",
        "sub/c": "sub/c.ome.zarr",
        "d": "sub/d.svs",
        "sub/e.svs": "sub/e.svs",
    }


def test_single_files_are_inputs_too(slides: Path) -> None:
    assert find_slides(["a"], [slides / "a.svs"], "labels.csv") == {"a": slides / "a.svs"}


def test_names_that_fit_nothing_several_or_the_same(slides: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"labels.csv: 2 of 3 slides not in .*: x, y"):
        find_slides(["a", "x", "y"], [slides], "labels.csv")
    with pytest.raises(InputError, match=r"'e.svs' could be .*e.svs, .*e.svs; write the one that is meant") as caught:
        find_slides(["sub/d", "e.svs"], [slides], "labels.csv")
    for path in (slides / "e.svs", slides / "sub" / "e.svs"):
        assert str(path) in str(caught.value)
        assert find_slides([str(path)], [slides], "labels.csv") == {str(path): path}
    monkeypatch.chdir(slides.parent)
    assert find_slides(["slides/e.svs"], ["slides"], "labels.csv") == {"slides/e.svs": Path("slides/e.svs")}
    with pytest.raises(InputError, match=r"'a' and 'a.svs' are both .*a.svs"):
        find_slides(["a", "a.svs"], [slides], "labels.csv")
    with pytest.raises(InputError, match="gone: no such file"):
        find_slides(["a"], [slides / "gone"], "labels.csv")


def test_names_as_other_systems_write_them(slides: Path) -> None:
    written = [".\\a.SVS", "sub\\d.svs", "./sub/c.ome.zarr"]
    found = find_slides(written, [slides], "labels.csv")
    assert [path.relative_to(slides).as_posix() for path in found.values()] == ["a.svs", "sub/d.svs", "sub/c.ome.zarr"]


def test_a_name_that_only_begins_alike_is_another_slide(slides: Path) -> None:
    (slides / "S12.svs").touch()
    (slides / "2021-11-11_09.59.30.svs").touch()
    for name in ("S12.2", "2021-11-11_09.59.06", "a.tiff"):
        with pytest.raises(InputError, match=f"1 of 1 slides not in .*: {name}"):
            find_slides([name], [slides], "labels.csv")
    with pytest.raises(InputError, match=r"is A the slide .*a.svs\? write it as it is there, or without suffix"):
        find_slides(["A"], [slides], "labels.csv")


def test_the_second_word_for_a_part(tmp_path: Path) -> None:
    rows = read_labels(labels_file(tmp_path, "slide,label,split\na,x,Training\nb,x,validation\nc,x,TEST\n"))
    assert [row.part for row in rows] == ["train", "val", "test"]


@pytest.mark.parametrize(
    "name", ["case 1.2", "case 1.2/boxes_1.dcm", "case 1.2\\boxes_0.dcm", "boxes_1.dcm", "boxes_0"]
)
def test_a_dicom_series_by_its_folder_and_by_a_file_inside(shared_data: Path, tmp_path: Path, name: str) -> None:
    series = shutil.copytree(shared_data / "slides/dicom/boxes", tmp_path / "case 1.2")
    assert find_slides([name], [tmp_path], "labels.csv") == {name: series}
    with pytest.raises(InputError, match=r"'case 1.2' and 'boxes_1.dcm' are both"):
        find_slides(["case 1.2", "boxes_1.dcm"], [tmp_path], "labels.csv")
