"""Populations small enough to enumerate every order in which tiles can be drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from wsi_attention.certificate.bounds import Bounds

Choice = Callable[[list[int]], int | None]
"""What was read so far -> the tile that is read next without chance, or None for a draw."""


def readings(
    mass: NDArray[np.float64], choose: Choice = lambda read: None
) -> Iterator[tuple[float, list[int], list[bool]]]:
    """Every way to read all tiles: its chance, the order, and which were drawn by mass from what was left."""

    def go_on(chance: float, read: list[int], drawn: list[bool]) -> Iterator[tuple[float, list[int], list[bool]]]:
        left = [tile for tile in range(len(mass)) if tile not in read]
        if not left:
            yield chance, read, drawn
            return
        chosen = choose(read)
        if chosen is not None:
            yield from go_on(chance, [*read, chosen], [*drawn, False])
            return
        for tile in left:
            yield from go_on(chance * mass[tile] / mass[left].sum(), [*read, tile], [*drawn, True])

    yield from go_on(1.0, [], [])


class Given:
    """A population whose scores are given; regions hold tiles where `inside` says so."""

    def __init__(
        self,
        mass: NDArray[np.float64],
        scores: NDArray[np.float64],
        inside: list[list[int]] | None = None,
        failing: set[int] | None = None,
        closed: set[int] | None = None,
    ) -> None:
        self.mass, self.scores = mass, scores
        self.inside, self.failing, self.closed = inside, failing or set(), closed or set()
        self.tiles = {} if inside else {number: number for number in range(len(mass))}
        self.read_tiles: list[int] = []
        self._next = len(inside or [])

    def known(self) -> tuple[NDArray[np.float64], bool]:
        if self.inside is None:
            return self.mass, False
        return np.array([self.mass[tiles].sum() for tiles in self.inside]), True

    def opened(self, regions: NDArray[np.int64]) -> list[tuple[NDArray[np.float64], bool] | None]:
        assert self.inside is not None
        found: list[tuple[NDArray[np.float64], bool] | None] = []
        for region in regions.tolist():
            if region in self.closed:
                found.append(None)
                continue
            for tile in self.inside[region]:
                self.tiles[self._next] = tile
                self._next += 1
            found.append((self.mass[self.inside[region]], False))
        return found

    def read(self, tiles: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        which = [self.tiles[number] for number in tiles.tolist()]
        self.read_tiles += which
        return self.scores[which], np.array([tile not in self.failing for tile in which])


def two_classes(margin: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores (n, 2) whose first class leads by these margins."""
    return np.stack([margin, np.zeros_like(margin)], axis=1)


def within(low: float, high: float) -> Bounds:
    """Bounds of two classes: the first leads the second by low to high."""
    return Bounds(np.array([[0.0, low], [-high, 0.0]]), np.array([[0.0, high], [-low, 0.0]]), "given")
