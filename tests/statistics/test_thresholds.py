"""Thresholds for a wanted sensitivity, and net benefit by its definition."""

from __future__ import annotations

import numpy as np
import pytest

from wsi_attention.errors import InputError
from wsi_attention.statistics.thresholds import at_threshold, net_benefit, threshold_for_sensitivity

SHARES = np.array([0.1, 0.2, 0.4, 0.4, 0.6, 0.7, 0.8, 0.9])
TRUTH = np.array([0, 1, 0, 1, 0, 1, 1, 1], bool)


@pytest.mark.parametrize(
    ("wanted", "threshold"), [(0.2, 0.9), (0.21, 0.8), (0.6, 0.7), (0.8, 0.4), (0.95, 0.2), (1.0, 0.2)]
)
def test_the_highest_threshold_that_finds_enough(wanted: float, threshold: float) -> None:
    found = threshold_for_sensitivity(SHARES, TRUTH, wanted)
    assert found == threshold
    assert at_threshold(SHARES, TRUTH, found).sensitivity.value >= wanted
    assert at_threshold(SHARES, TRUTH, np.nextafter(found, 1)).sensitivity.value < wanted


def test_sensitivities_that_are_none() -> None:
    for wanted in (0.0, -1.0, 1.01, float("nan")):
        with pytest.raises(InputError, match="above 0 and at most 1"):
            threshold_for_sensitivity(SHARES, TRUTH, wanted)
    with pytest.raises(InputError, match="no slide is of the class"):
        threshold_for_sensitivity(SHARES, ~np.ones(8, bool), 0.9)


def test_net_benefit_by_counting() -> None:
    thresholds = np.array([0.05, 0.2, 0.4, 0.65, 0.95])
    found = net_benefit(SHARES, TRUTH, thresholds)
    for t, model, everybody in zip(thresholds, found.model, found.all, strict=True):
        called = at_threshold(SHARES, TRUTH, t)
        assert model == pytest.approx(called.true_positives / 8 - called.false_positives / 8 * t / (1 - t))
        assert everybody == pytest.approx(5 / 8 - 3 / 8 * t / (1 - t))
    assert found.model[0] == found.all[0]
    assert found.model[-1] == 0


def test_shares_count_patients() -> None:
    found = at_threshold(SHARES, TRUTH, 0.5, np.array([0, 0, 1, 1, 2, 2, 3, 3]))
    assert (found.sensitivity.hits, found.sensitivity.slides, found.sensitivity.patients) == (3, 5, 4)
    assert (found.ppv.hits, found.ppv.slides, found.ppv.patients) == (3, 4, 2)
    empty = at_threshold(SHARES, TRUTH, 0.99).ppv
    assert np.isnan(empty.value)
    assert np.isnan(empty.interval).all()
