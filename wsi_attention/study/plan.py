"""What a study is about, settled before anything is computed: labels, folds, and the tables that each fold works by."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_attention.config import Recipe
from wsi_attention.csv_table import Table, read_table
from wsi_attention.errors import InputError
from wsi_attention.plain_text import in_cell
from wsi_attention.study.folds import Division, divided
from wsi_attention.training.labels import COLUMNS, LabelRow, class_names, read_labels, split_rows
from wsi_attention.training.state import plan_of

SPLIT = "split"
"""Column of the labels that says what a slide is for."""
ONE_LABEL = "label"
"""What models of a study are asked for."""


@dataclass(frozen=True)
class Fold:
    """A part of the study: one model, and the slides that it is judged by.

    Attributes:
        repeat: which division, from 1.
        number: which of its folds is held out, from 1.
        parts: slide -> "train", "val" or "test"; the slides of "test" are held out.
    """

    repeat: int
    number: int
    parts: Mapping[str, str]

    @property
    def name(self) -> str:
        """The name of its folder, e.g. "1-3"."""
        return f"{self.repeat}-{self.number}"

    def slides(self, part: str) -> tuple[str, ...]:
        """Return the slides of a part."""
        return tuple(slide for slide, own in self.parts.items() if own == part)


@dataclass(frozen=True)
class StudyPlan:
    """All that decides a study besides the slides themselves.

    Attributes:
        table: the labels as they were given.
        rows: those that take part.
        left_out: slides of the labels that do not, as their split is "test".
        sites: slide -> site; empty where sites are not asked for.
        wanted: how patients are divided.
        recipe: of every training.
        folds: in the order in which they are done.
        related: rows that take no part either, as other slides of their patients are kept for the test.
    """

    table: Table
    rows: tuple[LabelRow, ...]
    left_out: tuple[str, ...]
    sites: Mapping[str, str]
    wanted: Division
    recipe: Recipe
    folds: tuple[Fold, ...]
    related: tuple[LabelRow, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the models' outputs."""
        return class_names(self.rows)

    @property
    def patients(self) -> int:
        """How many there are; each slide is one where the labels do not say."""
        return len({row.patient for row in self.rows})

    @property
    def patients_given(self) -> bool:
        """Whether the labels say whose slides they are."""
        return any(row.has_patient for row in self.rows)

    @property
    def digests(self) -> dict[str, str]:
        """A digest of each part, to tell one study from another."""
        labels = [[line, dict(cells)] for line, cells in self.table.rows]
        folds = [[fold.name, dict(fold.parts)] for fold in self.folds]
        return plan_of(recipe=self.recipe.as_dict(), labels=labels, folds=folds)

    def labels(self) -> str:
        """Return the labels as CSV, as they were when the study began."""
        return as_csv(self.table.columns, ([row[name] for name in self.table.columns] for _, row in self.table.rows))

    def labels_of(self, fold: Fold) -> str:
        """Return the labels of a fold's training as CSV: the columns that were given, and the split of this fold."""
        columns = [column for column in self.table.columns if column != SPLIT]
        cells = [
            (*(row[column] for column in columns), fold.parts[name])
            for _, row in self.table.rows
            if (name := row["slide"].replace("\\", "/")) in fold.parts
        ]
        return as_csv((*columns, SPLIT), cells)

    def held_out(self, fold: Fold) -> Iterator[LabelRow]:
        """Yield the rows that the fold is judged by."""
        return (row for row in self.rows if fold.parts[row.slide] == "test")

    def table_of_folds(self) -> str:
        """Return folds.csv: which fold of each repeat holds out which slide."""
        site = (self.wanted.site,) if self.wanted.site else ()
        return as_csv(
            ("slide", "label", "patient", *site, "repeat", "fold"),
            (
                (row.slide, row.label, row.patient, *[self.sites[row.slide] for _ in site], fold.repeat, fold.number)
                for fold in self.folds
                for row in self.held_out(fold)
            ),
        )


def make_plan(labels: str | Path, recipe: Recipe, wanted: Division) -> StudyPlan:
    """Read the labels and divide them; patients with a slide whose column split is "test" take no part.

    Raises:
        InputError: as `read_labels`, `divided` and `split_rows`; or a site is asked for and missing.
    """
    target = recipe.as_dict().get("target", ONE_LABEL)
    if target != ONE_LABEL:
        raise InputError(
            f"crossvalidate is for one label a slide, not for target = {target!r}; train models for that with train,"
            " with a column split of your own for each"
        )
    every = read_labels(labels)
    tested = {row.patient for row in every if row.part == "test"}
    rows = tuple(sorted((row for row in every if row.patient not in tested), key=lambda row: row.slide))
    related = tuple(row for row in every if row.patient in tested and row.part != "test")
    if len(class_names(rows)) < 2:
        found = f"only {rows[0].label!r}" if rows else "none"
        raise InputError(f"{labels}: a study needs two classes or more; found {found}")
    table = read_table(labels).known_as(COLUMNS)
    sites = _sites(table, wanted.site, rows) if wanted.site else {}
    places = divided(rows, sites, wanted, labels)
    folds = tuple(
        _fold(repeat, number, rows, place, recipe, labels)
        for repeat, place in enumerate(places, 1)
        for number in range(1, wanted.folds + 1)
    )
    left_out = tuple(row.slide for row in every if row.part == "test")
    return StudyPlan(table, rows, left_out, sites, wanted, recipe, folds, related)


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as CSV; a spreadsheet takes no cell for a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([in_cell(str(cell)) for cell in row] for row in rows)
    return text.getvalue()


def _fold(
    repeat: int, number: int, rows: Sequence[LabelRow], place: Mapping[str, int], recipe: Recipe, labels: object
) -> Fold:
    """Return a fold; of the slides that it does not hold out, patients are drawn for its validation."""
    rest = [replace(row, part=None) for row in rows if place[row.slide] != number]
    split = split_rows(rest, recipe.validation_share, recipe.seed, f"{labels}, fold {repeat}-{number}")
    parts = {row.slide: "test" for row in rows}
    parts |= {row.slide: "train" for row in split.train} | {row.slide: "val" for row in split.validation}
    return Fold(repeat, number, parts)


def _sites(table: Table, column: str, rows: Sequence[LabelRow]) -> dict[str, str]:
    """Return the site of each slide that takes part.

    Raises:
        InputError: the labels have no such column, or a cell of it is empty.
    """
    name = next((one for one in table.columns if one.casefold() == column.casefold()), None)
    if name is None:
        raise InputError(f"{table.path}: column {column!r} is missing; found: {', '.join(table.columns)}")
    used = {row.slide for row in rows}
    sites: dict[str, str] = {}
    for line, cells in table.rows:
        slide = cells["slide"].replace("\\", "/")
        if slide not in used:
            continue
        if not cells[name]:
            raise InputError(f"{table.path}, line {line}: {column} is empty; sites can only be kept apart where known")
        sites[slide] = unicodedata.normalize("NFC", cells[name])
    return sites
