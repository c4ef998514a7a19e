"""Reading on until the label is settled: in what order, at what cost, and never wrongly where it is a proof."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from populations import Given, two_classes, within

from wsi_attention.certificate.bounds import Bounds
from wsi_attention.certificate.reading import Goal, Settled, settle
from wsi_attention.certificate.verdict import PROOF, Readings, judge, lead, log_threshold, refutation
from wsi_attention.certificate.waiting import Waiting
from wsi_attention.errors import ModelError

EVERYTHING = 10**9
ROUNDING = 1e-9


def settled(
    population: Given, level: float = PROOF, budget: int = EVERYTHING, seed: int = 0, bounds: Bounds | None = None
) -> Settled:
    given = within(-5.0, 5.0) if bounds is None else bounds
    return settle(population, given, Goal(level, budget, ROUNDING), default_rng(seed))


def level_of(found: Settled) -> float | None:
    assert found.verdict is not None
    return found.verdict.level


def test_one_tile_with_most_of_the_attention_proves_it() -> None:
    found = settled(Given(np.array([0.02, 0.9, 0.08]), two_classes(np.array([-5.0, 3.0, -5.0]))))
    assert level_of(found) == PROOF
    assert found.tiles.tolist() == [1]
    assert lead(found.readings, within(-5.0, 5.0), (0, 1), PROOF) == pytest.approx((2.2, 3.2))


def test_a_proof_needs_as_many_tiles_as_the_formula_says() -> None:
    """Margins of 2 within ±5: proven where A·2 > (1 − A)·5, which is 0.714 of the attention."""
    found = settled(Given(np.full(100, 0.01), two_classes(np.full(100, 2.0))))
    assert level_of(found) == PROOF
    assert found.asked == len(found.tiles) == 72
    assert not found.readings.drawn.any()
    loose = settled(Given(np.full(100, 0.01), two_classes(np.full(100, 2.0))), bounds=within(-2.0, 5.0))
    assert loose.asked == 51


def test_draws_settle_what_a_proof_would_make_dear() -> None:
    mass = np.full(1000, 0.001)
    margin = np.where(np.arange(1000) % 2, 1.0, 3.0)
    found = settled(Given(mass, two_classes(margin)), 0.99)
    assert level_of(found) == 0.99
    assert found.asked < 30
    assert found.readings.drawn.sum() == found.asked - 1
    low, high = lead(found.readings, within(-5.0, 5.0), (0, 1), 0.99)
    assert low < 2.0 < high
    pair = found.readings, within(-5.0, 5.0), (0, 1)
    assert refutation(*pair, low - 1e-3) >= math.log(2 / 0.01) > refutation(*pair, low + 1e-3)  # two ordered pairs


def test_a_proof_is_taken_where_it_is_cheap() -> None:
    mass = np.array([0.4, 0.3, *np.full(300, 0.001)])
    found = settled(Given(mass, two_classes(np.full(302, 4.0))), 0.99)
    assert level_of(found) == PROOF
    assert found.tiles.tolist() == [0, 1]


def test_the_budget_ends_the_reading_without_a_label_settled() -> None:
    population = Given(np.full(100, 0.01), two_classes(np.full(100, 2.0)))
    found = settled(population, budget=20)
    assert level_of(found) is None
    assert found.asked == len(population.read_tiles) == 20
    assert lead(found.readings, within(-5.0, 5.0), (0, 1), PROOF) == pytest.approx((0.4 - 4.0, 0.4 + 4.0))
    assert settled(population, budget=0).verdict is None


def test_all_tiles_read_is_a_proof_unless_classes_are_level() -> None:
    margin = np.array([1.0, -1.0, 0.1, 0.1])
    found = settled(Given(np.full(4, 0.25), two_classes(margin)))
    assert (level_of(found), found.asked, found.readings.unread) == (PROOF, 4, 0.0)
    np.testing.assert_allclose(found.readings.weights, 0.25)
    level = settled(Given(np.full(4, 0.25), two_classes(np.array([1.0, -1.0, 0.5, -0.5]))))
    assert (level_of(level), level.asked) == (None, 4)


def test_tiles_that_cannot_be_read_stay_unread_for_ever() -> None:
    mass, margin = np.array([0.5, 0.3, 0.2]), np.array([5.0, 5.0, 5.0])
    found = settled(Given(mass, two_classes(margin), failing={0}))
    assert level_of(found) is None
    assert found.readings.unread == pytest.approx(0.5)
    assert lead(found.readings, within(-5.0, 5.0), (0, 1), PROOF) == pytest.approx((0.0, 5.0))
    little = settled(Given(mass, two_classes(margin), failing={2}))
    assert level_of(little) == PROOF
    assert settled(Given(mass, two_classes(margin), failing={0, 1, 2})).verdict is None


@pytest.mark.parametrize("level", [PROOF, 0.99])
def test_regions_are_opened_only_where_their_tiles_are_asked_for(level: float) -> None:
    mass = np.array([0.5, 0.3, *np.full(20, 0.01)])
    inside = [[0, 1], [*range(2, 12)], [*range(12, 22)]]
    found = settled(Given(mass, two_classes(np.full(22, 3.0)), inside), level)
    assert level_of(found) == PROOF
    assert found.asked == 1 + 2
    assert found.readings.mass.tolist() == pytest.approx([0.5, 0.3])


def test_regions_alike_are_opened_one_after_the_other() -> None:
    """Not all of them first, because each has more attention than a tile."""
    mass = np.full(64, 1 / 64)
    inside = [[*range(8 * region, 8 * region + 8)] for region in range(8)]
    found = settled(Given(mass, two_classes(np.full(64, 2.0)), inside))
    assert level_of(found) == PROOF
    assert len(found.tiles) == 46
    assert found.asked <= 46 + 7


def test_a_region_that_cannot_be_opened_is_one_tile_that_failed() -> None:
    mass = np.full(10, 0.1)
    population = Given(mass, two_classes(np.full(10, 4.0)), [[*range(5)], [*range(5, 10)]], closed={0})
    found = settled(population)
    assert found.readings.mass[~found.readings.valid].tolist() == pytest.approx([0.5])
    assert found.readings.unread == pytest.approx(0.5)
    assert level_of(found) is None
    assert found.asked == 2 + 5


def test_draws_from_regions_are_draws_from_all_tiles() -> None:
    """The chance of each ordered pair of tiles, through regions that are opened on the way, against the formula."""
    mass, inside = np.array([0.4, 0.2, 0.1, 0.2, 0.1]), [[0, 1], [2], [3, 4]]
    random, runs = default_rng(5), 1500
    pairs = np.zeros((5, 5))
    for _ in range(runs):
        waiting = Waiting(np.array([mass[one].sum() for one in inside]), np.ones(3, np.bool_), random)
        tiles: dict[int, int] = {}
        while (closed := waiting.closed[chosen := waiting.earliest(2)]).any():
            region = int(chosen[closed][0])
            tiles |= {len(waiting.mass) + i: tile for i, tile in enumerate(inside[region])}
            waiting.open(region, mass[inside[region]], False)
        pairs[tiles[int(chosen[0])], tiles[int(chosen[1])]] += 1 / runs
    expected = mass[:, None] * mass / (1 - mass[:, None]) * (1 - np.eye(5))
    assert np.abs(pairs - expected).max() < 4 * math.sqrt(0.15 / runs)


def test_the_wealth_counts_a_tile_that_failed_as_the_worst() -> None:
    mass, margins = np.full(60, 1 / 60), np.full(60, 3.0)
    drawn, valid = np.ones(30, np.bool_), np.ones(30, np.bool_)
    whole = Readings(mass[:30], two_classes(margins[:30]), valid, drawn)
    broken = whole._replace(
        valid=np.arange(30) % 3 > 0, scores=np.where(np.arange(30)[:, None] % 3 > 0, whole.scores, 99)
    )
    assert judge(whole, within(-5.0, 5.0), 0.99, ROUNDING).level == 0.99
    verdict = judge(broken, within(-5.0, 5.0), 0.99, ROUNDING)
    assert (verdict.winner, verdict.level) == (0, None)


def test_every_other_class_must_be_behind() -> None:
    scores = np.array([[3.0, 0.0, 2.9], [3.0, 0.0, 2.9], [0.0, 0.0, 3.0]])
    high = np.full((3, 3), 3.0)
    bounds = Bounds(-high.T, high, "given")
    found = settle(Given(np.array([0.5, 0.4, 0.1]), scores), bounds, Goal(PROOF, EVERYTHING, ROUNDING), default_rng(0))
    assert found.verdict is not None
    assert (found.verdict.winner, found.verdict.rival, found.verdict.level) == (2, 0, PROOF)
    assert found.asked == 3
    assert log_threshold(0.99, 3) == pytest.approx(math.log(200))


def test_a_score_beyond_the_bounds_is_told() -> None:
    with pytest.raises(
        ModelError, match="exceeds the bound of the certificate by 2: the encoder's features are not of"
    ):
        settled(Given(np.array([0.5, 0.5]), two_classes(np.array([7.0, 1.0]))))


def population(kind: int, random: Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Attention and margins within ±1: a narrow result, a needle, or anything."""
    n = int(random.integers(2, 40))
    mass = random.dirichlet(np.full(n, [0.1, 1.0, 50.0][kind % 3]))
    margin = random.uniform(-1, 1, n) if kind % 2 else np.where(random.random(n) < 0.1, 1.0, -0.08)
    return np.maximum(mass, 1e-12) / np.maximum(mass, 1e-12).sum(), margin


def test_what_is_certified_is_the_label_of_the_sum() -> None:
    """By proof always; at 0.9 in 90 % of runs. Populations of many kinds, among them those whose sum is nearly 0."""
    wrong, certified = {PROOF: 0, 0.9: 0}, {PROOF: 0, 0.9: 0}
    for seed in range(120):
        mass, margin = population(seed, default_rng(seed))
        for wanted in (PROOF, 0.9):
            found = settled(Given(mass, two_classes(margin)), wanted, seed=seed, bounds=within(-1.0, 1.0))
            assert found.verdict is not None
            if (level := found.verdict.level) is not None:
                certified[level] += 1
                wrong[level] += found.verdict.winner != int(mass @ margin < 0)
    assert certified[PROOF] > 160
    assert certified[0.9] > 12
    assert wrong[PROOF] == 0
    assert wrong[0.9] / 120 <= 0.1


def test_a_decisive_tile_hidden_under_flat_attention_is_not_overlooked() -> None:
    """One of 400 says 5, the rest −0.0125: the sum is above 0 by a hair. Nobody may say that it is not."""
    mass, margin = np.full(400, 1 / 400), np.full(400, -0.0125)
    margin[123] = 5.0
    assert 0 < float(mass @ margin) < 1e-3
    for seed in range(8):
        for level in (PROOF, 0.99):
            found = settled(Given(mass, two_classes(margin)), level, seed=seed)
            assert found.verdict is not None
            assert (found.verdict.winner, found.verdict.level) != (1, level)
            if found.verdict.level is not None:
                assert found.verdict.winner == 0
            assert 123 in found.tiles
