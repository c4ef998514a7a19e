"""The bootstrap draws patients whole, and spreads as the analytic variance says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wsi_attention.statistics.bootstrap import bootstrap_aurocs, percentile_interval
from wsi_attention.statistics.comparison import auroc_difference
from wsi_attention.statistics.curves import area_under_roc


def test_a_draw_is_the_area_of_the_slides_that_were_drawn() -> None:
    rng = np.random.default_rng(0)
    labels, own = np.repeat([0, 1, 0, 1], 3), np.repeat(np.arange(4), 3)
    scores = np.round(rng.random(12), 1)
    found = bootstrap_aurocs([np.stack([1 - scores, scores], 1)], labels, own, draws=50, seed=3)
    drawn = np.random.default_rng(3).multinomial(4, np.full(4, 0.25), 50)
    for counts, (value,) in zip(drawn, found, strict=True):
        rows = np.repeat(np.arange(12), counts[own])
        assert value == pytest.approx(area_under_roc(scores[rows], labels[rows] == 1), nan_ok=True)
    assert np.isnan(found).any()
    assert np.isfinite(percentile_interval(found[:, 0])).all()


def test_it_spreads_as_delong_says() -> None:
    rng = np.random.default_rng(1)
    own = np.repeat(np.arange(120), 3)
    labels, noise = own % 2, rng.normal(size=120)[own]
    models = []
    for gap in (1.5, 0.8):
        scores = gap * labels + noise + rng.normal(size=360)
        models.append(np.stack([-scores, scores], 1))
    drawn = bootstrap_aurocs(models, labels, own)
    found = auroc_difference(models[0], models[1], labels, own)
    assert np.std(drawn[:, 0] - drawn[:, 1]) == pytest.approx(found.error, rel=0.1)
    assert percentile_interval(drawn[:, 0] - drawn[:, 1]) == pytest.approx(found.interval, abs=0.02)
    assert math.isnan(percentile_interval(np.array([math.nan]))[0])
