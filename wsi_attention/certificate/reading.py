"""Read on until the label of the whole sum is settled: which tile comes next, and when to stop.

No choice made here can make a certificate wrong (docs/certificate.md): which tile is read next may depend on all that
was read before. It only decides how soon one is found.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from wsi_attention.certificate.bounds import Bounds, Floats
from wsi_attention.certificate.verdict import PROOF, Readings, Verdict, judge, log_threshold, refutation
from wsi_attention.certificate.waiting import Numbers, Waiting
from wsi_attention.errors import ModelError

LARGEST_ROUND = 64
"""Tiles that are asked for at once, at most; before that, half as many as were read, so that few are read in vain."""


class Population(Protocol):
    """All tiles of a slide with their attention, and the reading of them."""

    def known(self) -> tuple[Floats, bool]:
        """Return the attention of all that is known at first (n,), above 0, sum 1; and whether these are regions."""
        ...

    def opened(self, regions: Numbers) -> list[tuple[Floats, bool] | None]:
        """Look into closed regions; return the attention of what is in each, and whether these are regions again.

        What is in them gets the next numbers, region after region; None for a region that could not be looked into.
        """
        ...

    def read(self, tiles: Numbers) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the logits of each tile by itself (n, classes), and which tiles could be read (n,)."""
        ...


class Settled(NamedTuple):
    """What was read until something was settled, or until the end.

    Attributes:
        tiles: (n,) numbers of what was read, in the order of reading; closed regions that failed among them.
        readings: of these.
        verdict: None where nothing could be read.
        asked: tiles and views of regions that were asked for, all in all.
    """

    tiles: Numbers
    readings: Readings
    verdict: Verdict | None
    asked: int


class Goal(NamedTuple):
    """What settles it, and what it may cost.

    Attributes:
        level: `PROOF`, or a confidence above 0.5 and below 1.
        budget: tiles and views of regions that may be asked for.
        rounding: see `verdict.judge`.
    """

    level: float
    budget: int
    rounding: float


def settle(population: Population, bounds: Bounds, wanted: Goal, random: Generator) -> Settled:
    """Read until the label of the whole sum is settled, the budget is used up, or all is read.

    Raises:
        ModelError: a tile has a score that the bounds exclude.
    """
    reader = _Reader(population, len(bounds.low), wanted.budget, random)
    verdict: Verdict | None = None
    while reader.more and (verdict is None or verdict.level is None):
        reader.read(*_plan(reader, bounds, wanted, verdict))
        if reader.readings.valid.any():
            _check(reader.readings, bounds, wanted.rounding)
            verdict = judge(reader.readings, bounds, wanted.level, wanted.rounding)
    return Settled(reader.tiles, reader.readings, verdict, reader.asked)


class _Reader:
    """Reads the tiles that are next, and keeps count."""

    def __init__(self, population: Population, classes: int, budget: int, random: Generator) -> None:
        mass, closed = population.known()
        self._population, self._budget, self.asked, self._cut = population, budget, 0, False
        self.waiting = Waiting(mass, np.full(len(mass), closed), random)
        nothing = np.zeros(0, np.bool_)
        self.readings = Readings(np.zeros(0), np.zeros((0, classes)), nothing, nothing)
        self.tiles = np.zeros(0, np.int64)

    @property
    def left(self) -> int:
        """Tiles that may still be asked for."""
        return self._budget - self.asked

    @property
    def more(self) -> bool:
        """Whether there is something to read, and leave to read it."""
        return not self._cut and self.left > 0 and len(self.waiting.numbers) > 0

    def read(self, n: int, drawing: bool) -> None:
        """Read up to n tiles: the next draws, or those with the highest attention."""
        tiles = self._next(n, drawing)
        if not len(tiles):
            return
        dead = self.waiting.dead[tiles]
        scores, valid = np.zeros((len(tiles), self.readings.scores.shape[1])), np.zeros(len(tiles), np.bool_)
        if not dead.all():
            scores[~dead], valid[~dead] = self._population.read(tiles[~dead])
            self.asked += int((~dead).sum())
        self.waiting.take(tiles)
        before, drawn = self.readings, np.full(len(tiles), drawing)
        new = self.waiting.mass[tiles], scores, valid, drawn
        self.readings = Readings(*(np.concatenate(both) for both in zip(before, new, strict=True)))
        self.tiles = np.concatenate([self.tiles, tiles])

    def _next(self, n: int, drawing: bool) -> Numbers:
        """Return the next tiles; regions that stand among them are opened first, as far as the budget goes.

        A round that the budget cuts short is the last one: regions have been opened then whose draw will not be read,
        and who knows that they would have come next cannot call later draws random.
        """
        choose = self.waiting.earliest if drawing else self.waiting.highest
        while True:
            if n > self.left:
                n, self._cut = self.left, True
            chosen = choose(n)
            regions = chosen[self.waiting.closed[chosen]]
            if not len(regions):
                return chosen
            self.asked += len(regions)
            for region, inside in zip(regions.tolist(), self._population.opened(regions), strict=True):
                self.waiting.open(region, *(inside or (None, False)))


class _Course(NamedTuple):
    """How the closest pair stands: its known lead, what a usual tile adds to it, and the least that one can."""

    known: float
    usual: float
    low: float
    enough: float


def _plan(reader: _Reader, bounds: Bounds, wanted: Goal, verdict: Verdict | None) -> tuple[int, bool]:
    """Return how many tiles to read next, and whether to draw them: a guess at what settles the closest pair first."""
    most = max(1, min(LARGEST_ROUND, len(reader.readings.mass) // 2))
    if verdict is None:
        return most, False
    pair = verdict.winner, verdict.rival
    course = _course(reader.readings, bounds, pair, wanted)
    proof = _tiles_of_proof(reader, course)
    if wanted.level == PROOF:
        return _within(proof, most), False
    missing = log_threshold(wanted.level, len(bounds.low)) - refutation(reader.readings, bounds, pair, course.enough)
    draws = _draws(reader, course, missing)
    return (_within(draws, most), True) if draws < proof or math.isinf(proof) else (_within(proof, most), False)


def _within(guess: float, most: int) -> int:
    return most if guess >= most else max(1, math.ceil(guess))


def _course(readings: Readings, bounds: Bounds, pair: tuple[int, int], wanted: Goal) -> _Course:
    """Return how a pair stands; a usual tile is the mean of those drawn, where some were, or else of those read."""
    margins = readings.margins(pair[0])[:, pair[1]]
    random = readings.valid & readings.drawn
    shares = np.where(random if random.any() else readings.valid, np.where(random, 1.0, readings.mass), 0.0)
    usual = float((margins * shares).sum() / shares.sum())
    known = float((readings.mass * margins)[readings.valid].sum())
    return _Course(known, usual, float(bounds.low[pair]), wanted.rounding * float(bounds.size[pair]))


def _tiles_of_proof(reader: _Reader, course: _Course) -> float:
    """Return how many tiles a proof would take if the next ones were as usual; infinity where none would do."""
    waiting = reader.waiting
    mass = np.cumsum(waiting.mass[waiting.highest(reader.left)])
    least = course.known + mass * course.usual + np.maximum(reader.readings.unread - mass, 0.0) * course.low
    enough = np.flatnonzero(least > course.enough)
    return float(enough[0]) + 1 if len(enough) else math.inf


def _draws(reader: _Reader, course: _Course, missing: float) -> float:
    """Return how many draws would win what is missing if each were as usual; infinity where none would do."""
    expected = (course.enough - course.known) / max(reader.readings.unread, 1e-12) - course.low
    if expected <= 0:
        return 0.0
    growth = math.log(max(course.usual - course.low, 1e-12) / expected)
    return max(missing, 0.0) / growth if growth > 0 else math.inf


def _check(readings: Readings, bounds: Bounds, rounding: float) -> None:
    """Raise ModelError where a tile says more than the bounds allow: a feature is longer than it is said to be."""
    scores = readings.scores[readings.valid]
    pairs = scores[:, :, None] - scores[:, None, :]
    beyond = float((pairs - bounds.high).max())
    if beyond > max(1e-4, rounding) * float(bounds.size.max()):
        raise ModelError(
            f"a tile's score exceeds the bound of the certificate by {beyond:.3g}: the encoder's features are not of"
            " length 1, as they are said to be; no label can be certified"
        )
