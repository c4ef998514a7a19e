"""Figures for grades, numbers, several labels and survival are those of kept libraries; weights count repeats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from wsi_attention.statistics.agreement import macro_auroc, mean_of, quadratic_kappa, r_squared
from wsi_attention.statistics.bayesian_bootstrap import Weighted, bootstrap_interval, whole
from wsi_attention.statistics.concordance import concordance

N = 60


def grades(rng: np.random.Generator) -> tuple[Weighted, float]:
    from sklearn.metrics import cohen_kappa_score

    truth, predicted = rng.integers(0, 4, (2, N))
    return quadratic_kappa(truth, predicted, 4), cohen_kappa_score(truth, predicted, weights="quadratic")


def errors(rng: np.random.Generator) -> tuple[Weighted, float]:
    from sklearn.metrics import mean_absolute_error

    truth, predicted = rng.normal(size=(2, N))
    return mean_of(np.abs(truth - predicted)), mean_absolute_error(truth, predicted)


def explained(rng: np.random.Generator) -> tuple[Weighted, float]:
    from sklearn.metrics import r2_score

    truth = rng.normal(50, 3, size=(N, 2))
    predicted = truth + rng.normal(size=(N, 2))
    return r_squared(truth, predicted), r2_score(truth, predicted)


def ranked(rng: np.random.Generator) -> tuple[Weighted, float]:
    from sklearn.metrics import roc_auc_score

    truth, scores = rng.integers(0, 2, (N, 3)).astype(bool), rng.integers(0, 6, (N, 3)) / 5
    return macro_auroc(truth, scores), roc_auc_score(truth, scores, average="macro")


def survival(rng: np.random.Generator) -> tuple[Weighted, float]:
    """Times and risks repeat, so that every kind of tie occurs."""
    from lifelines.utils import concordance_index

    times, risks, events = rng.integers(1, 9, N) * 1.0, rng.integers(0, 5, N) * 1.0, rng.random(N) < 0.6
    return concordance(times, events, risks), concordance_index(times, -risks, events)


KINDS = (grades, errors, explained, ranked, survival)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_figures_equal_those_of_kept_libraries(
    kind: Callable[[np.random.Generator], tuple[Weighted, float]], seed: int
) -> None:
    figure, expected = kind(np.random.default_rng(seed))
    assert whole(figure, N) == pytest.approx(expected, abs=1e-12)


def test_a_weight_of_two_is_a_slide_that_stands_there_twice() -> None:
    """Not for survival: there a slide and its copy are a pair that is no pair of a weighted slide with itself."""
    weights = np.random.default_rng(0).integers(1, 4, N)
    again = np.repeat(np.arange(N), weights)
    rng = np.random.default_rng(1)
    truth, predicted = rng.integers(0, 4, (2, N))
    once, repeated = quadratic_kappa(truth, predicted, 4), quadratic_kappa(truth[again], predicted[again], 4)
    assert once(weights[None].astype(float))[0] == pytest.approx(whole(repeated, len(again)), abs=1e-12)
    numbers, guesses = rng.normal(size=(2, N, 1))
    once, repeated = r_squared(numbers, guesses), r_squared(numbers[again], guesses[again])
    assert once(weights[None].astype(float))[0] == pytest.approx(whole(repeated, len(again)), abs=1e-12)
    labels, scores = rng.integers(0, 2, (N, 2)).astype(bool), rng.random((N, 2))
    once, repeated = macro_auroc(labels, scores), macro_auroc(labels[again], scores[again])
    assert once(weights[None].astype(float))[0] == pytest.approx(whole(repeated, len(again)), abs=1e-12)


def test_what_cannot_be_judged_is_nan() -> None:
    assert np.isnan(whole(quadratic_kappa(np.zeros(3, int), np.zeros(3, int), 2), 3))
    assert np.isnan(whole(r_squared(np.full((3, 1), 0.1), np.ones((3, 1))), 3))
    assert np.isnan(whole(macro_auroc(np.ones((3, 1), bool), np.ones((3, 1))), 3))
    assert np.isnan(whole(concordance(np.arange(3.0), np.zeros(3, bool), np.arange(3.0)), 3))


@pytest.mark.parametrize("patients", [12, 40])
def test_the_interval_covers_a_mean_as_often_as_it_says(patients: int) -> None:
    """500 cohorts of patients with two slides each: 95 % of intervals, with three standard errors of room."""
    rng, own = np.random.default_rng(patients), np.repeat(np.arange(patients), 2)
    hits = 0
    for _ in range(500):
        values = np.repeat(rng.normal(size=patients), 2) + 0.3 * rng.normal(size=2 * patients)
        low, high = bootstrap_interval(mean_of(values), own)
        hits += low <= 0 <= high
    assert 0.92 <= hits / 500 <= 0.98
