"""One reader of CSVs: the same cells however they were saved, and one sentence for what is no such text."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_attention.csv_table import read_table
from wsi_attention.errors import InputError


def cells(folder: Path, content: bytes) -> list[list[str]]:
    path = folder / "table.csv"
    path.write_bytes(content)
    table = read_table(path)
    return [list(table.columns), *(list(row.values()) for _, row in table.rows)]


PLAIN = "slide,label\na,tumour\nb,normal\n"
WANTED = [["slide", "label"], ["a", "tumour"], ["b", "normal"]]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        b"\xfe\xff" + PLAIN.encode("utf-16-be"),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.replace("\n", "\r\r\n").encode(),
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode(),
        b"sep=;\r\n" + PLAIN.replace(",", ";").encode(),
        b'"sep=;"\n' + PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", " , ").encode(),
        b'"slide","label"\n"a","tumour"\n"b","normal"',
        b"\n\nslide,label,,\n,,,\na,tumour,,\nb,normal,,,,\n\n,,\n \n",
        "slide,label\n\u200fa\u200e,\ufefftumour\nb\x85,normal\u00a0\n".encode(),
    ],
)
def test_one_table_however_it_is_saved(tmp_path: Path, content: bytes) -> None:
    assert cells(tmp_path, content) == WANTED


@pytest.mark.parametrize("character", ["\v", "\f", "\x1c", "\x85", "\u2028", "\u2029"])
def test_only_line_ends_end_lines(tmp_path: Path, character: str) -> None:
    found = cells(tmp_path, f"slide,label\na{character}1,tu{character}mour\nb,normal\n".encode())
    assert found[1:] == [[f"a{character}1", f"tu{character}mour"], ["b", "normal"]]


def test_quotes_keep_separators_and_lines_together(tmp_path: Path) -> None:
    found = cells(tmp_path, b'slide,label\n"a, ""left"".svs","tu\nmour"\nb,normal\n')
    assert found[1:] == [['a, "left".svs', "tu\nmour"], ["b", "normal"]]


def test_a_quoted_header_is_not_counted_as_separators(tmp_path: Path) -> None:
    assert cells(tmp_path, b'slide;"label, one; of two, or, three"\na;x\n')[1] == ["a", "x"]


def test_rows_know_the_line_they_begin_in(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('slide,label\n\n"a\nb",x\nc,y\n')
    assert [line for line, _ in read_table(tmp_path / "t.csv").rows] == [3, 5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "slide,label\nstra\u00dfe,x\n".encode("latin-1"),
            r"not UTF-8 text \(byte 0xdf in line 2\); save it as CSV in UTF-8",
        ),
        (PLAIN.encode("utf-16-le"), "not UTF-8 text .*NUL"),
        (b"PK\x03\x04rest", r"is a workbook or archive, not text; save it as CSV \(UTF-8\)"),
        (b"\xd0\xcf\x11\xe0rest", "is an Excel workbook"),
        (b'slide,label\n"a,x\nb,y\n', "line 2: not CSV .*is a quotation mark left open"),
        (b"slide,label\na,b.svs,x\n", "line 2: 3 cells under 2 columns; put a cell that holds the separator ','"),
        (b"slide,mpp\na,0,25\n", "line 2: 3 cells under 2 columns"),
    ],
)
def test_what_is_no_table_is_said_in_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        cells(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert "table.csv" in str(caught.value)


def test_columns_are_known_by_any_case_but_once(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(",SLIDE,note,note, Label \n0,a,m,n,x\n")
    table = read_table(tmp_path / "t.csv").known_as(("slide", "label"))
    assert table.columns == ("", "slide", "note", "note", "label")
    assert (table.rows[0][1]["slide"], table.rows[0][1]["label"]) == ("a", "x")
    (tmp_path / "t.csv").write_text("slide,label,Label\na,x,y\n")
    with pytest.raises(InputError, match="column 'label' stands there twice"):
        read_table(tmp_path / "t.csv").known_as(("slide", "label"))
