"""The bet is fair for every order of draws, and refutes what is true as rarely as it promises: by enumeration."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from populations import Choice, readings

from wsi_attention.certificate import sequence
from wsi_attention.certificate.sequence import log_wealth, log_wealth_path, lower_bound

MASS = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
SCORES = {
    "some": np.array([-1.0, 2.0, 0.5, -0.3, 1.2]),
    "extremes": np.array([-1.0, 2.0, -1.0, -1.0, 2.0]),
    "one decides": np.array([0.3, 0.3, 0.3, 0.3, -1.0]),
    "nearly the least": np.array([-0.9, -0.9, -0.9, -0.9, 2.0]),
}
LOW = -1.0


def never(read: list[int]) -> None:
    return None


def first_two(read: list[int]) -> int | None:
    """The two with the most attention without chance, then draws."""
    return len(read) if len(read) < 2 else None


def after_good_news(read: list[int]) -> int | None:
    """After a draw of tile 1 the one with the most attention that is left is read without chance: news decides."""
    left = [tile for tile in range(len(MASS)) if tile not in read]
    return left[0] if read and read[-1] == 1 else None


CHOICES = {"draws alone": never, "two first": first_two, "after good news": after_good_news}


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize("choose", CHOICES.values(), ids=CHOICES)
def test_a_bet_against_the_truth_is_fair_at_every_moment(scores: NDArray[np.float64], choose: Choice) -> None:
    truth = float(MASS @ scores) + 1e-12
    total = np.zeros(len(MASS))
    for chance, order, drawn in readings(MASS, choose):
        path = log_wealth_path(MASS[order], scores[order], np.array(drawn), LOW, truth)
        total += chance * np.exp(np.where(np.isinf(path), -np.inf, path))
    # while several tiles are left; with the last one the sum is known, and one side of the rounding is refuted
    assert (total <= 1 + 1e-7).all()
    if (scores == LOW).sum() < 2:  # where only tiles with the least score may be left, nothing can be won any more
        np.testing.assert_allclose(total[:3], 1.0, rtol=1e-7)


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize("choose", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("beyond", [1e-9, 0.1])
def test_what_is_true_is_refuted_as_rarely_as_promised(
    scores: NDArray[np.float64], choose: Choice, beyond: float
) -> None:
    truth = float(MASS @ scores)
    found = [
        (chance, log_wealth(MASS[order], scores[order], np.array(drawn), LOW, truth + beyond))
        for chance, order, drawn in readings(MASS, choose)
    ]
    assert sum(chance for chance, _ in found) == pytest.approx(1)
    for delta in (0.5, 0.3, 0.2, 0.1, 0.05, 0.01):
        assert sum(chance for chance, wealth in found if wealth >= math.log(1 / delta)) <= delta + 1e-9


def test_promises_are_nearly_used_up_where_the_tiles_allow_it() -> None:
    """Else the test above would hold for a bet that never wins."""
    mass, scores = np.full(6, 1 / 6), np.array([2.0, 2.0, 2.0, 2.0, 2.0, LOW])
    found = [
        (chance, log_wealth(mass[order], scores[order], np.array(drawn), LOW, float(mass @ scores) + 1e-9))
        for chance, order, drawn in readings(mass)
    ]
    assert 0.4 * 0.4 < sum(chance for chance, wealth in found if wealth >= math.log(2.5)) <= 0.4


def test_draws_with_replacement_would_not_be_fair() -> None:
    """A bet that forgets what has been read promises too much: the enumeration tells the two apart."""
    mass, scores = np.array([0.7, 0.1, 0.1, 0.1]), np.array([LOW, 2.0, 2.0, 2.0])
    truth = float(mass @ scores) + 1e-9
    stakes = sequence.STAKES[:, None]
    forgetful = right = 0.0
    for chance, order, drawn in readings(mass):
        ratio = (scores[order] - LOW)[:3] / (truth - LOW)
        wealth = (sequence.SHARES[:, None] * np.cumprod(1 - stakes + stakes * ratio, axis=1)).sum(axis=0)
        forgetful += chance * float(wealth[2])
        path = log_wealth_path(mass[order], scores[order], np.array(drawn), LOW, truth)
        right += chance * float(np.exp(path[2])) if np.isfinite(path[2]) else 0.0
    assert forgetful > 1.1
    assert right <= 1 + 1e-6


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
def test_the_lower_bound_is_where_the_wealth_crosses(scores: NDArray[np.float64]) -> None:
    threshold, order, drawn = math.log(5), [4, 0, 2], np.array([True, False, True])
    bound = lower_bound(MASS[order], scores[order], drawn, LOW, threshold)
    assert log_wealth(MASS[order], scores[order], drawn, LOW, bound - 1e-6) >= threshold
    assert log_wealth(MASS[order], scores[order], drawn, LOW, bound + 1e-6) < threshold
    assert bound >= float((MASS * scores)[order].sum()) + (1 - MASS[order].sum()) * LOW - 1e-9
    everything = list(range(5))
    assert lower_bound(MASS, scores, np.ones(5, np.bool_), LOW, threshold) == pytest.approx(
        float((MASS * scores)[everything].sum()), abs=1e-6
    )


def test_the_lower_bound_misses_as_rarely_as_promised() -> None:
    """Of five tiles with equal attention one says the least there is: where it comes last, the bound is too high."""
    mass, delta = np.full(5, 0.2), 0.4
    missed = 0.0
    for place in range(5):
        scores = np.where(np.arange(5) == place, LOW, 2.0)
        bounds = [
            lower_bound(mass[:n], scores[:n], np.ones(n, np.bool_), LOW, math.log(1 / delta)) for n in range(1, 5)
        ]
        missed += 0.2 * (max(bounds) > float(mass @ scores) + 1e-6)
    assert 0 < missed <= delta


def test_without_a_draw_nothing_is_won_and_what_is_impossible_is_refuted_for_certain() -> None:
    nobody = np.zeros(1, np.bool_)
    assert log_wealth(MASS[:1], np.array([2.0]), nobody, LOW, 1.0) == pytest.approx(0.0)
    assert log_wealth(MASS[:1], np.array([2.0]), nobody, LOW, 0.1) == math.inf  # 0.4·2 − 0.6 = 0.2
    assert log_wealth(np.zeros(0), np.zeros(0), np.zeros(0, np.bool_), LOW, 0.0) == 0.0
