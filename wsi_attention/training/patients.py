"""A patient's slides as one bag: what must be true of the labels, and the examples that show all slides at once."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from wsi_attention.config import Recipe
from wsi_attention.errors import InputError
from wsi_attention.geometry import same_scale
from wsi_attention.protocols import TileSource
from wsi_attention.tiles.side_by_side import SideBySide
from wsi_attention.training.data import Example, Survey
from wsi_attention.training.labels import LabelRow, Split, several_labels

PATIENT = "patient"
"""The recipe's `bag` for one bag a patient."""


def check_bags(recipe: Recipe, split: Split, name: str | Path, features: str | Path | None) -> None:
    """Raise InputError unless the labels can be learnt patient by patient, where the recipe asks for it.

    Args:
        recipe: with `bag`.
        split: of the labels.
        name: what errors call the CSV.
        features: where features of the slides' tiles come from, None where tiles are read.

    Raises:
        InputError: a patient has two labels, or lies in both parts of the split; features were given.
    """
    if recipe.bag != PATIENT:
        return
    rows = (*split.train, *split.validation)
    if not any(row.has_patient for row in rows):
        raise InputError(f'{name}: bag = "patient" needs a column patient that says whose slides they are')
    if features is not None:
        raise InputError(
            'bag = "patient" reads slides, and --features were given; leave them out, or take bag = "slide"'
        )
    for patient, labels in several_labels(rows).items():
        raise InputError(
            f"{name}: patient {patient} has the labels {' and '.join(labels)}, and one bag has one; correct them, or"
            ' train with bag = "slide"'
        )
    both = {row.patient for row in split.train} & {row.patient for row in split.validation}
    if both:
        raise InputError(
            f"{name}: patient {min(both)} has slides that train and slides that validate, and one bag is on one side;"
            " correct the column split"
        )


def check_scales(rows: Iterable[LabelRow], surveyed: Survey, name: str | Path) -> None:
    """Raise InputError where slides of one patient, of those that can be used, differ in scale by more than 5 %.

    Raises:
        InputError: two do.
    """
    first: dict[str, tuple[str, float]] = {}
    for row in rows:
        scale = surveyed.scale(row.slide) if row.slide in surveyed.fingerprints else None
        if scale is None:
            continue
        other, its = first.setdefault(row.patient, (row.slide, scale))
        if not same_scale(scale, its):
            raise InputError(
                f"{name}: patient {row.patient} has slides of {its:g} µm/px ({other}) and {scale:g} µm/px"
                f' ({row.slide}), and one bag needs one scale; train with bag = "slide"'
            )


def patient_examples(examples: Sequence[Example], overview_mpp: float, stride: int) -> tuple[Example, ...]:
    """Return an example a patient, whose pixels are those of all slides side by side, in the order of the names.

    The chance of a patient with one slide is that of the slide.

    Args:
        examples: one a slide, all of those that can be used.
        overview_mpp: µm per pixel of the model's overview.
        stride: overview pixels along a cell of its maps.
    """
    own: defaultdict[str, list[Example]] = defaultdict(list)
    for example in sorted(examples, key=lambda one: one.name):
        own[example.patient or example.name].append(example)
    return tuple(_together(patient, slides, overview_mpp, stride) for patient, slides in sorted(own.items()))


def key_of(fingerprints: Sequence[str]) -> str:
    """Return what names a bag of slides by their content, in the order of the canvas; a single slide's is its own."""
    if len(fingerprints) == 1:
        return fingerprints[0]
    return hashlib.sha256(f"bag {' '.join(fingerprints)}".encode()).hexdigest()


def seen_of(slides: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
    """Return what readers see of a bag's slides besides pixels; of a single slide as it is."""
    if len(slides) == 1:
        return slides[0]
    return {f"{name} of slide {n}": text for n, seen in enumerate(slides, start=1) for name, text in seen.items()}


def _together(patient: str, slides: Sequence[Example], overview_mpp: float, stride: int) -> Example:
    @contextmanager
    def opened() -> Iterator[TileSource]:
        with ExitStack() as stack:
            yield SideBySide([stack.enter_context(slide.open()) for slide in slides], overview_mpp, stride)

    key, seen = key_of([slide.key for slide in slides]), seen_of([slide.seen for slide in slides])
    return Example(patient, slides[0].label, key, opened, patient, seen, slides[0].truth)
