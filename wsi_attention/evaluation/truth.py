"""Predictions beside labels: probabilities of each slide, its row of the labels, and which slides judge."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from wsi_attention.csv_table import Table
from wsi_attention.errors import InputError
from wsi_attention.inference.batch.discovery import files_of
from wsi_attention.inference.batch.matching import DICOM, SlideNames, file_name
from wsi_attention.inference.batch.names import suffix_of
from wsi_attention.inference.results.state import FOLDER, read_state
from wsi_attention.targets.one_label import LABEL
from wsi_attention.targets.target import Asked
from wsi_attention.training.labels import PARTS, LabelRow, read_labels

JUDGED = ("done", "partial")
"""Statuses of slides that have a prediction."""
SUM_TOLERANCE = 0.01
"""How far the probabilities of a slide may sum to something else than 1: they are written rounded."""


def unit_of(table: Table) -> str:
    """Return what a row of a table is: a "patient" in patients.csv, otherwise a "slide"."""
    return "patient" if "patient" in table.columns and "slide" not in table.columns else "slide"


def shares_in(path: Path, table: Table) -> tuple[tuple[str, ...], dict[str, list[float]]]:
    """Return the classes of a table, and the probabilities of each slide, or patient, that has a prediction.

    Raises:
        InputError: there are no such columns, a slide stands twice, or numbers are no probabilities.
    """
    columns, unit = [column for column in table.columns if column.startswith("prob_")], unit_of(table)
    if unit not in table.columns or len(columns) < 2:
        raise InputError(
            f"{path}: needs a column slide and two columns prob_<class>; found: {', '.join(table.columns)}"
        )
    table.check_once(columns)
    shares: dict[str, list[float]] = {}
    for line, cells in table.rows:
        if cells.get("status", "done") in JUDGED:
            if cells[unit] in shares:
                raise InputError(f"{path}, line {line}: {unit} {cells[unit]!r} stands there twice; keep one row")
            shares[cells[unit]] = _row_shares(f"{path}, line {line}", [cells[column] for column in columns])
    return tuple(column.removeprefix("prob_") for column in columns), shares


def _row_shares(where: str, cells: Sequence[str]) -> list[float]:
    try:
        found = [float(cell.replace(",", ".")) for cell in cells]
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    if not all(0 <= share <= 1 for share in found) or abs(sum(found) - 1) > SUM_TOLERANCE:
        raise InputError(f"{where}: {', '.join(cells)} are no probabilities; they lie in 0 to 1 and their sum is 1")
    return found


def truth_of(
    labels: str | Path,
    shares: Mapping[str, object],
    meant: Callable[[LabelRow], object],
    results: Path,
    wanted: Asked = LABEL,
) -> tuple[dict[str, LabelRow], tuple[LabelRow, ...]]:
    """Return the row of the labels by the predictions' slide names, and the rows that have no prediction.

    Args:
        labels: the CSV.
        shares: by the slides that have a prediction.
        meant: what a row says; two rows of a slide must say the same.
        results: the results folder.
        wanted: what the model was asked for.

    Raises:
        InputError: the labels cannot be read, or contradict themselves.
    """
    index = SlideNames(labels, "write its relative path")
    written = read_labels(labels, wanted)
    files = _files_inside(shares, results) if any(_may_be_inside(row.slide) for row in written) else {}
    for name in shares:
        index.add(name, (name, *files.get(name, ())))
    truth: dict[str, LabelRow] = {}
    unpredicted = []
    for row in written:
        found, said = index.find(row.slide), meant(row)
        if found is None:
            unpredicted.append(row)
            continue
        first = truth.setdefault(found, row)
        if meant(first) != said:
            raise InputError(f"{labels}: two rows give slide {found} different labels; keep one of them")
        if first.part != row.part:
            raise InputError(f"{labels}: two rows put slide {found} into different parts; keep one of them")
    return truth, tuple(unpredicted)


def patients_of(
    labels: str | Path, shares: Mapping[str, object], meant: Callable[[LabelRow], object]
) -> tuple[dict[str, LabelRow], tuple[LabelRow, ...]]:
    """Return the first row of the labels of each patient with a prediction, and one of each patient without.

    Args:
        labels: the CSV; a slide without a patient is one of its own name.
        shares: by the patients that have a prediction.
        meant: what a row says; all rows of a patient must say the same.

    Raises:
        InputError: the labels cannot be read, name no patients, or slides of a patient contradict each other.
    """
    written = read_labels(labels)
    if not any(row.has_patient for row in written):
        raise InputError(
            f"{labels}: the predictions are of patients, and no column patient says whose a slide is; add it"
        )
    first: dict[str, LabelRow] = {}
    for row in written:
        known = first.setdefault(row.patient, row)
        if meant(known) != meant(row):
            raise InputError(
                f"{labels}: slides of patient {row.patient} are labelled {known.label} and {row.label}; a row of "
                "patients.csv is judged by one label"
            )
        if known.part != row.part:
            raise InputError(
                f"{labels}: patient {row.patient} is in the parts {known.part} and {row.part}; put all slides of a "
                "patient into one"
            )
    named = {unicodedata.normalize("NFC", name): name for name in shares}
    truth = {named[patient]: row for patient, row in first.items() if patient in named}
    return truth, tuple(row for patient, row in first.items() if patient not in named)


def _may_be_inside(name: str) -> bool:
    """Return True where a name may be that of a DICOM file, by its suffix or because it is a UID."""
    return suffix_of(name).lower() in DICOM or all(part.isdigit() for part in file_name(name).split("."))


def _files_inside(names: Iterable[str], results: Path) -> dict[str, list[str]]:
    """Return the DICOM files of the slides that are folders, by the slides' names, as far as these still exist."""
    found = {}
    for name in names:
        path = results / FOLDER / f"{name}.json"
        state = read_state(path) if path.is_file() else None
        if state is not None:
            found[name] = [f"{name}/{file}" for file in files_of(state.path)]
    return found


def taken_of(
    rows: Mapping[str, LabelRow],
    unpredicted: Sequence[LabelRow],
    split: str | None,
    labels: str | Path,
    unit: str = "slide",
) -> tuple[dict[str, LabelRow], str]:
    """Return the rows to judge by, and a sentence on those that are left out.

    Args:
        rows: of the labels, by the slide or patient that has a prediction.
        unpredicted: of the labels, without a prediction.
        split: one of `PARTS`, "all", or None for all but "train".
        labels: the file, for messages.
        unit: "slide" or "patient".

    Raises:
        InputError: there is no such part.
    """
    if split not in (None, "all", *PARTS):
        raise InputError(f"split is {split!r}; possible: all, {', '.join(PARTS)}")
    if not any(row.part for row in (*rows.values(), *unpredicted)):
        if split not in (None, "all"):
            raise InputError(f"{labels} has no column split, so there are no {split} {unit}s in it")
        return dict(rows), ""
    wanted = {None: ("val", "test"), "all": PARTS}.get(split, (split,))
    taken = {name: row for name, row in rows.items() if row.part in wanted}
    counts = [f"{sum(row.part == part for row in rows.values())} {part}" for part in PARTS if part in wanted]
    left = f"{len(rows) - len(taken)} {unit}s of other parts are left out"
    return taken, f"column split: {', '.join(counts)} {unit}s judge, {left} (--split chooses)"


def class_index(label: str, classes: tuple[str, ...], labels: str | Path) -> int:
    """Return the class that a label is, in small or capital letters where that leaves one."""
    known = [unicodedata.normalize("NFC", name) for name in classes]
    alike = [i for i, name in enumerate(known) if name.casefold() == label.casefold()]
    if label in known:
        return known.index(label)
    if len(alike) == 1:
        return alike[0]
    raise InputError(f"{labels}: label {label!r} is no class of the predictions ({', '.join(classes)})")
