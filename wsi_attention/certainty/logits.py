"""Logits as probabilities, in double precision, and weights that count each patient once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsi_attention.errors import InputError

LEAST_PATIENTS = 20
"""With fewer patients nothing is fitted: the error of the fit would be as large as the one that it mends."""


def log_softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Return log probabilities (..., classes) of logits (..., classes)."""
    values = np.asarray(logits, np.float64)
    values = values - values.max(axis=-1, keepdims=True)
    return np.asarray(values - np.log(np.exp(values).sum(axis=-1, keepdims=True)), np.float64)


def log_odds(logits: ArrayLike) -> NDArray[np.float64]:
    """Return log(p / (1 − p)) of each class, (..., classes), exact where a probability is next to 0 or 1.

    Args:
        logits: (..., classes), two classes at least.
    """
    values = np.asarray(logits, np.float64)
    others = np.where(np.eye(values.shape[-1], dtype=bool), -np.inf, values[..., None, :])
    highest = others.max(axis=-1, keepdims=True)
    rest = highest[..., 0] + np.log(np.exp(others - highest).sum(axis=-1))
    return np.asarray(values - rest, np.float64)


def checked(
    logits: ArrayLike, labels: ArrayLike, patients: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return logits (n, classes) and labels (n,) as arrays.

    Raises:
        InputError: shapes do not fit, a logit is not finite, or a label is no class.
    """
    values, truth = np.asarray(logits, np.float64), np.asarray(labels, np.int64)
    if values.ndim != 2 or values.shape[1] < 2 or truth.shape != values.shape[:1] or len(patients) != len(truth):
        raise InputError(
            "a calibration needs logits (n, classes) with two classes or more, n labels and n patients; got"
            f" {values.shape}, {truth.shape} and {len(patients)}"
        )
    if not np.isfinite(values).all():
        raise InputError("a calibration needs finite logits; got NaN or infinity")
    if truth.size and not 0 <= truth.min() <= truth.max() < values.shape[1]:
        raise InputError(f"labels of {values.shape[1]} classes are 0 to {values.shape[1] - 1}; got {truth.max()}")
    return values, truth


def patient_weights(patients: Sequence[str]) -> NDArray[np.float64]:
    """Return (n,) weights, one over the number of the patient's slides: each patient counts as one."""
    _, inverse, counts = np.unique(
        np.asarray(patients, dtype=object).astype(str), return_inverse=True, return_counts=True
    )
    return np.asarray(1.0 / counts[inverse], np.float64)


def too_few(patients: Sequence[str]) -> str:
    """Say that there are too few patients; nothing where there are enough."""
    found = len(set(patients))
    if found >= LEAST_PATIENTS:
        return ""
    return f"{found} patients with a label were kept for it, at least {LEAST_PATIENTS} are needed"
