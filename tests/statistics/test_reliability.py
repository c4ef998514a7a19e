"""The parts of the Brier score add up; errors of calibration as they follow from counting."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wsi_attention.statistics.reliability import (
    brier,
    expected_calibration_error,
    label_calibration_error,
    reliability_bins,
)


def test_calibration_error_by_hand() -> None:
    shares = np.array([0.05, 0.08, 0.95, 0.92])
    truth = np.array([False, True, True, True])
    wanted = (abs(0.13 - 1) + abs(1.87 - 2)) / 4
    assert expected_calibration_error(shares, truth) == pytest.approx(wanted)
    both = np.stack([1 - shares, shares], 1)
    assert label_calibration_error(both, truth.astype(np.int64)) == pytest.approx(
        abs(0.95 + 0.92 + 0.95 + 0.92 - 3) / 4
    )
    assert math.isnan(expected_calibration_error(np.zeros(0), np.zeros(0, bool)))


def test_what_the_bins_know_of_patients() -> None:
    shares, truth = np.array([0.1, 0.1, 0.15, 0.93]), np.array([False, True, False, True])
    low, middle, high = reliability_bins(shares, truth, np.array([0, 0, 1, 2]))
    assert (low.low, low.high, low.slides, low.patients, low.share) == (0.0, pytest.approx(0.1), 2, 1, 0.5)
    assert (middle.slides, middle.probability, middle.share) == (1, 0.15, 0.0)
    assert high.interval == pytest.approx((0.025, 1.0))


def test_the_parts_add_up_and_mean_what_they_should() -> None:
    rng = np.random.default_rng(0)
    true = rng.choice([0.15, 0.35, 0.85], 30_000)
    truth = rng.random(30_000) < true
    honest, sure, base = brier(true, truth), brier(np.where(true > 0.5, 1.0, 0.0), truth), float(truth.mean())
    for found in (honest, sure, brier(rng.random(30_000), truth)):
        total = found.reliability - found.resolution + found.uncertainty + found.within
        assert found.score == pytest.approx(total, abs=1e-12)
        assert found.uncertainty == pytest.approx(base * (1 - base))
        assert found.interval[0] < found.score < found.interval[1]
    assert honest.reliability < 1e-4 < 0.01 < sure.reliability
    assert honest.within == pytest.approx(0, abs=1e-12)
    assert honest.skill > sure.skill
    assert honest.skill == pytest.approx(1 - float((true * (1 - true)).mean()) / (base * (1 - base)), abs=0.01)
