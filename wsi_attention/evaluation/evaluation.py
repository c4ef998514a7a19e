"""How good a results folder is: its table against known labels, its tiles against outlined lesions."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from wsi_attention.checkpoint import Classifier, ClassifierLike
from wsi_attention.csv_table import Table, read_table
from wsi_attention.errors import InputError
from wsi_attention.evaluation.overlap import NOBODY_KNOWS, Overlap, find_config, find_overlap
from wsi_attention.files import given_path
from wsi_attention.inference.batch.discovery import files_of
from wsi_attention.inference.batch.matching import DICOM, SlideNames, file_name
from wsi_attention.inference.batch.names import suffix_of
from wsi_attention.inference.results.state import FOLDER, read_state
from wsi_attention.json_values import parse
from wsi_attention.model_card import ModelConfig
from wsi_attention.statistics.intervals import METHODS, proportion_interval
from wsi_attention.statistics.metrics import Scores, score
from wsi_attention.structures import warning_in
from wsi_attention.training.labels import PARTS, LabelRow, read_labels
from wsi_attention.training.negative import says_nothing_found

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

JUDGED = ("done", "partial")
"""Statuses of slides that have a prediction."""
SUM_TOLERANCE = 0.01
"""How far the probabilities of a slide may sum to something else than 1: they are written rounded."""
BOX = ("minx", "miny", "width", "height")
"""Columns of a table of tiles that say where a tile lies."""


@dataclass(frozen=True)
class Localisation:
    """How often the highest-weighted tile of the last glimpse lies on a lesion.

    Attributes:
        positives: slides with outlined lesions and a table with tiles; methods that read none have none.
        hits: of these, those whose highest-weighted tile touches a lesion.
        missed: the others, by name.
    """

    positives: int
    hits: int
    missed: tuple[str, ...]

    @property
    def share(self) -> float:
        """hits / positives; NaN where there are none."""
        return self.hits / self.positives if self.positives else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share, over slides."""
        return proportion_interval(np.arange(self.positives) < self.hits)


@dataclass(frozen=True)
class Evaluation:
    """A results folder against the truth.

    Attributes:
        classes: in the order of the confusion table.
        scores: over the slides that have a label and a prediction.
        unpredicted: labelled slides without a prediction, by name.
        unlabelled: predicted slides without a label, by name.
        localisation: None where no ground truth was given.
        negative: class that means that nothing was found, None where nobody says.
        split: which rows of the labels were taken, where they have a column `split`.
        overlap: which of the slides the model has learnt from.
        patients_given: whether the labels say whose slides they are.
        warning: what labels of the model are worth, where it says that it is no model in earnest.
    """

    classes: tuple[str, ...]
    scores: Scores
    unpredicted: tuple[str, ...]
    unlabelled: tuple[str, ...]
    localisation: Localisation | None = None
    negative: str | None = None
    split: str = ""
    overlap: Overlap = field(default=NOBODY_KNOWS)
    patients_given: bool = False
    warning: str = ""

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the AUROC."""
        return self.scores.auroc_interval

    @property
    def positive(self) -> str | None:
        """The class whose AUROC is told: of two, the one that is a finding; None where there are more."""
        if len(self.classes) != 2:
            return None
        return self.classes[0] if self.negative == self.classes[1] else self.classes[1]

    def as_dict(self) -> dict[str, object]:
        """Return plain JSON values; NaN is None."""
        found = self.localisation
        return {
            "warning": self.warning or None,
            "classes": list(self.classes),
            "patients_given": self.patients_given,
            "positive": self.positive,
            "negative": self.negative,
            **self.scores.as_dict(),
            "intervals": METHODS,
            "split": self.split,
            "seen_in_training": self.overlap.as_dict(),
            "unpredicted": list(self.unpredicted),
            "unlabelled": list(self.unlabelled),
            "localisation": None
            if found is None
            else {"positives": found.positives, "hits": found.hits, "missed": list(found.missed)},
        }


def evaluate(
    predictions: str | Path,
    labels: str | Path,
    groundtruth: str | Path | None = None,
    results: str | Path | None = None,
    *,
    split: str | None = None,
    model: ClassifierLike | None = None,
) -> Evaluation:
    """Compare predictions.csv with labels, and the tiles that were read with ground truth if there is any.

    Args:
        predictions: the table, or the results folder that holds it.
        labels: CSV slide,label[,patient][,split]; names with or without suffix and folder.
        groundtruth: folder of `<slide>.geojson` with lesions in level-0 pixels.
        results: results folder with tiles/<slide>.csv; that of the table where None.
        split: "train", "val", "test" or "all" rows of the labels; where None all but those of "train".
        model: the model, its folder or shipped name, where the results folder does not lead to it.

    Returns:
        Scores with their intervals, which slides could not be compared, and what the model has seen before.

    Raises:
        InputError: a file is missing or has no such column, a label is no class of the table, nothing can be compared.
        ModelError: the given model is none, or not the one that made the results.
    """
    path = Path(given_path(predictions, "predictions", "a results folder, or of its predictions.csv"))
    path = path / "predictions.csv" if path.is_dir() else path
    labels = given_path(labels, "labels", "a CSV")
    outlines = None if groundtruth is None else given_path(groundtruth, "groundtruth", "a folder of GeoJSON")
    folder = _folder_of(model)
    table = read_table(path).known_as(("slide", "status", "notes"))
    classes, shares = _shares(path, table)
    place = Path(results) if results else path.parent
    rows, unpredicted = _truth(labels, shares, classes, place)
    taken, said = _taken(rows, unpredicted, split, labels)
    if not taken:
        raise InputError(f"no slide has both a label in {labels} and a prediction in {path}{said and '; '}{said}")
    names = sorted(taken)
    config = find_config(place, folder)
    notes = {cells["slide"]: cells.get("notes", "") for _, cells in table.rows}
    patients = [taken[name].patient if taken[name].has_patient else name for name in names]
    return Evaluation(
        classes,
        score(
            torch.tensor([shares[name] for name in names], dtype=torch.float64),
            torch.tensor([class_index(taken[name].label, classes, labels) for name in names]),
            patients=patients,
        ),
        tuple(row.slide for row in unpredicted),
        tuple(sorted(set(shares) - set(rows))),
        None if outlines is None else locate(Path(outlines), place, names),
        _negative(classes, config),
        said,
        find_overlap({name: taken[name] for name in names}, notes, place, config),
        any(row.has_patient for row in taken.values()),
        next(filter(None, (warning_in(notes[name]) for name in names)), ""),
    )


def _folder_of(model: ClassifierLike | None) -> str | Path | None:
    """Return the folder or the shipped name of a model that was given as such, or loaded."""
    if model is None:
        return None
    if isinstance(model, Classifier) and model.folder is None:
        raise InputError(f"model {model.name} has no folder that says what it was trained with; save it first")
    return given_path(model.folder if isinstance(model, Classifier) else model, "model", "a model folder")


def locate(groundtruth: Path, results: Path, names: list[str]) -> Localisation:
    """Find out, for each slide with outlined lesions, whether the tile with the highest weight touches one.

    Where a model looked more than once, the last glimpse counts: earlier ones are larger views on the way.

    Raises:
        InputError: no such folder, a file in it is no GeoJSON, or there are lesions but no tables of tiles.
    """
    if not groundtruth.is_dir():
        raise InputError(f"{groundtruth} is no folder; -g takes a folder of <slide>.geojson")
    outlines = _outlines(groundtruth, names)
    lesions = {name: found for name, path in outlines.items() if (found := _lesions(path)) is not None}
    tables = {name: results / "tiles" / f"{name}.csv" for name in lesions}
    there = {name: _tiles(table) for name, table in tables.items() if table.is_file()}
    hits = {name: _touches(tiles, lesions[name]) for name, tiles in there.items() if tiles}
    if lesions and not there:
        raise InputError(f"{results / 'tiles'}: no table of tiles for any of {len(lesions)} slides with lesions")
    return Localisation(len(hits), sum(hits.values()), tuple(name for name, hit in hits.items() if not hit))


def _shares(path: Path, table: Table) -> tuple[tuple[str, ...], dict[str, list[float]]]:
    columns = [column for column in table.columns if column.startswith("prob_")]
    if "slide" not in table.columns or len(columns) < 2:
        raise InputError(
            f"{path}: needs a column slide and two columns prob_<class>; found: {', '.join(table.columns)}"
        )
    table.check_once(columns)
    shares: dict[str, list[float]] = {}
    for line, cells in table.rows:
        if cells.get("status", "done") in JUDGED:
            if cells["slide"] in shares:
                raise InputError(f"{path}, line {line}: slide {cells['slide']!r} stands there twice; keep one row")
            shares[cells["slide"]] = _row_shares(f"{path}, line {line}", [cells[column] for column in columns])
    return tuple(column.removeprefix("prob_") for column in columns), shares


def _row_shares(where: str, cells: Sequence[str]) -> list[float]:
    try:
        found = [float(cell.replace(",", ".")) for cell in cells]
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    if not all(0 <= share <= 1 for share in found) or abs(sum(found) - 1) > SUM_TOLERANCE:
        raise InputError(f"{where}: {', '.join(cells)} are no probabilities; they lie in 0 to 1 and their sum is 1")
    return found


def _truth(
    labels: str | Path, shares: Mapping[str, object], classes: tuple[str, ...], results: Path
) -> tuple[dict[str, LabelRow], tuple[LabelRow, ...]]:
    """Return the row of the labels by the predictions' slide names, and the rows that have no prediction."""
    index = SlideNames(labels, "write its relative path")
    written = read_labels(labels)
    files = _files_inside(shares, results) if any(_may_be_inside(row.slide) for row in written) else {}
    for name in shares:
        index.add(name, (name, *files.get(name, ())))
    truth: dict[str, LabelRow] = {}
    unpredicted = []
    for row in written:
        found, label = index.find(row.slide), class_index(row.label, classes, labels)
        if found is None:
            unpredicted.append(row)
            continue
        first = truth.setdefault(found, row)
        if class_index(first.label, classes, labels) != label:
            raise InputError(f"{labels}: two rows give slide {found} different labels; keep one of them")
        if first.part != row.part:
            raise InputError(f"{labels}: two rows put slide {found} into different parts; keep one of them")
    return truth, tuple(unpredicted)


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


def _taken(
    rows: Mapping[str, LabelRow], unpredicted: Sequence[LabelRow], split: str | None, labels: str | Path
) -> tuple[dict[str, LabelRow], str]:
    """Return the rows to judge by, and a sentence on those that are left out."""
    if split not in (None, "all", *PARTS):
        raise InputError(f"split is {split!r}; possible: all, {', '.join(PARTS)}")
    if not any(row.part for row in (*rows.values(), *unpredicted)):
        if split not in (None, "all"):
            raise InputError(f"{labels} has no column split, so there are no {split} slides in it")
        return dict(rows), ""
    wanted = {None: ("val", "test"), "all": PARTS}.get(split, (split,))
    taken = {name: row for name, row in rows.items() if row.part in wanted}
    counts = [f"{sum(row.part == part for row in rows.values())} {part}" for part in PARTS if part in wanted]
    left = f"{len(rows) - len(taken)} slides of other parts are left out"
    return taken, f"column split: {', '.join(counts)} slides judge, {left} (--split chooses)"


def _negative(classes: tuple[str, ...], config: ModelConfig | None) -> str | None:
    """Return the class without a finding: as the model's folder says, otherwise by its name."""
    known = config.get("negative") if config else None
    if known in classes:
        return str(known)
    found = [name for name in classes if says_nothing_found(name)]
    return found[0] if len(found) == 1 else None


def class_index(label: str, classes: tuple[str, ...], labels: str | Path) -> int:
    """Return the class that a label is, in small or capital letters where that leaves one."""
    known = [unicodedata.normalize("NFC", name) for name in classes]
    alike = [i for i, name in enumerate(known) if name.casefold() == label.casefold()]
    if label in known:
        return known.index(label)
    if len(alike) == 1:
        return alike[0]
    raise InputError(f"{labels}: label {label!r} is no class of the predictions ({', '.join(classes)})")


def _outlines(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the file of outlines of each slide that has one."""
    index = SlideNames(folder, "keep the folders of the slides")
    for file in sorted(folder.rglob("*.geojson")):
        index.add(str(file), (file.relative_to(folder).as_posix().removesuffix(".geojson"),))
    found: dict[str, str] = {}
    for name in names:
        path = index.find(name)
        if path in found:
            raise InputError(f"{path} could be about {found[path]} and about {name}; keep the folders of the slides")
        if path is not None:
            found[path] = name
    return {name: Path(path) for path, name in found.items()}


def _lesions(path: Path) -> BaseGeometry | None:
    import shapely

    try:
        features = list(_features(parse(path.read_text(encoding="utf-8-sig"))))
        union = shapely.union_all(
            [shapely.make_valid(shapely.geometry.shape(feature["geometry"])) for feature in features]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, shapely.lib.ShapelyError) as error:
        raise InputError(f"{path} cannot be read as GeoJSON: {error}") from error
    return None if union.is_empty else union


def _features(content: object) -> Iterator[Mapping[str, object]]:
    """Yield the features of a collection, of a bare list (older QuPath), or one feature alone."""
    if isinstance(content, Mapping) and content.get("type") == "Feature":
        content = [content]
    found = content["features"] if isinstance(content, Mapping) else content
    if not isinstance(found, list):
        raise TypeError("it has no list of features")
    yield from found


def _tiles(table: Path) -> list[Mapping[str, str]]:
    """Return the rows of a table of tiles; none where the method read none."""
    rows = read_table(table)
    missing = [column for column in (*BOX, "weight") if column not in rows.columns]
    if missing:
        raise InputError(f"{table}: column {missing[0]!r} is missing; found: {', '.join(rows.columns)}")
    return [cells for _, cells in rows.rows]


def _touches(tiles: Sequence[Mapping[str, str]], lesions: BaseGeometry) -> bool:
    import shapely

    read = [cells for cells in tiles if cells["weight"] and float(cells["weight"]) > 0]
    if not read:
        return False
    last = read[-1].get("glimpse")
    best = max((cells for cells in read if cells.get("glimpse") == last), key=lambda cells: float(cells["weight"]))
    x, y, w, h = (float(best[column]) for column in BOX)
    return bool(shapely.box(x, y, x + w, y + h).intersects(lesions))
