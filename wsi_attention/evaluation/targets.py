"""How good predictions of a target beyond one label are: predictions.csv against the columns of the labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from wsi_attention.checkpoint import ClassifierLike
from wsi_attention.csv_table import Table, read_table
from wsi_attention.errors import InputError
from wsi_attention.evaluation.evaluation import folder_of
from wsi_attention.evaluation.overlap import Overlap, find_config, find_overlap
from wsi_attention.evaluation.truth import JUDGED, taken_of, truth_of, unit_of
from wsi_attention.files import given_path
from wsi_attention.inference.results.state import read_states
from wsi_attention.statistics.figures import Judgement
from wsi_attention.structures import warning_in
from wsi_attention.targets.find import target_of
from wsi_attention.targets.target import Target


@dataclass(frozen=True)
class TargetEvaluation:
    """A results folder against the truth.

    Attributes:
        target: what the model was asked for.
        judgement: over the slides that have a truth and a prediction.
        unpredicted: slides of the labels without a prediction, by name.
        unlabelled: predicted slides that the labels do not have, by name.
        split: which rows of the labels were taken, where they have a column `split`.
        overlap: which of the slides the model has learnt from.
        patients_given: whether the labels say whose slides they are.
        warning: what the model's answers are worth, where it says that it is no model in earnest.
    """

    target: Target
    judgement: Judgement
    unpredicted: tuple[str, ...]
    unlabelled: tuple[str, ...]
    split: str
    overlap: Overlap
    patients_given: bool
    warning: str = ""

    def as_dict(self) -> dict[str, object]:
        """Return plain JSON values; NaN is None."""
        return {
            "warning": self.warning or None,
            "target": self.target.as_dict(),
            "patients_given": self.patients_given,
            **self.judgement.as_dict(),
            "split": self.split,
            "seen_in_training": self.overlap.as_dict(),
            "unpredicted": list(self.unpredicted),
            "unlabelled": list(self.unlabelled),
        }


def target_in(predictions: str | Path, results: str | Path | None, model: ClassifierLike | None) -> Target | None:
    """Return the target of a results folder, None for one label: as its model says, or else its states.

    Args:
        predictions: the table, or the results folder that holds it.
        results: the results folder where it is another.
        model: the model, its folder or shipped name, where the results folder does not lead to it.

    Raises:
        ModelError: the given model is none, or another one than the results are of.
        InputError: the target is none of this version's.
    """
    path = Path(given_path(predictions, "predictions", "a results folder, or of its predictions.csv"))
    place = Path(results) if results else path if path.is_dir() else path.parent
    config = find_config(place, folder_of(model))
    if config is not None:
        return _beyond(config.get("target"), config["classes"])
    state = next(iter(read_states(place)), None)
    return _beyond(state.run.settings.get("target"), state.run.classes) if state else None


def _beyond(said: object, names: Sequence[str]) -> Target | None:
    return None if said is None else target_of(said, names)


def check_asked(target: Target, asked: Mapping[str, object]) -> None:
    """Raise InputError where something was asked for that is told of one label a slide alone.

    Args:
        target: what the model was asked for.
        asked: option -> its value.
    """
    given = [name for name, value in asked.items() if value]
    if given:
        it = "it" if len(given) == 1 else "them"
        raise InputError(
            f"{', '.join(given)}: only for one label a slide, not for target = {target.kind!r}, which has figures and"
            f" no page; leave {it} out"
        )


def evaluate_target(
    predictions: str | Path,
    labels: str | Path,
    target: Target,
    results: str | Path | None = None,
    *,
    split: str | None = None,
    model: ClassifierLike | None = None,
) -> TargetEvaluation:
    """Compare predictions.csv with what the labels say of a target beyond one label.

    Args:
        predictions: the table, or the results folder that holds it.
        labels: CSV with slide, the columns of the target[, patient][, split].
        target: as `target_in` returns it.
        results: the results folder; that of the table where None.
        split: "train", "val", "test" or "all" rows of the labels; where None all but those of "train".
        model: the model, its folder or shipped name, where the results folder does not lead to it.

    Raises:
        InputError: a file or column is missing, a cell is no number, a truth cannot be used, nothing can be compared.
    """
    path = Path(given_path(predictions, "predictions", "a results folder, or of its predictions.csv"))
    path = path / "predictions.csv" if path.is_dir() else path
    place = Path(results) if results else path.parent
    table = read_table(path).known_as(("slide", "patient", "status", "notes"))
    if unit_of(table) == "patient":
        raise InputError(f"{path} is of patients, and a {target.kind} is judged by slide; give the predictions.csv")
    numbers = _numbers(path, table, target)
    rows, unpredicted = truth_of(labels, numbers, lambda row: target.known(row.label), place, target.wanted)
    taken, said = taken_of(rows, unpredicted, split, labels)
    if not taken:
        raise InputError(f"no slide has both a truth in {labels} and a prediction in {path}{said and '; '}{said}")
    names = sorted(taken)
    notes = {cells["slide"]: cells.get("notes", "") for _, cells in table.rows}
    patients = [taken[name].patient if taken[name].has_patient else name for name in names]
    found = torch.tensor([numbers[name] for name in names], dtype=torch.float64)
    return TargetEvaluation(
        target,
        target.judged(found, [target.known(taken[name].label) for name in names], patients),
        tuple(row.slide for row in unpredicted),
        tuple(sorted(set(numbers) - set(rows))),
        said,
        find_overlap({name: taken[name] for name in names}, notes, place, find_config(place, folder_of(model))),
        any(row.has_patient for row in taken.values()),
        next(filter(None, (warning_in(notes[name]) for name in names)), ""),
    )


def _numbers(path: Path, table: Table, target: Target) -> dict[str, list[float]]:
    """Return the numbers of each slide that has a prediction."""
    missing = [column for column in ("slide", *target.measured) if column not in table.columns]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing; found: {', '.join(table.columns)}")
    table.check_once(target.measured)
    found: dict[str, list[float]] = {}
    for line, cells in table.rows:
        if cells.get("status", "done") in JUDGED:
            if cells["slide"] in found:
                raise InputError(f"{path}, line {line}: slide {cells['slide']!r} stands there twice; keep one row")
            found[cells["slide"]] = [_number(f"{path}, line {line}", name, cells[name]) for name in target.measured]
    return found


def _number(where: str, column: str, cell: str) -> float:
    try:
        number = float(cell.replace(",", "."))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where}: {column} is {cell!r}, which is no number; classify writes one")
    return number
