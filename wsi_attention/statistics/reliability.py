"""Whether probabilities come true: bins of a reliability diagram, expected calibration error, and the Brier score.

*Bins*: DeGroot and Fienberg, The Statistician 1983. Each bin compares the mean probability in it with the share that
came true, with an interval over patients.

*Expected calibration error (ECE)*: Naeini, Cooper and Hauskrecht, AAAI 2015: the mean over slides of the distance
between the two in their bin. It depends on the bins, and chance alone makes it positive: few slides look less
calibrated than they are.

*Brier score*: Brier, Monthly Weather Review 1950, the mean squared distance between probability and truth; lower is
better. Its parts, Murphy, Journal of Applied Meteorology 1973: score = reliability - resolution + uncertainty + within,
where `within` is what the bins leave out (Stephenson, Coelho and Jolliffe, Weather and Forecasting 2008), so that
the sum is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_attention.statistics.intervals import NONE, mean_interval, proportion_interval

BINS = 10
"""Of a reliability diagram, of the same width."""


@dataclass(frozen=True)
class Bin:
    """Slides with similar probabilities.

    Attributes:
        low: the smallest probability that belongs to it, excluded, except in the first bin.
        high: the largest, included.
        slides: in it.
        patients: whose they are.
        probability: mean of theirs.
        share: of them that are of the class.
        interval: 95 %, of the share.
    """

    low: float
    high: float
    slides: int
    patients: int
    probability: float
    share: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Brier:
    """The Brier score of one class against the rest, and its parts.

    Attributes:
        score: 0 to 1; lower is better.
        interval: 95 %.
        reliability: distance from the diagonal, squared; lower is better.
        resolution: how far the bins' shares lie from the share overall, squared; higher is better.
        uncertainty: the score of a model that gives everybody the share overall.
        within: what differs inside the bins.
    """

    score: float
    interval: tuple[float, float]
    reliability: float
    resolution: float
    uncertainty: float
    within: float

    @property
    def skill(self) -> float:
        """One minus score / uncertainty: 1 is perfect, 0 knows the share overall; NaN where only one class occurs."""
        return 1 - self.score / self.uncertainty if self.uncertainty > 0 else math.nan


def reliability_bins(
    probabilities: NDArray[np.float64],
    truth: NDArray[np.bool_],
    groups: NDArray[np.int64] | None = None,
    bins: int = BINS,
) -> tuple[Bin, ...]:
    """Return the bins that are not empty, from low to high.

    Args:
        probabilities: (n,), of the class, in 0 to 1.
        truth: (n,), whether each is of the class.
        groups: (n,), whose slide it is; each slide its own where None.
        bins: how many there are, of the same width.
    """
    own = np.arange(len(truth), dtype=np.int64) if groups is None else groups
    edges, place = np.linspace(0, 1, bins + 1), _places(probabilities, bins)
    found = []
    for number in np.unique(place):
        inside = place == number
        found.append(
            Bin(
                float(edges[number]),
                float(edges[number + 1]),
                int(inside.sum()),
                len(np.unique(own[inside])),
                float(probabilities[inside].mean()),
                float(truth[inside].mean()),
                proportion_interval(truth[inside], own[inside]),
            )
        )
    return tuple(found)


def expected_calibration_error(probabilities: NDArray[np.float64], truth: NDArray[np.bool_], bins: int = BINS) -> float:
    """Return the ECE of one class against the rest; NaN of nothing.

    Args:
        probabilities: (n,), of the class, in 0 to 1.
        truth: (n,), whether each is of the class.
        bins: how many there are, of the same width.
    """
    if not len(truth):
        return math.nan
    place = _places(probabilities, bins)
    gaps = np.bincount(place, probabilities - truth, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth))


def label_calibration_error(probabilities: NDArray[np.float64], labels: NDArray[np.int64], bins: int = BINS) -> float:
    """Return the ECE of the most probable class's probability: Guo, Pleiss, Sun and Weinberger, ICML 2017.

    Args:
        probabilities: (n, classes).
        labels: (n,) class indices.
        bins: how many there are, of the same width.
    """
    return expected_calibration_error(probabilities.max(1), probabilities.argmax(1) == labels, bins)


def brier(
    probabilities: NDArray[np.float64],
    truth: NDArray[np.bool_],
    groups: NDArray[np.int64] | None = None,
    bins: int = BINS,
) -> Brier:
    """Return the Brier score of one class against the rest; NaN of nothing.

    Args:
        probabilities: (n,), of the class, in 0 to 1.
        truth: (n,), whether each is of the class.
        groups: (n,), whose slide it is; each slide its own where None.
        bins: of the parts, of the same width.
    """
    if not len(truth):
        return Brier(math.nan, NONE, math.nan, math.nan, math.nan, math.nan)
    place, base = _places(probabilities, bins), float(truth.mean())
    counts = np.bincount(place, minlength=bins)
    used = counts > 0
    weights = counts[used] / len(truth)
    means = np.bincount(place, probabilities, bins)[used] / counts[used]
    shares = np.bincount(place, truth, bins)[used] / counts[used]
    losses = (probabilities - truth) ** 2
    score = float(losses.mean())
    off, apart = float((weights * (means - shares) ** 2).sum()), float((weights * (shares - base) ** 2).sum())
    uncertainty = base * (1 - base)
    return Brier(score, mean_interval(losses, groups), off, apart, uncertainty, score - (off - apart + uncertainty))


def multiclass_brier(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the mean over slides of the squared distance between all probabilities and the truth, 0 to 2.

    Args:
        probabilities: (n, classes).
        labels: (n,) class indices.
    """
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(1).mean())


def _places(probabilities: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Return the bin of each probability; an inner edge belongs to the bin below it, as in scikit-learn."""
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    places: NDArray[np.int64] = np.searchsorted(inner, probabilities).astype(np.int64)
    return places
