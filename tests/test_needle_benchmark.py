"""Parts of the needle benchmark that its figures rest on, with painted tiles in place of real ones."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "benchmarks"))

import needle_slides
from needle_baselines import around
from needle_report import Looks, difference, threshold
from needle_stain import matched
from needle_tiles import Tiles

from wsi_attention.testing.slide_levels import pyramid


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> Tiles:
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 230, (6, 12, 12, 3)).astype(np.uint8)
    made = Tiles(coarse.repeat(8, 1).repeat(8, 2), np.array([0, 0, 0, 0, 1, 1]), ())
    monkeypatch.setattr(needle_slides, "tiles_of", lambda _: made)
    monkeypatch.setattr(needle_slides, "CELLS", 12)
    needle_slides._halved.cache_clear()
    needle_slides._stored.cache_clear()
    return made


def test_levels_made_of_ready_tiles_are_those_of_the_painted_slide(tiles: Tiles) -> None:
    spec = needle_slides.NeedleSpec("train", 3, 0.01)
    layout = needle_slides.lay_out(spec, tiles)
    painted = pyramid(needle_slides.paint(layout, tiles.pixels), 2, needle_slides.SMALLEST)
    made = list(needle_slides.levels(spec, tiles, layout))
    assert [shape for shape, _ in made] == [level.shape for level in painted]
    for (_, encoded), level in zip(made, painted, strict=True):
        assert list(encoded) == list(needle_slides._tiles(level))


def test_matched_tiles_have_one_mean_and_nearly_one_deviation(tiles: Tiles) -> None:
    bright = (tiles.pixels // 2 + 100).astype(np.uint8)
    both = np.concatenate([tiles.pixels, bright])
    mean, deviation, grey = np.array([65.0, 5.0, -5.0]), np.array([12.0, 8.0, 8.0]), np.array([160.0, 150.0, 165.0])
    found = matched(both, mean, deviation, grey)
    np.testing.assert_allclose(found.mean(axis=(1, 2)), np.tile(grey, (12, 1)), atol=0.5)
    spread = found.mean(axis=-1).std(axis=(1, 2))
    assert spread.std() < 0.15 * both.mean(axis=-1).std(axis=(1, 2)).std()
    assert found.shape == both.shape
    assert found.dtype == np.uint8


def test_a_mean_around_a_cell_counts_cells_that_are_there() -> None:
    side = needle_slides.CELLS
    cells = np.array([0, 1, side + 1, 40 * side + 20])  # three touch, one is alone
    found = around(np.array([[1.0], [2.0], [6.0], [5.0]], np.float32), cells, 3)
    np.testing.assert_allclose(found[:, 0], [3.0, 3.0, 3.0, 5.0], rtol=1e-6)


def test_a_threshold_keeps_the_wanted_share_of_negatives() -> None:
    probability = np.array([0.1, 0.2, 0.3, 0.6, 0.4, 0.9])
    label = np.array([False, False, False, False, True, True])
    assert threshold(probability, label, 1.0) == pytest.approx(0.75)
    assert threshold(probability, ~label, 0.6) == pytest.approx(0.95), "no threshold keeps both"


def test_a_threshold_is_in_the_middle_of_those_that_keep_both() -> None:
    probability = np.array([0.1, 0.2, 0.5, 0.9, 0.99])
    label = np.array([False, False, False, True, True])
    assert threshold(probability, label, 0.75, 0.3) == pytest.approx(1 / (1 + 99**-0.5)), "0 and log 99"
    assert threshold(probability, label, 0.75, 0.6) == pytest.approx(0.75), "0 and log 9"
    assert threshold(1 - probability, ~label, 0.6, 0.75) == pytest.approx(0.25), "the other way round"


@pytest.mark.parametrize("wanted", [0.8, 0.95])
def test_fresh_negatives_keep_the_specificity_that_was_wanted(wanted: float) -> None:
    rng, kept = np.random.default_rng(0), []
    for _ in range(4000):
        seen, label = rng.random(51), np.arange(51) < 1
        kept.append(threshold(seen * 0.99, label, wanted))
    assert wanted - 0.002 < np.mean(kept) / 0.99 < wanted + 0.04


def test_a_row_does_not_differ_from_itself_and_does_from_a_worse_one() -> None:
    label = np.arange(40) % 2 == 1
    good = np.random.default_rng(0).random((2, 40)) + label
    none = (np.nan, np.nan)
    one = Looks(good / 2, label, ({}, {}), np.array(none))
    other = Looks(good[:, ::-1] / 2, label, ({}, {}), np.array(none))
    assert difference(one, one) == {"auroc": 0.0, "interval": (0.0, 0.0)}
    assert difference(one, other)["interval"][0] > 0.5
