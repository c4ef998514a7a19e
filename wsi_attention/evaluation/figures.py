"""What is told of each class against the rest: areas, curves, calibration, net benefit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsi_attention.evaluation.judged import Judged
from wsi_attention.statistics.curves import (
    PrecisionRecall,
    Roc,
    area_under_roc,
    average_precision,
    precision_recall,
    roc,
)
from wsi_attention.statistics.intervals import auroc_interval, average_precision_interval
from wsi_attention.statistics.reliability import (
    Bin,
    Brier,
    brier,
    expected_calibration_error,
    label_calibration_error,
    multiclass_brier,
    reliability_bins,
)
from wsi_attention.statistics.thresholds import NetBenefit, net_benefit

DECISION = np.arange(1, 100) / 100
"""Thresholds of a decision curve."""


@dataclass(frozen=True)
class ClassFigures:
    """One class against the rest.

    Attributes:
        name: of the class.
        slides: of the class; the others are all that judge, less these.
        patients: whose these are.
        auroc: NaN where one side is empty.
        auroc_interval: 95 %.
        average_precision: NaN where nothing is of the class.
        average_precision_interval: 95 %.
        roc: None where one side is empty.
        precision_recall: None where nothing is of the class.
        brier: the score and its parts.
        ece: expected calibration error.
        bins: of the reliability diagram.
        net_benefit: the decision curve.
    """

    name: str
    slides: int
    patients: int
    auroc: float
    auroc_interval: tuple[float, float]
    average_precision: float
    average_precision_interval: tuple[float, float]
    roc: Roc | None
    precision_recall: PrecisionRecall | None
    brier: Brier
    ece: float
    bins: tuple[Bin, ...]
    net_benefit: NetBenefit


@dataclass(frozen=True)
class LabelCalibration:
    """Whether the label's own probability comes true.

    Attributes:
        ece: expected calibration error of the most probable class.
        bins: of its reliability diagram.
        brier: over all classes, 0 to 2.
    """

    ece: float
    bins: tuple[Bin, ...]
    brier: float


def class_figures(judged: Judged) -> tuple[ClassFigures, ...]:
    """Return the figures of each class, in the order of the classes."""
    return tuple(_figures(judged, index) for index in range(len(judged.classes)))


def label_calibration(judged: Judged) -> LabelCalibration:
    """Return how the most probable class's probability comes true."""
    shares, labels = judged.probabilities, judged.labels
    right = shares.argmax(1) == labels
    return LabelCalibration(
        label_calibration_error(shares, labels),
        reliability_bins(shares.max(1), right, judged.patients),
        multiclass_brier(shares, labels),
    )


def _figures(judged: Judged, index: int) -> ClassFigures:
    scores, truth, own = judged.probabilities[:, index], judged.labels == index, judged.patients
    return ClassFigures(
        judged.classes[index],
        int(truth.sum()),
        len(np.unique(own[truth])),
        area_under_roc(scores, truth),
        auroc_interval(np.stack([-scores, scores], 1), truth.astype(np.int64), own),
        average_precision(scores, truth),
        average_precision_interval(scores, truth, own),
        roc(scores, truth),
        precision_recall(scores, truth),
        brier(scores, truth, own),
        expected_calibration_error(scores, truth),
        reliability_bins(scores, truth, own),
        net_benefit(scores, truth, DECISION),
    )
