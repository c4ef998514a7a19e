"""Two models on the same slides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsi_attention.evaluation.judged import Judged
from wsi_attention.statistics.bootstrap import bootstrap_aurocs, percentile_interval
from wsi_attention.statistics.comparison import Difference, auroc_difference
from wsi_attention.statistics.curves import Roc, roc


@dataclass(frozen=True)
class Comparison:
    """The predictions against others for the same slides.

    Attributes:
        other: the other predictions' folder, or file where that has a name of its own.
        slides: that both have, and that judge.
        patients: whose they are.
        left_out: slides that judge and that the others do not have, by name.
        auroc: AUROC of the predictions, less that of the others.
        bootstrap_interval: 95 % percentiles over drawn patients; beside that of `auroc`, which holds more often.
        roc: of the others, for the positive class of two.
    """

    other: str
    slides: int
    patients: int
    left_out: tuple[str, ...]
    auroc: Difference
    bootstrap_interval: tuple[float, float]
    roc: Roc | None


def compare(ours: Judged, theirs: Judged, other: str, left_out: tuple[str, ...], positive: str | None) -> Comparison:
    """Return the comparison of two models.

    Args:
        ours: slides that both have predictions for, with ours.
        theirs: the same slides in the same order, with the others'.
        other: what the others are called.
        left_out: slides without a prediction of the others.
        positive: class of two whose ROC curve is drawn; None where there are more.
    """
    pair = ours.probabilities, theirs.probabilities
    drawn = bootstrap_aurocs(pair, ours.labels, ours.patients)
    index = None if positive is None else ours.classes.index(positive)
    curve = None if index is None else roc(theirs.probabilities[:, index], np.asarray(theirs.labels == index))
    return Comparison(
        other,
        len(ours.names),
        ours.n_patients,
        left_out,
        auroc_difference(*pair, ours.labels, ours.patients),
        percentile_interval(drawn[:, 0] - drawn[:, 1]),
        curve,
    )
