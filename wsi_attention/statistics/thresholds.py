"""What a threshold does: calls, their shares with intervals, the threshold for a wanted sensitivity, and net benefit.

*Net benefit* at threshold t, Vickers and Elkin, Medical Decision Making 2006: TP/n - FP/n · t/(1 - t). The threshold
says how much worse it is to miss one than to treat one in vain, so the curve is read at thresholds that people would
choose, and compared with treating all and treating none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import InputError
from wsi_attention.statistics.intervals import proportion_interval


@dataclass(frozen=True)
class Share:
    """A share of slides with its interval.

    Attributes:
        hits: slides that count.
        slides: of how many.
        patients: whose they are.
        interval: 95 %; NaN where there are no slides.
    """

    hits: int
    slides: int
    patients: int
    interval: tuple[float, float]

    @property
    def value(self) -> float:
        """hits / slides; NaN where there are none."""
        return self.hits / self.slides if self.slides else float("nan")


@dataclass(frozen=True)
class AtThreshold:
    """One class against the rest, called positive at a probability of `threshold` or more.

    Attributes:
        threshold: of the probability.
        true_positives: slides of the class that are called so.
        false_positives: other slides that are called so.
        false_negatives: slides of the class that are not.
        true_negatives: other slides that are not.
        sensitivity: true positives of all of the class.
        specificity: true negatives of all others.
        ppv: true positives of all that are called so; depends on how frequent the class is here.
        npv: true negatives of all that are not.
    """

    threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    sensitivity: Share
    specificity: Share
    ppv: Share
    npv: Share


@dataclass(frozen=True)
class NetBenefit:
    """A decision curve.

    Attributes:
        thresholds: (k,), above 0 and below 1.
        model: (k,) net benefit of treating those that the model calls positive.
        all: (k,) of treating everybody; treating nobody has 0.
    """

    thresholds: NDArray[np.float64]
    model: NDArray[np.float64]
    all: NDArray[np.float64]


def at_threshold(
    probabilities: NDArray[np.float64],
    truth: NDArray[np.bool_],
    threshold: float,
    groups: NDArray[np.int64] | None = None,
) -> AtThreshold:
    """Return what a threshold does.

    Args:
        probabilities: (n,), of the class.
        truth: (n,), whether each is of the class.
        threshold: at this probability or more a slide is called positive.
        groups: (n,), whose slide it is; each slide its own where None.
    """
    called = probabilities >= threshold
    own = np.arange(len(truth), dtype=np.int64) if groups is None else groups

    def share(right: NDArray[np.bool_], among: NDArray[np.bool_]) -> Share:
        hits, whose = right[among], own[among]
        return Share(int(hits.sum()), len(hits), len(np.unique(whose)), proportion_interval(hits, whose))

    return AtThreshold(
        threshold,
        int((called & truth).sum()),
        int((called & ~truth).sum()),
        int((~called & truth).sum()),
        int((~called & ~truth).sum()),
        share(called, truth),
        share(~called, ~truth),
        share(truth, called),
        share(~truth, ~called),
    )


def threshold_for_sensitivity(
    probabilities: NDArray[np.float64], truth: NDArray[np.bool_], sensitivity: float
) -> float:
    """Return the highest threshold at which at least this share of the class is called positive.

    Args:
        probabilities: (n,), of the class.
        truth: (n,), whether each is of the class.
        sensitivity: wanted, above 0 and at most 1.

    Raises:
        InputError: the sensitivity is none, or nothing is of the class.
    """
    if not 0 < sensitivity <= 1:
        raise InputError(f"a sensitivity is above 0 and at most 1, got {sensitivity:g}")
    own = np.sort(probabilities[truth])[::-1]
    if not len(own):
        raise InputError("no slide is of the class, so no threshold has a sensitivity")
    needed = int(np.ceil(sensitivity * len(own) - 1e-9))
    return float(own[needed - 1])


def net_benefit(
    probabilities: NDArray[np.float64], truth: NDArray[np.bool_], thresholds: NDArray[np.float64]
) -> NetBenefit:
    """Return the decision curve.

    Args:
        probabilities: (n,), of the class, n of at least 1.
        truth: (n,), whether each is of the class.
        thresholds: (k,), above 0 and below 1.
    """
    odds, n = thresholds / (1 - thresholds), len(truth)
    right, wrong = np.sort(probabilities[truth]), np.sort(probabilities[~truth])
    hits = len(right) - np.searchsorted(right, thresholds, side="left")
    alarms = len(wrong) - np.searchsorted(wrong, thresholds, side="left")
    return NetBenefit(thresholds, hits / n - alarms / n * odds, len(right) / n - len(wrong) / n * odds)
