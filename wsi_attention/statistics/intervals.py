"""95 % intervals that do not collapse, for proportions, means, AUROC, F1 and average precision; over patients.

*Proportions* (accuracy, sensitivity): Clopper and Pearson, Biometrika 1934, exact. Where a patient has several slides,
Korn and Graubard, Survey Methodology 1998: the same interval for as many slides as would tell as much if each came from
a patient of its own, with Student's t for the few patients that say how alike their slides are.

*AUROC*: Newcombe, Statistics in Medicine 2006, part 2, method 5: all areas A with |Â − A| ≤ z·√V(A), where
V(A) = A(1 − A)/(mn)·[2N − 1 − (3N − 3)/((2 − A)(1 + A))] for m positive and n negative slides, N = (m + n)/2. V is
taken at A, not at the area found, so that slides that are told apart perfectly have an interval too. Where patients
repeat, V is multiplied by the ratio of two variances: Obuchowski's, Biometrics 1997, over patients, and DeLong's,
Biometrics 1988, over slides, and z is Student's t, with the degrees of freedom of Satterthwaite, Biometrics Bulletin
1946. The mean area of several classes takes the mean of their V, times the ratio of their mean's variance to the mean
of their variances.

*F1*, the mean over classes, the *average precision*, and the *mean of values in 0 to 1* such as the Brier score: the
interval of a proportion that varies as much. For a value v with variance V over patients that is Clopper and Pearson's
for v(1 − v)/V slides, times the squared ratio of the normal's to Student's quantile; V is the sum of squares of what
each patient adds to v (its influence: Hampel, Journal of the American Statistical Association 1974). F1 has as many
degrees of freedom as patients, less one for each class. The average precision has those of the patients of the class,
and is worth no more slides than there are of the class, as Boyd, Eng and Page, ECML 2013, found that these alone count.
The upper end of a mean takes a patient of value 0.5 besides: few patients seldom show the rare bad error.

*All right, all wrong, or perfectly separated*, the data say nothing of how alike a patient's slides are: then a patient
counts as one slide.

How often they hold what is true: `tests/benchmarks/interval_coverage.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_attention.statistics.curves import ranks

LEVEL = 0.95
METHODS = (
    "95 % intervals: shares by Clopper and Pearson, AUROC by Newcombe (2006), F1 as a share of as many slides as would "
    "vary as much; where patients repeat, over patients (Korn and Graubard 1998, Obuchowski 1997)"
)
"""What outputs say of the intervals."""
SMALLEST = 1e-24
"""A variance below is one of rounding."""
PRIOR = (1.0, 0.5)
"""Weight and value of the patient that the upper end of a mean takes besides."""
NONE = (math.nan, math.nan)
"""The interval of what does not exist."""


def proportion_interval(
    hits: NDArray[np.bool_], groups: NDArray[np.int64] | None = None, level: float = LEVEL
) -> tuple[float, float]:
    """Return the interval of the share of hits.

    Args:
        hits: (n,), whether each slide is one.
        groups: (n,), whose slide it is; each slide its own where None.
        level: of confidence.
    """
    n = len(hits)
    if not n:
        return NONE
    share, own = float(np.mean(hits)), numbered(groups, n)
    patients = int(own.max()) + 1
    if patients == n:
        return _exact(share * n, n, level)
    if not 0 < share < 1 or patients < 2:
        return _exact(share * patients, patients, level)
    residuals = np.bincount(own, hits - share)
    variance = patients / (patients - 1) * float((residuals**2).sum()) / n**2
    slides = share * (1 - share) / variance if variance > 0 else n
    slides *= (_student(n - 1, level) / _student(patients - 1, level)) ** 2
    size = float(min(n, max(slides, 1.0)))
    return _exact(share * size, size, level)


def mean_interval(
    values: NDArray[np.float64], groups: NDArray[np.int64] | None = None, level: float = LEVEL
) -> tuple[float, float]:
    """Return the interval of the mean of values in 0 to 1.

    Args:
        values: (n,), one a slide.
        groups: (n,), whose slide it is; each slide its own where None.
        level: of confidence.
    """
    n = len(values)
    if not n:
        return NONE
    own = numbered(groups, n)
    totals, slides = (np.bincount(own, each).astype(np.float64) for each in (values, np.ones(n)))
    weight, value = PRIOR
    extra = weight * float(slides.mean())
    more = np.concatenate([totals, [value * extra]]), np.concatenate([slides, [extra]])
    return _mean_end(totals, slides, level)[0], _mean_end(*more, level)[1]


def _mean_end(totals: NDArray[np.float64], slides: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Return the interval of a mean from the sums of patients, (p,), and the slides that they count as, (p,)."""
    mean, patients = float(totals.sum() / slides.sum()), len(totals)
    off = totals - mean * slides
    variance = patients / max(patients - 1, 1) * float((off**2).sum()) / float(slides.sum()) ** 2
    return _matched(mean, variance, patients - 1, math.inf, patients, level)


def f1_interval(
    truth: NDArray[np.int64],
    predicted: NDArray[np.int64],
    groups: NDArray[np.int64] | None = None,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Return the interval of the mean F1 over the classes that occur or were predicted.

    Args:
        truth: (n,) class indices.
        predicted: (n,) class indices.
        groups: (n,), whose slide it is; each slide its own where None.
        level: of confidence.
    """
    n = len(truth)
    if not n:
        return NONE
    own, values, influence, sizes = numbered(groups, n), [], [], []
    for c in np.unique(truth):
        is_so, called = truth == c, predicted == c
        both = int(is_so.sum() + called.sum())
        values.append(2 * int((is_so & called).sum()) / both)
        influence.append((2.0 * (is_so & called) - values[-1] * (1.0 * is_so + called)) / both)
        sizes.append(len(np.unique(own[is_so])))
    variance = over_patients(np.mean(influence, axis=0), own)
    alone = len(sizes) ** 2 / sum(1 / size for size in sizes)
    low, high = _matched(float(np.mean(values)), variance, _freedom(own, truth), math.inf, alone, level)
    share = len(sizes) / len(np.union1d(truth, predicted))  # classes that do not occur have an F1 of 0
    return low * share, high * share


def average_precision_interval(
    scores: NDArray[np.float64],
    truth: NDArray[np.bool_],
    groups: NDArray[np.int64] | None = None,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Return the interval of the average precision; NaN where nothing is of the class.

    Args:
        scores: (n,), higher for the class.
        truth: (n,), whether each is of the class.
        groups: (n,), whose slide it is; each slide its own where None.
        level: of confidence.
    """
    if not truth.any():
        return NONE
    own = numbered(groups, len(truth))
    positives = len(np.unique(own[truth]))
    value, influence = _precision_influence(scores, truth)
    variance = over_patients(influence, own)
    return _matched(value, variance, positives - 1, int(truth.sum()), positives, level)


def _precision_influence(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> tuple[float, NDArray[np.float64]]:
    """Return the average precision and what a little more weight on each slide adds to it."""
    order = np.argsort(-scores, kind="stable")
    ranked, right = scores[order], truth[order].astype(np.float64)
    starts = np.searchsorted(-ranked, -ranked, side="left")
    ends = np.searchsorted(-ranked, -ranked, side="right") - 1
    hits, called, positives = np.cumsum(right)[ends], 1.0 + ends, right.sum()
    precision = hits / called
    value = float((right * precision).sum() / positives)
    below = [
        np.cumsum(part[::-1])[::-1][starts] / positives
        for part in (right * (called - hits) / called**2, right * hits / called**2)
    ]
    influence = np.empty(len(scores))
    influence[order] = np.where(right > 0, (precision - value) / positives + below[0], -below[1])
    return value, influence


def _matched(
    value: float, variance: float, freedom: int, most: float, alone: float, level: float
) -> tuple[float, float]:
    """Return the interval of a proportion that varies as much as a value in 0 to 1.

    Args:
        value: what was found.
        variance: of it.
        freedom: degrees of freedom of the variance.
        most: slides that it can be worth at most.
        alone: slides that it is worth where the data do not say how it varies.
        level: of confidence.
    """
    if 0 < value < 1 and variance > SMALLEST:
        shrink = (_normal(level) / _student(freedom, level)) ** 2
        alone = min(max(value * (1 - value) / variance * shrink, 1.0), most)
    return _exact(value * alone, alone, level)


@dataclass(frozen=True)
class Area:
    """One class against the rest: its area, how many slides of each side, and what each slide adds to its error."""

    value: float
    positives: int
    negatives: int
    influence: NDArray[np.float64]


@dataclass(frozen=True)
class MeanArea:
    """The mean area over the classes that can be judged.

    Attributes:
        value: the mean.
        influence: (n,) what each slide adds to its error.
        areas: of each class.
    """

    value: float
    influence: NDArray[np.float64]
    areas: tuple[Area, ...]


def judged_classes(classes: int) -> range:
    """Return the classes whose areas are averaged: of two, the second alone."""
    return range(1, 2) if classes == 2 else range(classes)


def mean_area(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> MeanArea | None:
    """Return the AUROC as `metrics.auroc` defines it; None where only one class occurs.

    Args:
        probabilities: (n, classes).
        labels: (n,) class indices.
    """
    each = (_area(probabilities[:, c], labels == c) for c in judged_classes(probabilities.shape[1]))
    areas = tuple(area for area in each if area is not None)
    if not areas:
        return None
    value = float(np.mean([area.value for area in areas]))
    return MeanArea(value, np.mean([area.influence for area in areas], axis=0), areas)


def auroc_interval(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64] | None = None,
    level: float = LEVEL,
    freedom: float | None = None,
) -> tuple[float, float]:
    """Return the interval of the AUROC as `metrics.auroc` defines it; NaN where only one class occurs.

    Args:
        probabilities: (n, classes).
        labels: (n,) class indices.
        groups: (n,), whose slide it is; each slide its own where None.
        level: of confidence.
        freedom: degrees of freedom; where None, as the patients leave where they repeat, otherwise infinitely many.
    """
    found = mean_area(probabilities, labels)
    if found is None:
        return NONE
    own, areas = numbered(groups, len(labels)), found.areas
    value, together = found.value, found.influence
    single = float(np.mean([(area.influence**2).sum() for area in areas]))
    repeated = int(own.max()) + 1 < len(own)
    if freedom is None and repeated:
        freedom = satterthwaite(together, own, labels)
    reach = _normal(level) if freedom is None else _student(freedom, level)
    if single == 0:
        counted = [_patients(own, labels == c) for c in judged_classes(probabilities.shape[1])]
        sizes, ratio = [size for size in counted if min(size) > 0], 1.0
    else:
        sizes = [(area.positives, area.negatives) for area in areas]
        ratio = max(float((together**2).sum()) / single, 1 / len(areas))
        if repeated:  # patients never make it surer than their slides alone
            ratio = max(ratio, over_patients(together, own) / single)
    return _bound(value, sizes, ratio, reach, -1), _bound(value, sizes, ratio, reach, 1)


def newcombe_variance(area: float, positives: float, negatives: float) -> float:
    """Return V(θ) of method 5 in Newcombe 2006."""
    mean = (positives + negatives) / 2
    shape = 2 * mean - 1 - (3 * mean - 3) / ((2 - area) * (1 + area))
    return area * (1 - area) / (positives * negatives) * shape


def _area(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> Area | None:
    """Return DeLong's components: how many of the other side each slide ranks correctly against, about their mean."""
    m, n = int(truth.sum()), int((~truth).sum())
    if not m or not n:
        return None
    whole, influence = ranks(scores), np.zeros(len(scores))
    above = (whole[truth] - ranks(scores[truth])) / n
    below = 1 - (whole[~truth] - ranks(scores[~truth])) / m
    value = float(above.mean())
    influence[truth] = (above - value) / math.sqrt(m * max(m - 1, 1))
    influence[~truth] = (below - value) / math.sqrt(n * max(n - 1, 1))
    return Area(value, m, n, influence)


def over_patients(influence: NDArray[np.float64], own: NDArray[np.int64]) -> float:
    """Return the variance of a value from what each slide adds to it, summed by patient.

    Args:
        influence: (n,), about 0.
        own: (n,), the number of the patient, from 0, without gaps.
    """
    patients = int(own.max()) + 1
    if patients < 2:
        return float((influence**2).sum()) * len(own)
    return patients / (patients - 1) * float((np.bincount(own, influence) ** 2).sum())


def satterthwaite(influence: NDArray[np.float64], own: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Return the degrees of freedom of a variance to which each class adds that of its patients, at least 1.

    Satterthwaite, Biometrics Bulletin 1946: where three patients of one class bring most of the variance, it is known
    as badly as from three. Where nothing varies, as `_freedom`.

    Args:
        influence: (n,) what each slide adds to the value, about 0.
        own: (n,), the number of the patient.
        labels: (n,) class indices.
    """
    parts = []
    for c in np.unique(labels):
        sums = np.bincount(own[labels == c], influence[labels == c])
        parts.append((float((sums**2).sum()), max(1, len(np.unique(own[labels == c])) - 1)))
    whole = sum(part for part, _ in parts)
    return whole**2 / sum(part**2 / free for part, free in parts) if whole > 0 else _freedom(own, labels)


def _freedom(own: NDArray[np.int64], labels: NDArray[np.int64]) -> int:
    """Return the degrees of freedom that the patients of each class leave for the variance, at least 1."""
    return max(1, sum(len(np.unique(own[labels == c])) - 1 for c in np.unique(labels)))


def _patients(own: NDArray[np.int64], truth: NDArray[np.bool_]) -> tuple[int, int]:
    return len(np.unique(own[truth])), len(np.unique(own[~truth]))


def _bound(value: float, sizes: Sequence[tuple[int, int]], ratio: float, reach: float, side: int) -> float:
    """Return the furthest area on one side that the data do not contradict; the end of the scale where none is."""
    from scipy.optimize import brentq

    end = 0.0 if side < 0 else 1.0
    if value == end:
        return end

    def excess(area: float) -> float:
        variance = float(np.mean([newcombe_variance(area, m, n) for m, n in sizes]))
        return abs(area - value) - reach * math.sqrt(max(ratio * variance, 0.0))

    start = value + side * 1e-12
    return value if excess(start) >= 0 else float(brentq(excess, start, end))


def _exact(hits: float, n: float, level: float) -> tuple[float, float]:
    """Return Clopper and Pearson's interval, for counts that need not be whole."""
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    return low, high


def numbered(groups: NDArray[np.int64] | None, n: int) -> NDArray[np.int64]:
    """Return the patients of n slides as numbers from 0 without gaps; each slide its own where None."""
    if groups is None:
        return np.arange(n, dtype=np.int64)
    numbers: NDArray[np.int64] = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    return numbers


def _normal(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))


def _student(freedom: float, level: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(max(freedom, 1), (1 + level) / 2))
