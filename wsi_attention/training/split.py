"""Which slides train and which validate: by patient, stratified by label, the same for the same seed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_attention.errors import InputError
from wsi_attention.training.label_values import check_classes
from wsi_attention.training.labels import LabelRow


@dataclass(frozen=True)
class Split:
    """Rows that train and rows that validate, each sorted by slide name.

    Attributes:
        classes: class names in the order of the model's outputs; of two, the second is the positive one.
        train: rows the weights learn from.
        validation: rows that decide when to stop.
        notes: what is less than ideal about it, one sentence each.
    """

    classes: tuple[str, ...]
    train: tuple[LabelRow, ...]
    validation: tuple[LabelRow, ...]
    notes: tuple[str, ...] = ()


def split_rows(rows: Sequence[LabelRow], share: float, seed: int, name: str | Path) -> Split:
    """Follows the column `split` where there is one, else draws patients; `name` is what errors call the CSV.

    Raises:
        InputError: labels that can be no classes, fewer than two of them, a class with a single slide, a given
            split that lacks a part or class.
    """
    rows = sorted((row for row in rows if row.part != "test"), key=lambda row: row.slide)
    check_classes([row.label for row in rows], name)
    classes = class_names(rows)
    _enough(rows, classes, name)
    if any(row.part for row in rows):
        parts = {row.slide: row.part for row in rows}
        held = {slide for slide, part in parts.items() if part == "val"}
    else:
        patients = _draw(rows, share, seed)
        held = {row.slide for row in rows if row.patient in patients}
    train = tuple(row for row in rows if row.slide not in held)
    validation = tuple(row for row in rows if row.slide in held)
    _both_parts(train, validation, classes, name)
    return Split(classes, train, validation, _notes(train, validation, classes))


def class_names(rows: Sequence[LabelRow]) -> tuple[str, ...]:
    """The labels that occur, sorted; numbers by value."""
    labels = {row.label for row in rows}
    numeric = all(label.lstrip("+-").isdigit() for label in labels)
    return tuple(sorted(labels, key=lambda label: (int(label) if numeric else 0, label)))


def class_weights(labels: Sequence[int], classes: int) -> tuple[float, ...]:
    """n / (classes · n_c): every class counts the same, and the mean over the slides is 1; 0 for an absent class."""
    counts = np.bincount(np.asarray(labels, np.int64), minlength=classes)
    present = int((counts > 0).sum())
    return tuple(len(labels) / (present * int(count)) if count else 0.0 for count in counts)


def _enough(rows: Sequence[LabelRow], classes: tuple[str, ...], name: str | Path) -> None:
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise InputError(f"{name}: training needs two classes or more; found {found}")
    counts = Counter(row.label for row in rows)
    single = [label for label in classes if counts[label] == 1]
    if single:
        raise InputError(
            f"{name}: class {single[0]!r} has one slide; training and validation need one each, so at least two"
        )


def _draw(rows: Sequence[LabelRow], share: float, seed: int) -> set[str]:
    """Patients for validation: rarest class first, each up to its share, never a class's last training patient.

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


def _both_parts(
    train: Sequence[LabelRow], validation: Sequence[LabelRow], classes: tuple[str, ...], name: str | Path
) -> None:
    if not validation or not train:
        part = "validation" if not validation else "training"
        raise InputError(f"{name}: no slides are left for {part}; more patients, or a column split (train/val), help")
    missing = set(classes) - {row.label for row in train}
    if missing:
        raise InputError(f"{name}: no training slide has the label {min(missing)!r}; change the column split")


def _notes(train: Sequence[LabelRow], validation: Sequence[LabelRow], classes: tuple[str, ...]) -> tuple[str, ...]:
    notes = []
    absent = [label for label in classes if label not in {row.label for row in validation}]
    if absent:
        judged = "the AUROC leaves it out" if len(classes) - len(absent) > 1 else "there is no AUROC, the loss decides"
        notes.append(f"no validation slide has the label {', '.join(absent)}: {judged}")
    shared = {row.patient for row in train} & {row.patient for row in validation}
    if shared:
        notes.append(f"{len(shared)} patients have slides in both parts of the given split: the AUROC is too kind")
    return tuple(notes)
