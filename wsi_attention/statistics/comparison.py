"""Two models on the same slides: the difference of their AUROC, with interval and p-value, over patients.

The difference has the variance of DeLong, DeLong and Clarke-Pearson, Biometrics 1988, over slides; where patients
repeat, that of Obuchowski, Biometrics 1997, over patients. The interval puts those of the two areas together, as Zou
and Donner, Biometrics 2008, do for estimates that are correlated: with d = A - B, areas in (a, A⁺) and (b, B⁺),

    low  = d - √((A - a)² + (B⁺ - B)² - 2r(A - a)(B⁺ - B)),    high likewise,

where r is the correlation of the two areas over patients, where it is positive a standard error (of Fisher's z) nearer
to 0, because few patients tell it badly, and both intervals have Student's t with as many degrees of
freedom as the difference (Satterthwaite's). So it does not collapse where both models are perfect, as
d ± z·se does. The p-value is that at which the interval begins to hold 0; the plain z of DeLong is there as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from wsi_attention.statistics.intervals import (
    LEVEL,
    NONE,
    MeanArea,
    auroc_interval,
    mean_area,
    numbered,
    over_patients,
    satterthwaite,
)


@dataclass(frozen=True)
class Difference:
    """The AUROC of a first model minus that of a second one.

    Attributes:
        first: AUROC of the first.
        second: AUROC of the second.
        value: first minus second; NaN where only one class occurs.
        interval: 95 %.
        p: two-sided, of no difference.
        error: standard error of the value, over patients.
    """

    first: float
    second: float
    value: float
    interval: tuple[float, float]
    p: float
    error: float

    @property
    def z(self) -> float:
        """DeLong's statistic, value / error; NaN where the error is 0."""
        return self.value / self.error if self.error > 0 else math.nan


def auroc_difference(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64] | None = None,
    level: float = LEVEL,
) -> Difference:
    """Return how the AUROC of two models differ.

    Args:
        first: (n, classes) probabilities of the first model.
        second: (n, classes) of the second, for the same slides.
        labels: (n,) class indices.
        groups: (n,), whose slide it is; each slide its own where None.
        level: of confidence.
    """
    one, other, own = mean_area(first, labels), mean_area(second, labels), numbered(groups, len(labels))
    if one is None or other is None:
        return Difference(math.nan, math.nan, math.nan, NONE, math.nan, math.nan)
    value, error = one.value - other.value, math.sqrt(over_patients(one.influence - other.influence, own))
    at = partial(difference_interval, first, second, labels, groups)
    return Difference(one.value, other.value, value, at(level), _p_value(value, at), error)


def difference_interval(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64] | None = None,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Return the interval of the AUROC of a first model minus that of a second one; NaN where only one class occurs.

    Args:
        first: (n, classes) probabilities of the first model.
        second: (n, classes) of the second, for the same slides.
        labels: (n,) class indices.
        groups: (n,), whose slide it is; each slide its own where None.
        level: of confidence.
    """
    one, other, own = mean_area(first, labels), mean_area(second, labels), numbered(groups, len(labels))
    if one is None or other is None:
        return NONE
    if one.influence.any() and np.allclose(one.influence, other.influence, rtol=0, atol=1e-12):
        return 0.0, 0.0  # they rank every slide alike
    freedom = satterthwaite(one.influence - other.influence, own, labels)
    ends = [auroc_interval(shares, labels, own, level, freedom) for shares in (first, second)]
    (a_low, a_high), (b_low, b_high) = ends
    correlation, difference = _correlation(one, other, own, freedom), one.value - other.value

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(x * x + y * y - 2 * correlation * x * y, 0.0))

    return (
        difference - reach(one.value - a_low, b_high - other.value),
        difference + reach(a_high - one.value, other.value - b_low),
    )


def _correlation(one: MeanArea, other: MeanArea, own: NDArray[np.int64], freedom: float) -> float:
    """Return how the two areas vary together over patients, a standard error nearer to 0; 0 where one does not vary."""
    sums = [np.bincount(own, area.influence) for area in (one, other)]
    both = math.sqrt(float((sums[0] ** 2).sum() * (sums[1] ** 2).sum()))
    found = float(np.clip((sums[0] * sums[1]).sum() / both, -1 + 1e-12, 1 - 1e-12)) if both > 0 else 0.0
    nearer = math.tanh(max(abs(math.atanh(found)) - 1 / math.sqrt(max(freedom - 1, 1)), 0.0))
    return math.copysign(nearer, found) if found > 0 else found


def _p_value(value: float, interval: Callable[..., tuple[float, float]]) -> float:
    """Return one minus the level at which the interval of a difference begins to hold 0."""
    from scipy.optimize import brentq

    if value == 0:
        return 1.0

    def beyond(exponent: float) -> float:
        low, high = interval(level=1 - 10**exponent)
        return low if value > 0 else -high

    if beyond(-12) > 0:
        return 1e-12
    return float(10 ** brentq(beyond, -12, -1e-9, xtol=1e-6))
