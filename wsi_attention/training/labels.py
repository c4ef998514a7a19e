"""Labels of slides from a CSV, and which slides train and which validate: by patient, stratified by label."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wsi_attention.csv_table import Table, read_table
from wsi_attention.errors import InputError
from wsi_attention.inference.batch.matching import SlideNames, bare_name
from wsi_attention.slide.metadata import given_mpp
from wsi_attention.slide.urls import is_url, last_part
from wsi_attention.targets import one_label, regression, survival
from wsi_attention.targets.numbers import number_in, with_points
from wsi_attention.targets.one_label import LABEL
from wsi_attention.targets.target import Asked, Target

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
        label: class name; for another target what is known of the slide, as its `Asked.text` writes it.
        patient: whose slide it is; the slide itself where the CSV has no patient.
        mpp: µm per level-0 pixel where the CSV gives it.
        part: one of `PARTS`, None where the CSV has no split.
        series: the number or name of the image that is the slide, where the CSV gives it.
        order: the number that a curriculum goes by, where one is asked for and the CSV gives it.
    """

    slide: str
    label: str
    patient: str
    mpp: float | None = None
    part: str | None = None
    series: str | None = None
    order: float | None = None

    @property
    def has_patient(self) -> bool:
        """True where the CSV says whose slide it is."""
        return self.patient != self.slide


def read_labels(path: str | Path, wanted: Asked = LABEL, order: str = "") -> tuple[LabelRow, ...]:
    """Read `slide,label[,patient][,mpp][,split][,series]`, written as `csv_table.read_table` takes it.

    Args:
        path: the CSV.
        wanted: what the model is asked for; its columns stand in place of `label`.
        order: column with the numbers that a curriculum goes by; empty cells are none. No such column where empty.

    Raises:
        InputError: no such file, no text, a column or a value is missing, a slide stands twice, a number is none, or a
            label is none, such as NaN.
    """
    further = (order,) if order else ()
    table = _called(read_table(path).known_as(COLUMNS), (*wanted.columns, *further))
    for column in ("slide", *wanted.columns, *further):
        if column not in table.columns:
            asked = ", which the curriculum goes by," if column == order else ""
            found = ", ".join(table.columns) or "nothing"
            raise InputError(f"{path}: column {column!r}{asked} is missing; found: {found}")
    if wanted.kind in (regression.KIND, survival.KIND):
        table = _with_points(table, wanted.columns)
    table = _with_points(table, further)
    rows = tuple(_row(path, line, cells, wanted, order) for line, cells in table.rows)
    if not rows:
        raise InputError(f"{path}: no rows below the header")
    if order and all(row.order is None for row in rows):
        raise InputError(f"{path}: column {order!r}, which the curriculum goes by, holds no number; fill it in")
    wanted.check({line: row.label for (line, _), row in zip(table.rows, rows, strict=True)}, path)
    _no_duplicates(path, [row.slide for row in rows])
    return rows


def with_series(rows: Iterable[LabelRow], series: str | None) -> tuple[LabelRow, ...]:
    """Return the rows with one image to take for all that name none of their own."""
    return tuple(row if row.series is not None else replace(row, series=series) for row in rows)


def find_slides(names: Iterable[str], inputs: Sequence[str | Path], asked_by: str | Path) -> dict[str, str | Path]:
    """Return the file of each slide name, looked up below the given folders (or among the given files and URLs).

    Raises:
        InputError: an input does not exist, a name fits no file or several, two names mean one file.
    """
    index = _index(inputs, asked_by)
    found: dict[str, str | Path] = {}
    missing = []
    for name in names:
        match = index.find(name)
        if match is None:
            missing.append(name)
        else:
            found[name] = match if is_url(match) else Path(match)
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


def _called(table: Table, columns: Sequence[str]) -> Table:
    """Return the table with these columns named exactly so, in whatever case and spacing they are written."""
    alike = {" ".join(name.split()).casefold(): name for name in columns if name not in COLUMNS}
    if not alike:
        return table
    known = table.known_as(alike)
    rows = tuple((line, {alike.get(name, name): cell for name, cell in cells.items()}) for line, cells in known.rows)
    return replace(known, columns=tuple(alike.get(name, name) for name in known.columns), rows=rows)


def _with_points(table: Table, columns: Sequence[str]) -> Table:
    """Return the table with points for the decimal commas of these columns."""
    told = {column: with_points([cells[column] for _, cells in table.rows]) for column in columns}
    rows = ((line, {**cells, **{one: told[one][at] for one in columns}}) for at, (line, cells) in enumerate(table.rows))
    return replace(table, rows=tuple(rows))


def _row(path: str | Path, line: int, cells: Mapping[str, str], wanted: Asked, order: str) -> LabelRow:
    slide, part = cells["slide"].replace("\\", "/"), cells.get("split")
    if not slide:
        raise InputError(f"{path}, line {line}: slide is empty")
    label = wanted.text(cells, f"{path}, line {line}")
    if part is not None and part.lower() not in _PARTS:
        raise InputError(f"{path}, line {line}: split is {part!r}; possible: {', '.join(PARTS)}")
    mpp = given_mpp(cells.get("mpp"), f"{path}, line {line}")
    patient = unicodedata.normalize("NFC", cells.get("patient") or slide)
    series = cells.get("series") or None
    number = number_in(cells[order], order, f"{path}, line {line}") if order and cells[order] else None
    return LabelRow(slide, label, patient, mpp, _PARTS[part.lower()] if part else None, series, number)


def _no_duplicates(path: str | Path, slides: Sequence[str]) -> None:
    twice = sorted({slide for slide in slides if slides.count(slide) > 1}) if len(set(slides)) < len(slides) else []
    if twice:
        raise InputError(f"{path}: {len(twice)} slides stand more than once: {', '.join(twice[:3])}")


def _one_name_a_file(found: Mapping[str, str | Path], asked_by: str | Path) -> None:
    first: dict[str | Path, str] = {}
    for name, path in found.items():
        if path in first:
            raise InputError(f"{asked_by}: {first[path]!r} and {name!r} are both {path}; keep one of them")
        first[path] = name


def _index(inputs: Sequence[str | Path], asked_by: str | Path) -> SlideNames:
    from wsi_attention.inference.batch import discovery

    index = SlideNames(asked_by)
    for slide in discovery.find_slides(inputs).slides:
        if is_url(slide.path):
            index.add(slide.path, (slide.relative, last_part(slide.path), slide.key))
            continue
        path = Path(slide.path)
        inside = [f"{slide.relative}/{name}" for name in discovery.files_of(slide.path)]
        index.add(slide.path, (slide.relative, path.name, path.as_posix(), Path(slide.key).as_posix(), *inside))
    return index


@dataclass(frozen=True)
class Split:
    """Rows that train and rows that validate, each sorted by slide name.

    Attributes:
        classes: class names in the order of the model's outputs; of two, the second is the positive one. For another
            target its names.
        train: rows the weights learn from.
        validation: rows that decide when to stop.
        notes: what is less than ideal about it, one sentence each.
        target: fitted to the rows that train; None for classes alone.
    """

    classes: tuple[str, ...]
    train: tuple[LabelRow, ...]
    validation: tuple[LabelRow, ...]
    notes: tuple[str, ...] = ()
    target: Target | None = None


def split_rows(rows: Sequence[LabelRow], share: float, seed: int, name: str | Path, wanted: Asked = LABEL) -> Split:
    """Follow the column `split` where there is one, otherwise draw patients; `name` is what errors call the CSV.

    Raises:
        InputError: labels that can be no classes, fewer than two of them, a class with a single slide, a given
            split that lacks a part or class.
    """
    given, rows = rows, sorted((row for row in rows if row.part != "test"), key=lambda row: row.slide)
    strata = wanted.strata([row.label for row in rows], name)
    if any(row.part for row in rows):
        parts = {row.slide: row.part for row in rows}
        held = {slide for slide, part in parts.items() if part == "val"}
    else:
        patients = _draw([replace(row, label=stratum) for row, stratum in zip(rows, strata, strict=True)], share, seed)
        held = {row.slide for row in rows if row.patient in patients}
    train = tuple(row for row in rows if row.slide not in held)
    validation = tuple(row for row in rows if row.slide in held)
    _both_parts(train, validation, name)
    target, notes = wanted.fitted([row.label for row in train], [row.label for row in validation], name)
    tested = {row.patient for row in given if row.part == "test"}
    told = (*notes, *_shared(train, validation), *_patient_notes(rows, tested))
    return Split(target.names, train, validation, told, target)


def class_names(rows: Sequence[LabelRow]) -> tuple[str, ...]:
    """Return the labels that occur, sorted; numbers by value."""
    return one_label.class_names([row.label for row in rows])


def class_weights(labels: Sequence[int], classes: int) -> tuple[float, ...]:
    """Return n / (classes · n_c), 0 for an absent class: classes count the same, the mean over slides is 1."""
    counts = np.bincount(np.asarray(labels, np.int64), minlength=classes)
    present = int((counts > 0).sum())
    return tuple(len(labels) / (present * int(count)) if count else 0.0 for count in counts)


def _draw(rows: Sequence[LabelRow], share: float, seed: int) -> set[str]:
    """Draw patients for validation: rarest class first, each up to its share, never a class's last training patient.

    Where no patient of a class fits into the shares, the one who exceeds them least is taken.
    """
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        labels[row.patient][row.label] += 1
    order = [sorted(labels)[i] for i in np.random.default_rng(seed).permutation(len(labels))]
    counts = Counter(row.label for row in rows)
    room = Counter({label: max(1, round(share * count)) for label, count in counts.items()})
    training = Counter(label for own in labels.values() for label in own)
    chosen: set[str] = set()

    def spared(patient: str) -> bool:
        return patient not in chosen and all(training[label] > 1 for label in labels[patient])

    def take(patient: str) -> None:
        chosen.add(patient)
        room.subtract(labels[patient])
        training.subtract(labels[patient].keys())

    for label in sorted(counts, key=lambda label: (counts[label], label)):
        members = [patient for patient in order if label in labels[patient]]
        for patient in members:
            if spared(patient) and not _excess(labels[patient], room):
                take(patient)
        rest = [patient for patient in members if spared(patient)]
        if rest and not chosen.intersection(members):
            take(min(rest, key=lambda patient: _excess(labels[patient], room)))
    return chosen


def _excess(slides: Counter[str], room: Counter[str]) -> int:
    return sum(max(0, count - max(0, room[label])) for label, count in slides.items())


def _both_parts(train: Sequence[LabelRow], validation: Sequence[LabelRow], name: str | Path) -> None:
    if not validation or not train:
        part = "validation" if not validation else "training"
        raise InputError(f"{name}: no slides are left for {part}; more patients, or a column split (train/val), help")


def _shared(train: Sequence[LabelRow], validation: Sequence[LabelRow]) -> tuple[str, ...]:
    shared = {row.patient for row in train} & {row.patient for row in validation}
    if not shared:
        return ()
    return (f"{len(shared)} patients have slides in both parts of the given split: the AUROC is too kind",)


def several_labels(rows: Iterable[LabelRow]) -> dict[str, tuple[str, ...]]:
    """Return the labels of each patient whose slides do not all have the same one."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        found[row.patient].add(row.label)
    return {patient: tuple(sorted(labels)) for patient, labels in sorted(found.items()) if len(labels) > 1}


def _patient_notes(rows: Sequence[LabelRow], tested: set[str]) -> tuple[str, ...]:
    """Say which patients contradict themselves, and which will test the model that learns from them."""
    notes = []
    if contradicting := several_labels(rows):
        patient, labels = next(iter(contradicting.items()))
        notes.append(
            f"{len(contradicting)} patients have slides with different labels ({patient}: {', '.join(labels)}): each"
            " slide teaches its own; if a label is the patient's, correct it"
        )
    if shared := tested & {row.patient for row in rows}:
        notes.append(f"{len(shared)} patients of the split test have other slides here: a test on them is too kind")
    return tuple(notes)
