"""The slides CSV."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from wsi_attention.errors import InputError
from wsi_attention.inference.batch.slides_csv import gather_slides, read_slides_csv


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "slides.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_columns_and_relative_paths(tmp_path: Path) -> None:
    table = write(tmp_path, "slide,mpp,mask,label\na/x.svs,0.25,a/x.png,tumour\n\n/far/y.svs,,,\n", "utf-8-sig")
    first, second = read_slides_csv(table).slides
    assert (first.path, first.relative, first.mpp) == (str(tmp_path / "a/x.svs"), "a/x.svs", 0.25)
    assert first.mask == str(tmp_path / "a/x.png")
    assert (second.path, second.relative, second.mpp, second.mask) == ("/far/y.svs", "y.svs", None, None)


def test_semicolons_and_decimal_commas(tmp_path: Path) -> None:
    (slide,) = read_slides_csv(write(tmp_path, "Slide;MPP\nx.svs;0,25\n")).slides
    assert (slide.relative, slide.mpp) == ("x.svs", 0.25)


def test_trident_s_list_of_slides(tmp_path: Path) -> None:
    first, second = read_slides_csv(write(tmp_path, "wsi,mpp\na/x.svs,0.25\ny.svs,\n")).slides
    assert (first.relative, first.mpp, second.relative, second.mpp) == ("a/x.svs", 0.25, "y.svs", None)
    (named,) = read_slides_csv(write(tmp_path, "wsi,slide\nnot-this.svs,x.svs\n")).slides
    assert named.relative == "x.svs"


def test_input_folder_comes_before_the_table_s_own(tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    (folder / "x.svs").touch()
    table = write(tmp_path, "slide\nx.svs\ny.svs\n")
    found = gather_slides([folder], table).slides
    assert [slide.path for slide in found] == [str(folder / "x.svs"), str(tmp_path / "y.svs")]


def test_a_table_among_the_inputs(tmp_path: Path) -> None:
    (tmp_path / "x.svs").touch()
    (tmp_path / "z.svs").touch()
    table = write(tmp_path, "slide,mpp\nx.svs,0.5\n")
    assert [(slide.relative, slide.mpp) for slide in gather_slides([table]).slides] == [("x.svs", 0.5)]
    both = gather_slides([table, tmp_path]).slides
    assert [(slide.relative, slide.mpp) for slide in both] == [("x.svs", 0.5), ("z.svs", None)]


def test_a_path_that_climbs_out_gets_a_plain_name(tmp_path: Path) -> None:
    (slide,) = read_slides_csv(write(tmp_path, "slide\n../x.svs\n")).slides
    assert slide.relative == "x.svs"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,mpp\nx.svs,1\n", r"slides\.csv: no column slide; found: path, mpp; wanted: slide\[,mpp\]\[,mask\]"),
        ("", "no column slide; found: nothing"),
        ("slide\n", "no rows"),
        (
            "slide,mpp\nx.svs,fine\n",
            r"slides\.csv, line 2: mpp must be a number of µm per pixel from 0.02 to 50, got 'fine'",
        ),
        ("slide,mpp\nx.svs,nan\n", "got 'nan'"),
        ("slide,mpp\nx.svs,1\n,2\n", "line 3: the column slide is empty"),
        ('slide\n"' + "x.svs\n" * 30_000, r"slides\.csv, line \d+: not CSV \(field larger .*quotation mark left open"),
        ("slide\nx.svs\n./x.svs\n", r"line 3: \./x\.svs is listed twice"),
        ("slide,series\nx.svs,1\nx.svs,2\nx.svs,1\n", r"line 4: x\.svs is listed twice"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_slides_csv(write(tmp_path, text))


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_slides_csv(tmp_path / "none.csv")
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_slides_csv(write(tmp_path, "slide\n\xe9.svs\n", "latin-1"))
    with pytest.raises(InputError, match="not a folder; with --slides-csv"):
        gather_slides([tmp_path / "x.svs"], write(tmp_path, "slide\nx.svs\n"))


@pytest.mark.parametrize(
    "text",
    [
        "slide\tmpp\nsub/x\t0.25\n",
        "Slide ;MPP\r\n.\\sub\\x.SVS;0,25\r\n;;\r\n",
        "sep=,\rslide,mpp,\rsub/x.svs,0.25,\r",
        'slide,mpp\n"sub/x.svs","0.25"\n',
    ],
)
def test_a_row_however_it_is_written(tmp_path: Path, text: str) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("x.svs", "x.txt", "y.svs"):
        (tmp_path / "sub" / name).touch()
    for encoding in ("utf-8-sig", "utf-16"):
        path = tmp_path / "slides.csv"
        path.write_bytes(text.encode(encoding))
        (slide,) = read_slides_csv(path).slides
        assert (slide.path, slide.relative, slide.mpp) == (str(tmp_path / "sub" / "x.svs"), "sub/x.svs", 0.25)


def test_composed_and_decomposed_names_are_one(tmp_path: Path) -> None:
    for there, written in (("NFD", "NFC"), ("NFC", "NFD")):
        name = unicodedata.normalize(there, "Präparat.svs")
        (tmp_path / name).touch()
        (slide,) = read_slides_csv(write(tmp_path, f"slide\n{unicodedata.normalize(written, name)}\n")).slides
        assert Path(slide.path).exists()
        assert slide.relative == name
        (tmp_path / name).unlink()


def test_a_name_of_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("x.svs", "x.tiff", "S12.2.svs"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"slides.csv, line 2: slide 'x' could be x\.\w+, x\.\w+; write the one"):
        read_slides_csv(write(tmp_path, "slide\nx\n"))
    (slide,) = read_slides_csv(write(tmp_path, "slide\nS12\n")).slides
    assert slide.relative == "S12"
    with pytest.raises(InputError, match="column 'slide' stands there twice"):
        read_slides_csv(write(tmp_path, "slide,Slide\nx.svs,y.svs\n"))
