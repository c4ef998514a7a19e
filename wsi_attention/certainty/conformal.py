"""Sets of classes that hold the right one as often as was promised: split conformal prediction, by patient.

Vovk, Gammerman and Shafer, "Algorithmic learning in a random world", 2005; Sadinle, Lei and Wasserman, "Least ambiguous
set-valued classifiers with bounded error levels", 2019 (the score, and thresholds by class). docs/uncertainty.md has
the proof.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsi_attention.certainty.logits import checked, log_softmax, too_few
from wsi_attention.certainty.stored import entry, numbers, whole
from wsi_attention.errors import InputError


@dataclass(frozen=True)
class Conformal:
    """Thresholds on the surprise of a class, −log of its uncalibrated probability.

    Attributes:
        alpha: how often, at most, a set lacks the right class; above 0, below 1.
        thresholds: the most surprise with which a class is in the set; one for all classes, or one a class.
        patients: how many each threshold rests on.
    """

    alpha: float
    thresholds: tuple[float, ...]
    patients: tuple[int, ...]

    @property
    def by_class(self) -> bool:
        """Whether the promise holds for the slides of each class."""
        return len(self.thresholds) > 1

    def sets(self, logits: ArrayLike) -> NDArray[np.bool_]:
        """Return (..., classes), which classes are in the set of logits (..., classes)."""
        return np.asarray(-log_softmax(logits) <= np.array(self.thresholds), np.bool_)

    def as_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {"alpha": self.alpha, "thresholds": list(self.thresholds), "patients": list(self.patients)}

    @classmethod
    def from_dict(cls, found: object, classes: int) -> Self:
        """Return what `as_dict` gave.

        Args:
            found: parsed JSON.
            classes: of the model.

        Raises:
            ValueError: it is damaged, or for another number of classes; the text says what is wrong.
        """
        found = entry(found)
        (alpha,) = numbers([found.get("alpha")], "alpha")
        thresholds = tuple(numbers(found.get("thresholds"), "thresholds"))
        counts = numbers(found.get("patients"), "patients")
        if not 0 < alpha < 1:
            raise ValueError("'alpha' must lie between 0 and 1")
        if len(thresholds) not in (1, classes) or len(counts) != len(thresholds):
            raise ValueError(f"'thresholds' and 'patients' must have one number, or {classes}, one a class")
        return cls(alpha, thresholds, tuple(whole({"patients": int(one)}, "patients") for one in counts))

    @property
    def sentence(self) -> str:
        """What people should know of it, one sentence."""
        return self.told()

    def told(self, folds: bool = False) -> str:
        """Return what people should know of it, one sentence.

        Args:
            folds: whether it was fitted on models of folds, and is used for their mean: then nothing is promised.
        """
        share = f"{'about' if folds else 'at least'} {1 - self.alpha:.4g}"
        of = "the slides of each class" if self.by_class else "all slides"
        least = min(self.patients)
        return (
            f"Sets of classes hold the right one for {share} of {of} of new patients like the"
            f" {sum(self.patients)} patients that they were fitted on"
            + (f" (of the rarest class {least})" if self.by_class else "")
            + (", with the models of folds whose mean this model is" if folds else "")
            + "; the label is undecided where the set does not hold one class alone."
        )


def fit_conformal(
    logits: ArrayLike,
    labels: ArrayLike,
    patients: Sequence[str],
    alpha: float = 0.1,
    by_class: bool = False,
    names: Sequence[str] = (),
) -> tuple[Conformal | None, str]:
    """Fit thresholds on predictions with known labels.

    Patients are exchangeable, slides of one patient are not independent: one slide of each patient counts, chosen
    without regard to what it shows (`one_a_patient`). What is then promised is about a slide of a new patient.

    Args:
        logits: (n, classes) of slides that trained nothing.
        labels: (n,) class indices.
        patients: (n,) whose slides they are.
        alpha: how often, at most, a set may lack the right class.
        by_class: one threshold a class, so that the promise holds for the slides of each class.
        names: of the classes, for the reason; their numbers where empty.

    Returns:
        The thresholds and ""; or None and why there are none.

    Raises:
        InputError: alpha is none, or arrays do not fit each other.
    """
    if not 0 < alpha < 1:
        raise InputError(f"conformal is the share of sets that may lack the right class, between 0 and 1; got {alpha}")
    values, truth = checked(logits, labels, patients)
    if reason := too_few(patients):
        return None, reason
    taken = one_a_patient(patients)
    surprise, truth = -log_softmax(values[taken]), truth[taken]
    own = surprise[np.arange(len(truth)), truth]
    groups = [own[truth == one] for one in range(values.shape[1])] if by_class else [own]
    for one, group in enumerate(groups):
        if math.floor((len(group) + 1) * alpha + 1e-9) < 1:
            of = f" of class {(names or range(values.shape[1]))[one]}" if by_class else ""
            least = math.ceil(1 / alpha - 1e-9) - 1
            return None, f"{len(group)} patients{of} were kept for it, at least {least} are needed for {alpha:g}"
    return Conformal(alpha, tuple(quantile(group, alpha) for group in groups), tuple(map(len, groups))), ""


def quantile(scores: NDArray[np.float64], alpha: float) -> float:
    """Return the ceil((n + 1)·(1 − alpha))-th smallest of n scores; a new one is at most that with 1 − alpha or more.

    Args:
        scores: (n,), n at least 1 / alpha − 1.
        alpha: between 0 and 1.
    """
    beyond = math.floor((len(scores) + 1) * alpha + 1e-9)  # n + 1 − ceil((n + 1)(1 − alpha)), without rounding errors
    return float(np.sort(scores)[len(scores) - beyond])


def one_a_patient(patients: Sequence[str]) -> NDArray[np.int64]:
    """Return the row of one slide of each patient, chosen by the hash of the patient's name alone."""
    rows: dict[str, list[int]] = {}
    for row, patient in enumerate(patients):
        rows.setdefault(patient, []).append(row)
    chosen = [own[_hash(patient) % len(own)] for patient, own in rows.items()]
    return np.array(chosen, np.int64)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big")
