"""How good predictions are: against known labels, outlined lesions, and the predictions of another model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from wsi_attention.checkpoint import Classifier, ClassifierLike
from wsi_attention.csv_table import Table, read_table
from wsi_attention.errors import InputError
from wsi_attention.evaluation.against import Comparison, compare
from wsi_attention.evaluation.figures import ClassFigures, LabelCalibration, class_figures, label_calibration
from wsi_attention.evaluation.groups import Group, group_values, groups
from wsi_attention.evaluation.judged import Judged
from wsi_attention.evaluation.localisation import Localisation, locate
from wsi_attention.evaluation.operating import ByClass, OperatingPoint, operating_points
from wsi_attention.evaluation.overlap import NOBODY_KNOWS, Overlap, find_config, find_overlap
from wsi_attention.evaluation.truth import class_index, patients_of, shares_in, taken_of, truth_of, unit_of
from wsi_attention.files import given_path
from wsi_attention.json_values import as_plain
from wsi_attention.model_card import ModelConfig
from wsi_attention.statistics.intervals import METHODS
from wsi_attention.statistics.metrics import Scores, score
from wsi_attention.structures import warning_in
from wsi_attention.training.labels import LabelRow, bare_name, read_labels
from wsi_attention.training.negative import says_nothing_found

PREDICTIONS = "predictions.csv"


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
        figures: of each class against the rest: areas, curves, calibration, net benefit.
        calibration: of the label's own probability; None where nothing was judged.
        points: operating points, as they were asked for.
        groups: the scores within each value of the columns that were asked for.
        comparison: against other predictions; None where none were given.
        source: the table that was judged.
        unit: what is counted: "slides", or "patients" of a patients.csv.
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
    figures: tuple[ClassFigures, ...] = ()
    calibration: LabelCalibration | None = None
    points: tuple[OperatingPoint, ...] = ()
    groups: tuple[Group, ...] = ()
    comparison: Comparison | None = None
    source: Path = Path(PREDICTIONS)
    unit: str = "slides"

    @property
    def of_patients(self) -> bool:
        """True where slides are counted, and it is known whose they are."""
        return self.patients_given and self.unit == "slides"

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the AUROC."""
        return self.scores.auroc_interval

    @property
    def positive(self) -> str | None:
        """The class whose AUROC is told: of two, the one that is a finding; None where there are more."""
        return _positive(self.classes, self.negative)

    def as_dict(self) -> dict[str, object]:
        """Return plain JSON values; NaN is None."""
        found = self.localisation
        return {
            "warning": self.warning or None,
            "classes": list(self.classes),
            "unit": self.unit,
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
            "figures": as_plain(self.figures),
            "calibration": as_plain(self.calibration),
            "points": as_plain(self.points),
            "groups": as_plain(self.groups),
            "comparison": as_plain(self.comparison),
        }

    def write(self, folder: str | Path) -> Path:
        """Write evaluation.html, its plots as SVG and evaluation.csv into a folder, and return the page's path.

        Raises:
            ResultsError: disk full, or writing is not permitted.
        """
        from wsi_attention.evaluation.folder import write_evaluation

        return write_evaluation(self, Path(folder))


def evaluate(
    predictions: str | Path,
    labels: str | Path,
    groundtruth: str | Path | None = None,
    results: str | Path | None = None,
    *,
    split: str | None = None,
    model: ClassifierLike | None = None,
    thresholds: ByClass | None = None,
    sensitivity: ByClass | None = None,
    by: str | Sequence[str] = (),
    against: str | Path | None = None,
) -> Evaluation:
    """Compare predictions.csv with labels, and the tiles that were read with ground truth if there is any.

    Args:
        predictions: the table, or the results folder that holds it; a patients.csv is judged by patient.
        labels: CSV slide,label[,patient][,split]; names with or without suffix and folder.
        groundtruth: folder of `<slide>.geojson` with lesions in level-0 pixels.
        results: results folder with tiles/<slide>.csv; that of the table where None.
        split: "train", "val", "test" or "all" rows of the labels; where None all but those of "train".
        model: the model, its folder or shipped name, where the results folder does not lead to it.
        thresholds: probability at which a class is called, by class, or one for the finding of two classes.
        sensitivity: wanted, likewise; the threshold is chosen on rows with split "val", and judged by the others.
        by: columns of the labels whose values make groups, such as a site.
        against: predictions of another model for the same slides, a table or a results folder.

    Returns:
        Scores and curves with their intervals, which slides could not be compared, and what the model has seen before.

    Raises:
        InputError: a file is missing or has no such column, a label is no class of the table, nothing can be compared,
            there are no validation slides to choose a threshold on.
        ModelError: the given model is none, or not the one that made the results.
    """
    labels = given_path(labels, "labels", "a CSV")
    outlines = None if groundtruth is None else given_path(groundtruth, "groundtruth", "a folder of GeoJSON")
    folder, cohort = folder_of(model), _read(predictions, labels, results)
    if outlines is not None and cohort.unit == "patient":
        raise InputError(f"{cohort.path} is of patients, and lesions are outlined on slides; give the predictions.csv")
    taken, said = taken_of(cohort.rows, cohort.unpredicted, split, labels, cohort.unit)
    if not taken:
        raise InputError(
            f"no {cohort.unit} has both a label in {labels} and a prediction in {cohort.path}{said and '; '}{said}"
        )
    config, notes, judged = find_config(cohort.place, folder), cohort.notes, _judged(cohort, taken, labels)
    negative = _negative(cohort.classes, config)
    positive = _positive(cohort.classes, negative)
    validation = _judged(cohort, {name: row for name, row in cohort.rows.items() if row.part == "val"}, labels)
    return Evaluation(
        cohort.classes,
        score(torch.from_numpy(judged.probabilities), torch.from_numpy(judged.labels), patients=judged.owners),
        tuple(cohort.called(row) for row in cohort.unpredicted),
        tuple(sorted(set(cohort.shares) - set(cohort.rows))),
        None if outlines is None else locate(Path(outlines), cohort.place, list(judged.names)),
        negative,
        said,
        find_overlap(_slides(taken, cohort, labels), notes, cohort.place, config),
        any(row.has_patient for row in taken.values()),
        next(filter(None, (warning_in(notes[name]) for name in judged.names)), ""),
        class_figures(judged),
        label_calibration(judged),
        operating_points(judged, validation, thresholds, sensitivity, positive, labels),
        _groups(judged, taken, cohort, labels, [by] if isinstance(by, str) else list(by)),
        None if against is None else _compared(judged, cohort, against, labels, positive),
        cohort.path,
        f"{cohort.unit}s",
    )


@dataclass(frozen=True)
class _Cohort:
    """A table beside the labels: probabilities by slide, or patient, and the row of the labels of each that has one."""

    path: Path
    place: Path
    table: Table
    unit: str
    classes: tuple[str, ...]
    shares: Mapping[str, Sequence[float]]
    rows: Mapping[str, LabelRow]
    unpredicted: tuple[LabelRow, ...]

    @property
    def notes(self) -> dict[str, str]:
        """What the table says of each slide or patient."""
        return {cells[self.unit]: cells.get("notes", "") for _, cells in self.table.rows}

    def called(self, row: LabelRow) -> str:
        """Return what a row of the labels is about, as the labels call it."""
        return row.patient if self.unit == "patient" else row.slide


def _read(predictions: str | Path, labels: str | Path, results: str | Path | None) -> _Cohort:
    path = Path(given_path(predictions, "predictions", f"a results folder, or of its {PREDICTIONS}"))
    path = path / PREDICTIONS if path.is_dir() else path
    table = read_table(path).known_as(("slide", "patient", "status", "notes"))
    classes, shares = shares_in(path, table)
    place, unit = Path(results) if results else path.parent, unit_of(table)

    def meant(row: LabelRow) -> int:
        return class_index(row.label, classes, labels)

    of_patients = unit == "patient"
    found = patients_of(labels, shares, meant) if of_patients else truth_of(labels, shares, meant, place)
    return _Cohort(path, place, table, unit, classes, shares, *found)


def _judged(cohort: _Cohort, taken: Mapping[str, LabelRow], labels: str | Path) -> Judged:
    names, alone = sorted(taken), cohort.unit == "patient"
    return Judged(
        cohort.classes,
        tuple(names),
        np.array([cohort.shares[name] for name in names], np.float64).reshape(-1, len(cohort.classes)),
        np.array([class_index(taken[name].label, cohort.classes, labels) for name in names], np.int64),
        tuple(taken[name].patient if taken[name].has_patient and not alone else name for name in names),
        tuple(taken[name].part for name in names),
    )


def _slides(taken: Mapping[str, LabelRow], cohort: _Cohort, labels: str | Path) -> dict[str, LabelRow]:
    """Return the rows of all slides behind those that judge: of patients, every slide of theirs."""
    if cohort.unit == "slide":
        return {name: taken[name] for name in sorted(taken)}
    judging = {row.patient for row in taken.values()}
    return {bare_name(row.slide): row for row in read_labels(labels) if row.patient in judging}


def _groups(
    judged: Judged, taken: Mapping[str, LabelRow], cohort: _Cohort, labels: str | Path, columns: Sequence[str]
) -> tuple[Group, ...]:
    """Return the groups of each column; slides of a patient that differ in it make a group of their own."""
    if not columns:
        return ()
    values, slides = group_values(labels, columns), _slides(taken, cohort, labels)
    found: list[Group] = []
    for column in columns:
        own: dict[str, set[str]] = {name: set() for name in judged.names}
        names = {cohort.called(row): name for name, row in taken.items()}
        for row in slides.values():
            own[names[cohort.called(row)]].add(values[column][row.slide])
        found += groups(judged, column, {name: " / ".join(sorted(cells)) for name, cells in own.items()})
    return tuple(found)


def _compared(
    judged: Judged, cohort: _Cohort, against: str | Path, labels: str | Path, positive: str | None
) -> Comparison:
    """Return the comparison over what both tables have a prediction of.

    Raises:
        InputError: the others know other classes, are of patients where these are of slides, or none of them judges.
    """
    others = _read(against, labels, None)
    if others.unit != cohort.unit:
        raise InputError(f"{others.path} is of {others.unit}s, {cohort.path} of {cohort.unit}s; compare like with like")
    if set(others.classes) != set(judged.classes):
        raise InputError(
            f"{others.path} has the classes {', '.join(others.classes)}, the predictions {', '.join(judged.classes)}; "
            "two models are compared by the same classes"
        )
    theirs = {others.called(row): name for name, row in others.rows.items()}
    called = [cohort.called(cohort.rows[name]) for name in judged.names]
    both = np.array([one in theirs for one in called])
    if not both.any():
        raise InputError(f"{others.path} has none of the {len(judged.names)} {cohort.unit}s that judge")
    ours, order = judged.taken(both), [others.classes.index(name) for name in judged.classes]
    shares = np.array([others.shares[theirs[one]] for one in called if one in theirs], np.float64)[:, order]
    other = Judged(ours.classes, ours.names, shares, ours.labels, ours.owners, ours.parts)
    left = tuple(name for name, there in zip(judged.names, both, strict=True) if not there)
    usual = others.path.name in (PREDICTIONS, "patients.csv")
    name = others.path.parent.name if usual else others.path.name
    return compare(ours, other, name or str(others.path), left, positive)


def _positive(classes: tuple[str, ...], negative: str | None) -> str | None:
    if len(classes) != 2:
        return None
    return classes[0] if negative == classes[1] else classes[1]


def folder_of(model: ClassifierLike | None) -> str | Path | None:
    """Return the folder or the shipped name of a model that was given as such, or loaded."""
    if model is None:
        return None
    if isinstance(model, Classifier) and model.folder is None:
        raise InputError(f"model {model.name} has no folder that says what it was trained with; save it first")
    return given_path(model.folder if isinstance(model, Classifier) else model, "model", "a model folder")


def _negative(classes: tuple[str, ...], config: ModelConfig | None) -> str | None:
    """Return the class without a finding: as the model's folder says, otherwise by its name."""
    known = config.get("negative") if config else None
    if known in classes:
        return str(known)
    found = [name for name in classes if says_nothing_found(name)]
    return found[0] if len(found) == 1 else None
