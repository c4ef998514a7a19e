"""What is settled by the tiles read so far: the label of the whole sum, by proof or by confidence, or nothing yet.

The mathematics, with proofs: docs/certificate.md.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsi_attention.certificate.bounds import Bounds, Floats
from wsi_attention.certificate.sequence import log_wealth, lower_bound

PROOF = 1.0
"""The level at which nothing but a proof counts."""


class Readings(NamedTuple):
    """What was read, in the order of reading.

    Attributes:
        mass: (n,) attention; that of all there is sums to 1.
        scores: (n, classes) logits of each tile by itself; of no meaning where one failed.
        valid: (n,) bool, False where a tile could not be read; its attention counts as unread for ever.
        drawn: (n,) bool, which were drawn by attention from all that was left.
    """

    mass: Floats
    scores: Floats
    valid: NDArray[np.bool_]
    drawn: NDArray[np.bool_]

    @property
    def unread(self) -> float:
        """The attention of all that was not read, or could not be."""
        return max(0.0, 1.0 - float(self.mass[self.valid].sum()))

    @property
    def weights(self) -> Floats:
        """(n,) what each tile counts for in the estimate; their sum is 1, and failed ones have 0.

        A tile counts with its attention, and what was not read is shared out: evenly among tiles that were drawn, which
        stand for it; where none was, in proportion to attention. With all tiles read they are the attention itself.
        """
        attention = self.mass * self.valid
        random = (self.drawn & self.valid).astype(np.float64)
        share = random if random.any() else attention
        return np.asarray(attention + self.unread * share / share.sum(), np.float64)

    def margins(self, winner: int) -> Floats:
        """Return how much each tile says for the winner against each class, (n, classes)."""
        return np.asarray(self.scores[:, [winner]] - self.scores, np.float64)


class Verdict(NamedTuple):
    """Whether the label is settled.

    Attributes:
        winner: the label of the estimate.
        rival: the class that comes closest to it, as far as is known.
        level: `PROOF`, a level of confidence, or None where nothing is settled.
    """

    winner: int
    rival: int
    level: float | None


def judge(readings: Readings, bounds: Bounds, level: float, rounding: float) -> Verdict:
    """Return what is settled.

    Args:
        readings: at least one of them valid.
        bounds: of the score of a tile for each pair.
        level: `PROOF`, or the confidence that is enough.
        rounding: share of the largest score by which a lead must exceed 0, as numbers are rounded.
    """
    estimate = readings.weights @ np.where(readings.valid[:, None], readings.scores, 0.0)
    winner = int(np.argmax(estimate))
    least = proven(readings, bounds, winner)
    others = np.arange(len(least)) != winner
    rival = int(np.argmin(np.where(others, least, np.inf)))
    enough = rounding * bounds.size[winner]
    if bool((least > enough)[others].all()):
        return Verdict(winner, rival, PROOF)
    clear = bool((estimate[winner] - estimate > enough)[others].all())
    if level < PROOF and clear and readings.drawn.any():
        needed = log_threshold(level, len(least))
        if all(refutation(readings, bounds, (winner, k), enough[k]) >= needed for k in np.flatnonzero(others).tolist()):
            return Verdict(winner, rival, level)
    return Verdict(winner, rival, None)


def proven(readings: Readings, bounds: Bounds, winner: int) -> Floats:
    """Return the least lead of a class over each in the whole sum, (classes,), whatever the unread tiles may show."""
    known = (readings.mass * readings.valid) @ np.where(readings.valid[:, None], readings.margins(winner), 0.0)
    return np.asarray(known + readings.unread * bounds.low[winner], np.float64)


def refutation(readings: Readings, bounds: Bounds, pair: tuple[int, int], claim: float) -> float:
    """Return the log wealth of the bet against "the first class leads the second in the sum by at most `claim`"."""
    return log_wealth(*_of_pair(readings, bounds, pair), claim)


def log_threshold(level: float, classes: int) -> float:
    """Return log(1/δ) for each of the tests that a wrong label would have to pass, one for each other class."""
    return math.log((classes - 1) / (1.0 - level))


def lead(readings: Readings, bounds: Bounds, pair: tuple[int, int], level: float) -> tuple[float, float]:
    """Return between which numbers the lead of one class over another lies in the whole sum.

    The upper one is certain; the lower one too with `PROOF`, and else holds with this confidence, whichever pair of
    classes is chosen after looking at the tiles: its threshold is that of all pairs, so it may be at most 0 where the
    label is settled.
    """
    winner, rival = pair
    least = float(proven(readings, bounds, winner)[rival])
    most = least + readings.unread * float(bounds.high[winner, rival] - bounds.low[winner, rival])
    if level < PROOF and readings.drawn.any():
        classes = len(bounds.low)
        threshold = log_threshold(level, classes) + math.log(classes)
        least = max(least, lower_bound(*_of_pair(readings, bounds, pair), threshold))
    return least, max(least, most)


def _of_pair(
    readings: Readings, bounds: Bounds, pair: tuple[int, int]
) -> tuple[Floats, Floats, NDArray[np.bool_], float]:
    """Return what `log_wealth` needs; a tile that failed counts as the worst there can be."""
    winner, rival = pair
    low = float(bounds.low[winner, rival])
    score = np.where(readings.valid, readings.margins(winner)[:, rival], low)
    return readings.mass, np.maximum(score, low), readings.drawn, low
