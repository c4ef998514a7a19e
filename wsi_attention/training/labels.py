"""Which slide carries which label: the labels CSV, and the slides it names among the files that are there."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_attention.errors import InputError
from wsi_attention.inference.csv_table import read_table
from wsi_attention.inference.matching import SlideNames, bare_name
from wsi_attention.slide.metadata import given_mpp
from wsi_attention.training.label_values import check_values

__all__ = ["COLUMNS", "PARTS", "LabelRow", "bare_name", "find_slides", "read_labels", "with_series"]

COLUMNS = ("slide", "label", "patient", "mpp", "split", "series")
"""Columns that are looked at, in any order, in small or capital letters."""
PARTS = ("train", "val", "test")
"""What the optional column `split` may say; slides of "test" are left alone in training."""
_PARTS = {**{part: part for part in PARTS}, "training": "train", "validation": "val", "valid": "val", "testing": "test"}


@dataclass(frozen=True)
class LabelRow:
    """A row of the labels CSV.

    Attributes:
        slide: file name with or without suffix, or path below the slides folder.
        label: class name.
        patient: whose slide it is; the slide itself where the CSV has no patient.
        mpp: µm per level-0 pixel where the CSV gives it.
        part: one of `PARTS`, None where the CSV has no split.
        series: the number or name of the image that is the slide, where the CSV gives it.
    """

    slide: str
    label: str
    patient: str
    mpp: float | None = None
    part: str | None = None
    series: str | None = None

    @property
    def has_patient(self) -> bool:
        """Whether the CSV says whose slide it is."""
        return self.patient != self.slide


def read_labels(path: str | Path) -> tuple[LabelRow, ...]:
    """Read `slide,label[,patient][,mpp][,split][,series]`, written as `csv_table.read_table` takes it.

    Raises:
        InputError: no such file, no text, a column or a value is missing, a slide stands twice, a number is none, or a
            label is none, such as NaN.
    """
    table = read_table(path).known_as(COLUMNS)
    for column in ("slide", "label"):
        if column not in table.columns:
            raise InputError(f"{path}: column {column!r} is missing; found: {', '.join(table.columns) or 'nothing'}")
    rows = tuple(_row(path, line, cells) for line, cells in table.rows)
    if not rows:
        raise InputError(f"{path}: no rows below the header")
    check_values({line: row.label for (line, _), row in zip(table.rows, rows, strict=True)}, path)
    _no_duplicates(path, [row.slide for row in rows])
    return rows


def with_series(rows: Iterable[LabelRow], series: str | None) -> tuple[LabelRow, ...]:
    """Return the rows with one image to take for all that name none of their own."""
    return tuple(row if row.series is not None else replace(row, series=series) for row in rows)


def find_slides(names: Iterable[str], inputs: Sequence[str | Path], asked_by: str | Path) -> dict[str, Path]:
    """Return the file of each slide name, looked up below the given folders (or among the given files).

    Raises:
        InputError: an input does not exist, a name fits no file or several, two names mean one file.
    """
    index = _index(inputs, asked_by)
    found: dict[str, Path] = {}
    missing = []
    for name in names:
        match = index.find(name)
        if match is None:
            missing.append(name)
        else:
            found[name] = Path(match)
    if missing:
        where = ", ".join(str(path) for path in inputs)
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        near = index.near(missing[0])
        hint = f"; is {missing[0]} the slide {near}? write it as it is there, or without suffix" if near else ""
        raise InputError(
            f"{asked_by}: {len(missing)} of {len(missing) + len(found)} slides not in {where}: {shown}{hint}"
        )
    _one_name_a_file(found, asked_by)
    return found


def _row(path: str | Path, line: int, cells: Mapping[str, str]) -> LabelRow:
    slide, part = cells["slide"].replace("\\", "/"), cells.get("split")
    label = unicodedata.normalize("NFC", cells["label"])
    if not slide or not label:
        raise InputError(f"{path}, line {line}: {'slide' if not slide else 'label'} is empty")
    if part is not None and part.lower() not in _PARTS:
        raise InputError(f"{path}, line {line}: split is {part!r}; possible: {', '.join(PARTS)}")
    mpp = given_mpp(cells.get("mpp"), f"{path}, line {line}")
    patient = unicodedata.normalize("NFC", cells.get("patient") or slide)
    series = cells.get("series") or None
    return LabelRow(slide, label, patient, mpp, _PARTS[part.lower()] if part else None, series)


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


def _index(inputs: Sequence[str | Path], asked_by: str | Path) -> SlideNames:
    from wsi_attention.inference import discovery

    index = SlideNames(asked_by)
    for slide in discovery.find_slides(inputs).slides:
        path = Path(slide.path)
        inside = [f"{slide.relative}/{name}" for name in discovery.files_of(slide.path)]
        index.add(slide.path, (slide.relative, path.name, path.as_posix(), Path(slide.key).as_posix(), *inside))
    return index
