"""Whether a calibration is worth it: it is kept where it improves probabilities of patients it was not fitted to.

A model whose probabilities are right as they are can only lose by a fit: a fit to few patients is off by chance, and
Platt's targets draw every number towards the middle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsi_attention.certainty.calibration import CALLED, Calibration, fit_calibration, fitted
from wsi_attention.certainty.logits import checked, log_softmax, patient_weights

PARTS = 10
"""Into how many parts the patients are dealt; each is judged by a fit to the others."""


def fit_where_better(
    logits: ArrayLike, labels: ArrayLike, patients: Sequence[str], kind: str = "auto"
) -> tuple[Calibration | None, str]:
    """Fit a calibration as `fit_calibration` does, and keep it only where it lowers the cross-validated log loss.

    Args:
        logits, labels, patients, kind: as there.

    Returns:
        The calibration and ""; or None and why there is none, or why it is left out.

    Raises:
        InputError: as there.
    """
    found, why = fit_calibration(logits, labels, patients, kind)
    if found is None:
        return None, why
    own, mended = log_losses(logits, labels, patients, found.kind)
    if mended < own:
        return found, ""
    return None, (
        f"{CALLED[found.kind]} was fitted to {found.patients} patients and left out, as it made probabilities of"
        f" patients that a fit had not seen no better: log loss {mended:.3f} with it, {own:.3f} without"
    )


def log_losses(logits: ArrayLike, labels: ArrayLike, patients: Sequence[str], kind: str) -> tuple[float, float]:
    """Return the mean log loss of the model's own probabilities, and that of calibrations fitted to other patients.

    Args:
        logits: (n, classes).
        labels: (n,) class indices.
        patients: (n,) whose slides they are; each counts as one, and is never in a fit that judges it.
        kind: "temperature", "platt" or "isotonic".

    Returns:
        Both in nats; the second is infinite where a fit to some of the patients has no end.

    Raises:
        InputError: arrays that do not fit each other.
    """
    values, truth = checked(logits, labels, patients)
    owners, weights = np.asarray(patients, dtype=object), patient_weights(patients)
    rows, part = np.arange(len(truth)), parts_of(truth, patients)
    logs = np.zeros(len(truth))
    for one in np.unique(part):
        judged, others = part == one, part != one
        fit = fitted(values[others], truth[others], owners[others].tolist(), kind)
        if fit is None:
            logs[judged] = -math.inf
            continue
        told = fit.probabilities(values[judged])[np.arange(judged.sum()), truth[judged]]
        logs[judged] = np.log(np.maximum(told, np.finfo(np.float64).tiny))
    own = log_softmax(values)[rows, truth]
    return -float(np.average(own, weights=weights)), -float(np.average(logs, weights=weights))


def parts_of(labels: NDArray[np.int64], patients: Sequence[str]) -> NDArray[np.int64]:
    """Return the part of each slide, (n,): a patient's slides in one, classes in equal shares, whatever the order.

    Args:
        labels: (n,) class indices.
        patients: (n,) whose slides they are.
    """
    highest: dict[str, int] = {}
    for patient, label in zip(patients, labels.tolist(), strict=True):
        highest[patient] = max(label, highest.get(patient, 0))
    order = sorted(highest, key=lambda patient: (highest[patient], sha256(patient.encode()).digest()))
    place = {patient: number % PARTS for number, patient in enumerate(order)}
    return np.array([place[patient] for patient in patients], np.int64)
