"""`patients.csv` of a results folder: a row for each patient, of the states of the slides."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from wsi_attention.export.patients import Meaning, SlideLine, of_classes, patient_columns, patient_row
from wsi_attention.export.table import share_of
from wsi_attention.inference.results.state import RunKey, State
from wsi_attention.plain_text import in_cell
from wsi_attention.targets.find import target_of

PATIENTS = "patients.csv"
TEXTS = ("patient", "label", "deciding_slide", "reason", "notes")
"""Columns whose text others chose; a spreadsheet must not take it for a formula."""


def patients_table(states: Mapping[str, State], meaning: Meaning, asked: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of patients.csv: a row for each patient of whom a slide has a state, sorted by patient.

    A slide of which nobody says whose it is stands for a patient of its own name, as in training.

    Args:
        states: slide -> state.
        meaning: of the slides' numbers.
        asked: slide -> patient of the slides that are to be done, also of those without a state.
    """
    line = io.StringIO()
    writer = csv.DictWriter(line, patient_columns(meaning), restval="", lineterminator="\n")
    writer.writeheader()
    yield line.getvalue()
    for patient, names in sorted(_slides_of(states, asked).items()):
        slides = [_line_of(name, states.get(name)) for name in sorted(names)]
        if any(slide.status for slide in slides):
            line.seek(0)
            line.truncate()
            cells = patient_row(patient, slides, meaning)
            writer.writerow(cells | {column: in_cell(cells.get(column, "")) for column in TEXTS})
            yield line.getvalue()


def meaning_of(run: RunKey) -> Meaning:
    """Return what the numbers of a run's slides are; for a target beyond one label, as the target itself says it.

    The mean is taken over the numbers that passes of one slide are averaged over too (`targets.target.Target.read`).

    Raises:
        InputError: the target is none of this version's.
    """
    said = run.settings.get("target")
    if said is None:
        return of_classes(run.classes)
    target = target_of(said, run.classes)
    classes = target.names if target.measured == tuple(map(share_of, target.names)) else ()

    def told(mean: NDArray[np.float64]) -> tuple[str, Mapping[str, float]]:
        shown = target.shown(mean)
        label = shown.label or shown.classes[int(np.argmax(shown.probabilities))]
        return label, {**dict(zip(target.measured, mean.tolist(), strict=True)), **dict(shown.values)}

    return Meaning(target.columns, target.measured, classes, told)


def _slides_of(states: Mapping[str, State], asked: Mapping[str, str]) -> Mapping[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name, state in states.items():
        found[state.patient or asked.get(name) or name].add(name)
    for name, patient in asked.items():
        if name not in states:
            found[patient].add(name)
    return found


def _line_of(name: str, state: State | None) -> SlideLine:
    return SlideLine(name) if state is None else SlideLine(name, state.status, state.reason, state.row)
