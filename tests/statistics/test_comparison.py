"""Two models on the same slides: DeLong's variance by counting, patients, and p-values that fit their interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from wsi_attention.statistics.comparison import auroc_difference, difference_interval

Floats = NDArray[np.float64]


def two(scores: Floats) -> Floats:
    return np.stack([-scores, scores], 1)


def pair(n: int, apart: float, worse: float, seed: int = 0) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Probabilities of two models that share half of their noise, and labels."""
    rng = np.random.default_rng(seed)
    labels, shared = np.arange(n) % 2, rng.normal(size=n)
    first, second = ((shared + rng.normal(size=n)) / math.sqrt(2) + gap * labels for gap in (apart, worse))
    return two(first), two(second), labels


def components(scores: Floats, truth: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    wins = (scores[truth][:, None] > scores[~truth]) + 0.5 * (scores[truth][:, None] == scores[~truth])
    return wins.mean(1), wins.mean(0)


def test_the_error_is_delongs() -> None:
    first, second, labels = pair(40, 1.5, 0.7)
    first = np.round(first, 1)
    (a1, a0), (b1, b0) = (components(shares[:, 1], labels == 1) for shares in (first, second))
    variance = np.var(a1 - b1, ddof=1) / len(a1) + np.var(a0 - b0, ddof=1) / len(a0)
    found = auroc_difference(first, second, labels)
    assert found.value == pytest.approx(a1.mean() - b1.mean(), abs=1e-12)
    # over patients of one slide each, the sum of squares is taken with n / (n - 1)
    assert found.error == pytest.approx(math.sqrt(variance * 40 / 39), abs=1e-12)
    assert found.z == pytest.approx(found.value / found.error)


def test_many_slides_give_the_p_value_of_delong() -> None:
    for seed in range(3):
        found = auroc_difference(*pair(2000, 1.0, 0.9, seed))
        assert found.p == pytest.approx(2 * norm.sf(abs(found.z)), abs=0.02)
        assert found.interval == pytest.approx(
            (found.value - 1.96 * found.error, found.value + 1.96 * found.error), abs=0.003
        )


def test_the_p_value_is_where_the_interval_meets_nought() -> None:
    first, second, labels = pair(60, 1.4, 0.5)
    found = auroc_difference(first, second, labels)
    low, high = difference_interval(first, second, labels, level=1 - found.p)
    assert 0 < found.p < 1
    assert min(abs(low), abs(high)) < 1e-6
    turned = auroc_difference(second, first, labels)
    assert (turned.value, turned.p) == pytest.approx((-found.value, found.p))
    assert turned.interval == pytest.approx((-found.interval[1], -found.interval[0]))


def test_slides_of_one_patient_that_are_all_alike_count_once() -> None:
    first, second, labels = pair(30, 1.4, 0.4)
    once = auroc_difference(first, second, labels)
    five = [np.repeat(one, 5, axis=0) for one in (first, second, labels)]
    unaware, aware = auroc_difference(*five), auroc_difference(*five, np.repeat(np.arange(30), 5))
    assert np.ptp(unaware.interval) < 0.6 * np.ptp(once.interval) < 0.6 * 1.3 * np.ptp(aware.interval)
    assert unaware.p < once.p < 1.5 * aware.p


def test_the_same_model_twice_and_two_perfect_ones() -> None:
    first, _, labels = pair(30, 1.0, 0.0)
    same = auroc_difference(first, first * 2, labels)
    assert (same.value, same.interval, same.p) == (0.0, (0.0, 0.0), 1.0)
    assert math.isnan(same.z)
    rng = np.random.default_rng(1)
    perfect = [two(3.0 * labels + rng.random(30)) for _ in range(2)]
    both = auroc_difference(*perfect, labels)
    assert (both.value, both.p) == (0.0, 1.0)
    assert both.interval[0] < -0.05 < 0.05 < both.interval[1]


@pytest.mark.parametrize("patients", [None, np.arange(20) // 2])
def test_one_perfect_model_beside_another(patients: NDArray[np.int64] | None) -> None:
    _, other, labels = pair(20, 1.0, 0.3)
    labels = np.sort(labels)
    perfect = two(3.0 * labels + np.linspace(0, 1, 20))
    better, worse = (auroc_difference(*models, labels, patients) for models in ((perfect, other), (other, perfect)))
    assert better.value == -worse.value > 0
    assert better.p == pytest.approx(worse.p)
    assert better.interval[0] <= better.value <= better.interval[1]


def test_one_class_alone_compares_nothing() -> None:
    found = auroc_difference(two(np.array([0.1, 0.2])), two(np.array([0.3, 0.1])), np.array([1, 1]))
    assert math.isnan(found.value)
    assert math.isnan(found.p)
    assert math.isnan(found.interval[0])


def test_several_classes_are_compared_by_their_mean() -> None:
    rng = np.random.default_rng(5)
    labels = np.repeat([0, 1, 2], 30)
    first, second = (rng.normal(size=(90, 3)) + gap * np.eye(3)[labels] for gap in (2.0, 0.6))
    found = auroc_difference(first, second, labels)
    assert 0 < found.interval[0] < found.value < found.interval[1]
    assert found.p < 0.01
