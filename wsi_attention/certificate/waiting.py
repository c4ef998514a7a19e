"""What has not been read: in the order of its attention, and in the order of chance (docs/certificate.md, "Drawing").

Chance is a race. A tile with attention a arrives after an exponential time with rate a, so that the next to arrive is a
draw without replacement in proportion to attention. The first arrival in a whole region with attention A has rate A:
the race runs before anybody knows what is in the region, and goes on inside once it is opened.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from wsi_attention.certificate.bounds import Floats

Numbers = NDArray[np.int64]
FIRST_GUESS = 0.5
"""The share that the first tile of a region is taken to have before any region was opened."""


class Waiting:
    """Tiles, and regions that are still closed, by number in the order in which they became known.

    Args:
        mass: (n,) attention of the first ones, above 0, sum 1.
        closed: which of them are regions.
        random: of the race.

    Attributes:
        mass: (m,) of all that are or were known.
        arrival: (m,) when each arrives; of a closed region, the first tile in it.
        closed: (m,) bool, which are regions that can be opened.
        dead: (m,) bool, which are regions that could not be opened, and stand for all their tiles.
    """

    def __init__(self, mass: Floats, closed: NDArray[np.bool_], random: Generator) -> None:
        self.mass, self.closed = np.asarray(mass, np.float64), closed.copy()
        self.arrival = random.standard_exponential(len(mass)) / self.mass
        self.dead = np.zeros(len(mass), np.bool_)
        self._here, self._random = np.ones(len(mass), np.bool_), random
        self._opened, self._peaks = 0, 0.0

    @property
    def numbers(self) -> Numbers:
        """Of all that waits, in increasing order."""
        return np.flatnonzero(self._here).astype(np.int64)

    def highest(self, n: int) -> Numbers:
        """Return the n that have most attention, highest first, of equals tiles before regions, then the first.

        A closed region stands for the one tile in it that is likely to have most; which share of the region that tile
        has is taken to be as in the regions that were opened.
        """
        waiting = self.numbers
        closed = self.closed[waiting]
        typical = self._peaks / self._opened if self._opened else FIRST_GUESS
        likely = self.mass[waiting] * np.where(closed, typical, 1.0)
        return waiting[np.lexsort((closed, -likely))[:n]]

    def earliest(self, n: int) -> Numbers:
        """Return the n that arrive first, in that order."""
        waiting = self.numbers
        return waiting[np.argsort(self.arrival[waiting], kind="stable")[:n]]

    def take(self, numbers: Numbers) -> None:
        """Strike off what is read now."""
        self._here[numbers] = False

    def open(self, region: int, mass: Floats | None, closed: bool) -> None:
        """Replace a closed region by what is in it; one of these arrives when the region would have, the rest later.

        Args:
            region: its number.
            mass: (k,) attention of what is in it, above 0; the sum is the region's. None where it could not be opened.
            closed: whether these are regions again.
        """
        self.closed[region] = False
        if mass is None:
            self.dead[region] = True
            return
        self._opened, self._peaks = self._opened + 1, self._peaks + float(mass.max() / mass.sum())
        first = int(self._random.choice(len(mass), p=mass / mass.sum()))
        arrival = self.arrival[region] + self._random.standard_exponential(len(mass)) / mass
        arrival[first] = self.arrival[region]
        self._here[region] = False
        self.mass = np.concatenate([self.mass, mass])
        self.arrival = np.concatenate([self.arrival, arrival])
        self.closed = np.concatenate([self.closed, np.full(len(mass), closed)])
        self.dead = np.concatenate([self.dead, np.zeros(len(mass), np.bool_)])
        self._here = np.concatenate([self._here, np.ones(len(mass), np.bool_)])
