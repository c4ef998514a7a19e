"""Operating points: thresholds that the user gives, or that validation slides choose for a wanted sensitivity.

A threshold that is chosen on the slides that judge it is too kind; so it is chosen on validation slides alone, and
judged by the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_attention.errors import InputError
from wsi_attention.evaluation.judged import Judged
from wsi_attention.statistics.thresholds import AtThreshold, at_threshold, threshold_for_sensitivity

MOST_PROBABLE = "the most probable class"
"""Origin of the threshold of two classes that nobody gave: 0.5."""
ByClass = Mapping[str, float] | float
"""A value a class, or one for the positive class of two."""


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and what it does.

    Attributes:
        name: of the class that is called at the threshold or above.
        origin: where the threshold comes from, in words.
        found: counts and shares.
        slides: that judge it.
        patients: whose they are.
        note: why the figures are too kind, where they are.
    """

    name: str
    origin: str
    found: AtThreshold
    slides: int
    patients: int
    note: str = ""


def read_wanted(texts: Sequence[str], option: str) -> ByClass | None:
    """Return what the command line says: `0.4`, or any number of `CLASS=0.4`; None of nothing.

    Raises:
        InputError: no number, a class twice, or a bare number beside others.
    """
    pairs = [text.rpartition("=") for text in texts]
    values = {}
    for (name, equals, value), text in zip(pairs, texts, strict=True):
        try:
            number = float(value)
        except ValueError:
            raise InputError(f"{option} {text}: {value!r} is no number; write 0.4 or CLASS=0.4") from None
        if (not equals and len(texts) > 1) or name in values:
            raise InputError(f"{option} {text}: of several, each needs a class of its own: CLASS={value}")
        values[name] = number
    if len(pairs) == 1 and not pairs[0][1]:
        return values[""]
    return values or None


def operating_points(
    judged: Judged,
    validation: Judged,
    thresholds: ByClass | None,
    sensitivity: ByClass | None,
    positive: str | None,
    labels: str | Path,
) -> tuple[OperatingPoint, ...]:
    """Return the operating points that the user wants, and of two classes the most probable class's.

    Args:
        judged: slides that judge.
        validation: slides that may choose a threshold.
        thresholds: given ones.
        sensitivity: wanted ones.
        positive: the class that a bare number is about; None where there are more than two.
        labels: the file, for messages.

    Raises:
        InputError: no such class, a value that is no threshold or sensitivity, or no slides to choose one on.
    """
    points = []
    if positive is not None and thresholds is None and sensitivity is None:
        points.append(_point(judged, positive, 0.5, MOST_PROBABLE))
    for name, value in _by_class(thresholds, judged.classes, positive, "threshold").items():
        if not 0 <= value <= 1:
            raise InputError(f"threshold of {name} is {value:g}; a probability lies in 0 to 1")
        points.append(_point(judged, name, value, "given"))
    wanted = _by_class(sensitivity, judged.classes, positive, "sensitivity")
    if wanted:
        _check_validation(judged, validation, labels)
    return (*points, *(_chosen(judged, validation, name, value, labels) for name, value in wanted.items()))


def _by_class(wanted: ByClass | None, classes: Sequence[str], positive: str | None, what: str) -> dict[str, float]:
    if wanted is None:
        return {}
    if not isinstance(wanted, Mapping):
        if positive is None:
            raise InputError(
                f"{what} {wanted:g}: of which class? possible: {', '.join(classes)}; write CLASS={wanted:g}"
            )
        return {positive: float(wanted)}
    unknown = [name for name in wanted if name not in classes]
    if unknown:
        raise InputError(f"{what} of {unknown[0]!r}: no class of the predictions; possible: {', '.join(classes)}")
    return {name: float(value) for name, value in wanted.items()}


def _check_validation(judged: Judged, validation: Judged, labels: str | Path) -> None:
    """Refuse to choose a threshold where nothing but the slides that judge could choose it.

    Raises:
        InputError: there are no validation slides.
    """
    if validation.names:
        return
    tests = sum(part == "test" for part in judged.parts)
    found = f"its column split has {tests} test rows and no val" if tests else "it has no rows with split = val"
    raise InputError(
        f"{labels}: a threshold is chosen on validation slides, never on those that judge it, and {found}; mark "
        "validation slides there, or give a threshold that was chosen elsewhere (--threshold)"
    )


def _chosen(judged: Judged, validation: Judged, name: str, wanted: float, labels: str | Path) -> OperatingPoint:
    index = judged.classes.index(name)
    try:
        threshold = threshold_for_sensitivity(validation.probabilities[:, index], validation.labels == index, wanted)
    except InputError as error:
        raise InputError(f"{labels}: sensitivity of {name} on {_counted(validation)}: {error}") from None
    origin = (
        f"sensitivity {wanted:g} on {_counted(validation)}, {int((validation.labels == index).sum())} of them {name}"
    )
    known = set(validation.owners)
    others = judged.taken([owner not in known for owner in judged.owners])
    if others.names:
        return _point(others, name, threshold, origin)
    return _point(judged, name, threshold, origin, "chosen on those that judge it: too kind; judge it by others")


def _counted(validation: Judged) -> str:
    slides, patients = len(validation.names), validation.n_patients
    return f"{slides} validation rows" + (f" of {patients} patients" if patients < slides else "")


def _point(judged: Judged, name: str, threshold: float, origin: str, note: str = "") -> OperatingPoint:
    index = judged.classes.index(name)
    found = at_threshold(judged.probabilities[:, index], judged.labels == index, threshold, judged.patients)
    return OperatingPoint(name, origin, found, len(judged.names), judged.n_patients, note)
