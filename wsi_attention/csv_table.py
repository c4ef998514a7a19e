"""Read a CSV as people and programs write it: the one reader behind labels, slides CSVs and predictions.csv.

UTF-8 with or without a byte-order mark, or UTF-16 with one; comma, semicolon or tab; quotes; any line end. Anything
else is refused in one sentence, because a cell read wrongly is a slide with the wrong label.
"""

from __future__ import annotations

import codecs
import csv
import io
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_attention.errors import InputError
from wsi_attention.plain_text import from_cell

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte-order marks, longest first where one begins another."""
_NO_TEXT = ((b"PK\x03\x04", "a workbook or archive"), (b"\xd0\xcf\x11\xe0", "an Excel workbook"), (b"\x1f\x8b", "gzip"))
_END = "\x1fend of the file\x1f"
"""A row added after the last one; where it is not read as the last row, a quotation mark was left open."""


@dataclass(frozen=True)
class Table:
    """A CSV in memory.

    Attributes:
        path: the file, for messages.
        columns: names as they are written, without spaces around them.
        rows: (line number, cells in the order of the columns) of each row that is not empty.
    """

    path: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, Mapping[str, str]], ...]

    def known_as(self, names: Collection[str]) -> Table:
        """Return the table with these columns named exactly so, in whatever case and spacing they are written.

        Raises:
            InputError: one of them stands there twice.
        """
        given = {column: name for column in self.columns if (name := _folded(column)) in names}
        self.check_once(given, [given.get(column, column) for column in self.columns])
        rows = tuple((line, {given.get(key, key): cell for key, cell in cells.items()}) for line, cells in self.rows)
        return replace(self, columns=tuple(given.get(column, column) for column in self.columns), rows=rows)

    def check_once(self, wanted: Collection[str], columns: Sequence[str] = ()) -> None:
        """Refuse a table in which a wanted column stands twice.

        Raises:
            InputError: it does; which one is meant cannot be known.
        """
        columns = columns or self.columns
        twice = sorted({name for name in columns if columns.count(name) > 1})
        found = [name for name in twice if name in wanted or name in map(_folded, wanted)]
        if found:
            raise InputError(f"{self.path}: column {found[0]!r} stands there twice; keep the one that is meant")


def read_table(path: str | Path) -> Table:
    """Return a CSV with a header; cells lose what cannot be seen at their ends, such as spaces and byte-order marks.

    Raises:
        InputError: no such file, no text in a known encoding, no CSV, or a row with more cells than the header.
    """
    text, separator = _without_hint(_text(Path(path)))
    (_, header), *found = _lines(path, text, separator) or [(0, [])]
    columns = tuple(_clean(name) for name in header)
    while columns and not columns[-1]:
        columns = columns[:-1]
    rows = []
    for line, cells in found:
        if any(cells[len(columns) :]):
            raise InputError(
                f"{path}, line {line}: {len(cells)} cells under {len(columns)} columns; put a cell that holds "
                f"the separator {separator!r} into quotation marks"
            )
        padded = [*cells[: len(columns)], *[""] * (len(columns) - len(cells))]
        rows.append((line, dict(zip(columns, padded, strict=True))))
    return Table(str(path), columns, tuple(rows))


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist, so it cannot be read") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    kind = next((kind for mark, kind in _NO_TEXT if raw.startswith(mark)), "")
    if kind:
        raise InputError(f"{path} is {kind}, not text; save it as CSV (UTF-8)")
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}: not UTF-8 text (byte 0x{raw[error.start]:02x} in line {line}); save it as CSV in UTF-8"
        ) from error
    if "\0" in text:
        raise InputError(f"{path}: not UTF-8 text (it holds NUL characters); save it as CSV in UTF-8")
    return text


def _without_hint(text: str) -> tuple[str, str]:
    """Return the text without Excel's line "sep=;", and its separator: that one, or the most frequent in the header."""
    lines = io.StringIO(text, newline=None).read().split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    hint = lines[first].strip().strip('"').lower() if lines else ""
    if hint.startswith("sep=") and len(hint) <= 5:
        lines[first] = ""
        return "\n".join(lines), (hint[4:] or "\t")
    bare = "".join(lines[first].split('"')[::2]) if lines else ""
    return "\n".join(lines), max(",;\t", key=bare.count)


def _lines(path: str | Path, text: str, separator: str) -> list[tuple[int, list[str]]]:
    """Return (line a row begins in, its cells) of every row that is not empty."""
    reader = csv.reader(io.StringIO(f"{text.rstrip()}\n{_END}\n"), delimiter=separator, skipinitialspace=True)
    rows, begin = [], 1
    try:
        for cells in reader:
            rows.append((begin, [from_cell(_clean(cell)) for cell in cells]))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise _left_open(path, begin, str(error)) from error
    begin, last = rows.pop()
    if last != [_clean(_END)]:
        raise _left_open(path, begin, "the file ends within a cell")
    return [(line, cells) for line, cells in rows if any(cells)]


def _left_open(path: str | Path, line: int, reason: str) -> InputError:
    return InputError(f"{path}, line {line}: not CSV ({reason}); is a quotation mark left open?")


def _clean(cell: str) -> str:
    """Return a cell without invisible characters at its ends: spaces, byte-order and direction marks, controls."""
    begin, end = 0, len(cell)
    while begin < end and _is_invisible(cell[begin]):
        begin += 1
    while end > begin and _is_invisible(cell[end - 1]):
        end -= 1
    return cell[begin:end]


def _is_invisible(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) in ("Cf", "Zs", "Cc")


def _folded(column: str) -> str:
    return " ".join(column.split()).casefold()
