"""Which slide carries which label: the labels CSV, and the slides it names among the files that are there."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_attention.errors import InputError

PARTS = ("train", "val", "test")
"""What the optional column `split` may say; slides of "test" are left alone."""
_SUFFIX = re.compile(r"(\.ome)?\.[^./]+((?<=\.zarr)\.zip)?$")


@dataclass(frozen=True)
class LabelRow:
    """A row of the labels CSV.

    Attributes:
        slide: file name with or without suffix, or path below the slides folder.
        label: class name.
        patient: whose slide it is; the slide itself where the CSV has no patient.
        mpp: µm per level-0 pixel where the CSV gives it.
        part: one of `PARTS`, None where the CSV has no split.
    """

    slide: str
    label: str
    patient: str
    mpp: float | None = None
    part: str | None = None


def read_labels(path: str | Path) -> tuple[LabelRow, ...]:
    """Reads `slide,label[,patient][,mpp][,split]`; commas, semicolons or tabs, spaces and a byte-order mark are fine.

    Raises:
        InputError: no such file, no text, a column or a value is missing, a slide stands twice, a number is none.
    """
    table = _lower_case(read_table(path))
    for column in ("slide", "label"):
        if column not in table.columns:
            raise InputError(f"{path}: column {column!r} is missing; found: {', '.join(table.columns) or 'nothing'}")
    rows = tuple(_row(path, line, cells) for line, cells in table.rows)
    if not rows:
        raise InputError(f"{path}: no rows below the header")
    _no_duplicates(path, [row.slide for row in rows])
    return rows


@dataclass(frozen=True)
class Table:
    """A CSV in memory: column names, and (line number, cells by column) for each row that is not empty."""

    columns: tuple[str, ...]
    rows: tuple[tuple[int, Mapping[str, str]], ...]


def read_table(path: str | Path) -> Table:
    """A CSV with a header, whatever its separator among comma, semicolon and tab.

    Raises:
        InputError: no such file, no UTF-8 text, or no CSV.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}") from error
    lines = text.splitlines()
    header = lines[0] if lines else ""
    separator = max(",;\t", key=header.count)
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    try:
        (_, names), *found = [(reader.line_num, cells) for cells in reader] or [(0, [])]
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: not CSV ({error}); is a quotation mark left open?"
        ) from error
    columns = tuple(name.strip() for name in names)
    rows = []
    for line, cells in found:
        if any(cell.strip() for cell in cells):
            padded = [cell.strip() for cell in cells] + [""] * len(columns)
            rows.append((line, dict(zip(columns, padded, strict=False))))
    return Table(columns, tuple(rows))


def find_slides(names: Iterable[str], inputs: Sequence[str | Path], asked_by: str | Path) -> dict[str, Path]:
    """The file of each slide name, looked up below the given folders (or among the given files).

    Raises:
        InputError: an input does not exist, a name fits no file or several, two names mean one file.
    """
    index = _index(inputs)
    where = ", ".join(str(path) for path in inputs)
    found: dict[str, Path] = {}
    missing = []
    for name in names:
        matches = index.get(name) or index.get(name.removeprefix("./")) or []
        if not matches:
            missing.append(name)
        elif len(matches) > 1:
            options = ", ".join(str(path) for path in matches[:3])
            raise InputError(f"{asked_by}: slide {name!r} could be {options}; write the one that is meant")
        else:
            found[name] = matches[0]
    if missing:
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise InputError(f"{asked_by}: {len(missing)} of {len(missing) + len(found)} slides not in {where}: {shown}")
    _one_name_a_file(found, asked_by)
    return found


def bare_name(path: str | Path) -> str:
    """The path as labels may write it: forward slashes, without suffix; "a/b.ome.zarr" and "a/b.svs" are both "a/b"."""
    return _SUFFIX.sub("", str(path).replace("\\", "/"))


def _lower_case(table: Table) -> Table:
    rows = ((line, {column.lower(): cell for column, cell in cells.items()}) for line, cells in table.rows)
    return Table(tuple(column.lower() for column in table.columns), tuple(rows))


def _row(path: str | Path, line: int, cells: Mapping[str, str]) -> LabelRow:
    slide, label, part = cells["slide"].replace("\\", "/"), cells["label"], cells.get("split")
    if not slide or not label:
        raise InputError(f"{path}, line {line}: {'slide' if not slide else 'label'} is empty")
    if part is not None and part.lower() not in PARTS:
        raise InputError(f"{path}, line {line}: split is {part!r}; possible: {', '.join(PARTS)}")
    mpp = _mpp(path, line, cells.get("mpp") or "")
    return LabelRow(slide, label, cells.get("patient") or slide, mpp, part.lower() if part else None)


def _mpp(path: str | Path, line: int, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 100:
        raise InputError(f"{path}, line {line}: mpp is {text!r}; it must be µm per pixel, such as 0.25")
    return value


def _no_duplicates(path: str | Path, slides: Sequence[str]) -> None:
    twice = sorted({slide for slide in slides if slides.count(slide) > 1}) if len(set(slides)) < len(slides) else []
    if twice:
        raise InputError(f"{path}: {len(twice)} slides stand more than once: {', '.join(twice[:3])}")


def _one_name_a_file(found: Mapping[str, Path], asked_by: str | Path) -> None:
    first: dict[Path, str] = {}
    for name, path in found.items():
        if path in first:
            raise InputError(f"{asked_by}: {first[path]!r} and {name!r} are both {path}; keep one of them")
        first[path] = name


def _index(inputs: Sequence[str | Path]) -> dict[str, list[Path]]:
    from wsi_attention.inference import discovery

    index: dict[str, list[Path]] = {}
    for slide in discovery.find_slides(inputs).slides:
        path, relative = Path(slide.path), slide.relative
        whole = {path.as_posix(), Path(slide.key).as_posix()}
        names = {relative, path.name, bare_name(relative), bare_name(path.name), *whole}
        for name in names:
            index.setdefault(name, []).append(path)
    return index
