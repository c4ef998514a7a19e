"""Which patients a fold holds out: stratified by label, a patient or a site never in two folds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wsi_attention.errors import InputError
from wsi_attention.training.labels import LabelRow, class_names
from wsi_attention.training.state import seed_of

LEAST_PATIENTS = 2
"""Patients that a fold holds out; with one, its figures would be that patient's."""


@dataclass(frozen=True)
class Division:
    """How patients are to be divided.

    Attributes:
        folds: parts, each held out once; 2 or more.
        repeats: how often all is divided anew.
        seed: decides how.
        site: name of the column that says what stays together; None where patients do.
    """

    folds: int = 5
    repeats: int = 1
    seed: int = 0
    site: str | None = None

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise InputError(f"folds is {self.folds}; 2 or more are needed, so that some slides train and some judge")
        if self.repeats < 1:
            raise InputError(f"repeats is {self.repeats}; 1 or more are possible")


def divided(
    rows: Sequence[LabelRow], sites: Mapping[str, str], wanted: Division, name: object
) -> tuple[dict[str, int], ...]:
    """Return for each repeat which fold (from 1) holds out each slide.

    What stays together is put where it makes the numbers of patients of each class most equal: the largest of the
    rarest class first, equals in random order.

    Args:
        rows: of the labels.
        sites: slide -> site; empty where patients alone stay together.
        wanted: how.
        name: what errors call the labels.

    Raises:
        InputError: a patient is of two sites, a class has fewer patients (or sites) than there are folds, or a fold
            would hold out one patient, or one class.
    """
    together = _groups(rows, sites, name)
    _enough(together, rows, wanted, name)
    return tuple(_divided(together, rows, wanted, repeat, name) for repeat in range(1, wanted.repeats + 1))


def _groups(rows: Sequence[LabelRow], sites: Mapping[str, str], name: object) -> dict[str, list[LabelRow]]:
    """Return what stays together: the rows of each site, or of each patient where there are no sites."""
    found: dict[str, list[LabelRow]] = defaultdict(list)
    places: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: row.slide):
        site = sites.get(row.slide, row.patient)
        first = places.setdefault(row.patient, site)
        if first != site:
            raise InputError(
                f"{name}: patient {row.patient!r} has slides of two sites, {first!r} and {site!r}; sites can only be"
                " kept apart where each patient is of one"
            )
        found[site].append(row)
    return dict(found)


def _patients(rows: Sequence[LabelRow]) -> Counter[str]:
    """Return how many patients have each label; one with slides of two labels counts for both."""
    return Counter(label for _, label in {(row.patient, row.label) for row in rows})


def _enough(groups: Mapping[str, Sequence[LabelRow]], rows: Sequence[LabelRow], wanted: Division, name: object) -> None:
    kind = f"values of {wanted.site}" if wanted.site else "patients"
    having = Counter(label for own in groups.values() for label in _patients(own))
    for label in class_names(rows):
        if having[label] < wanted.folds:
            way_out = f"--folds {having[label]} is possible" if having[label] > 1 else "two or more are needed"
            raise InputError(
                f"{name}: class {label!r} has {having[label]} {kind}, fewer than {wanted.folds} folds; {way_out}"
            )


def _divided(
    groups: Mapping[str, Sequence[LabelRow]], rows: Sequence[LabelRow], wanted: Division, repeat: int, name: object
) -> dict[str, int]:
    chance = np.random.default_rng(seed_of(wanted.seed, "folds", repeat))
    total = _patients(rows)
    counts = {group: _patients(own) for group, own in groups.items()}
    order = [sorted(groups)[i] for i in chance.permutation(len(groups))]
    order.sort(key=lambda group: (min(total[label] for label in counts[group]), -counts[group].total()))
    held: list[Counter[str]] = [Counter() for _ in range(wanted.folds)]
    place: dict[str, int] = {}
    for group in order:
        fold = min(range(wanted.folds), key=lambda fold: _cost(held[fold], counts[group], total))
        held[fold] += counts[group]
        place |= {row.slide: fold + 1 for row in groups[group]}
    _sound(rows, place, wanted, repeat, name)
    return place


def _cost(fold: Counter[str], more: Counter[str], total: Counter[str]) -> tuple[float, int]:
    """Return how much more unequal a fold becomes: Σ over classes of the growth of (share of the class)²."""
    growth = sum(((fold[label] + more[label]) ** 2 - fold[label] ** 2) / total[label] ** 2 for label in more)
    return growth, fold.total()


def _sound(rows: Sequence[LabelRow], place: Mapping[str, int], wanted: Division, repeat: int, name: object) -> None:
    way_out = f"fewer --folds than {wanted.folds}{', or no --site,' if wanted.site else ''} help"
    for fold in range(1, wanted.folds + 1):
        own = [row for row in rows if place[row.slide] == fold]
        patients, labels = {row.patient for row in own}, {row.label for row in own}
        called = f"{name}: fold {repeat}-{fold} would hold out"
        if len(patients) < LEAST_PATIENTS:
            raise InputError(f"{called} {len(patients)} patient{'' if len(patients) == 1 else 's'} only; {way_out}")
        if len(labels) < 2:
            raise InputError(f"{called} slides of class {min(labels)!r} alone; {way_out}")
