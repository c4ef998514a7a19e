"""The certificate of a sum whose tiles are judged with their neighbours (docs/methods/grow.md §5).

Gates are positive, so that the label of Σ a_i ω_i x_i / Σ a_i ω_i is that of Σ a_i ω_i z_i, z_i being the logits of
tile i by itself. That is a sum over tiles with attention a_i known beforehand and scores ω_i z_i, which `certificate`
settles. A tile's score is known once its whole block was read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from wsi_attention.certificate.bounds import SPARE, Bounds, Calibration, Head, bounds_of
from wsi_attention.errors import TileReadError
from wsi_attention.geometry import Grid
from wsi_attention.methods.certifying import HALF_ROUNDING, ROUNDING, Floats, Prepared, head_of, read_until_settled
from wsi_attention.methods.grow.bag import TileBag
from wsi_attention.methods.grow.counting import Counts
from wsi_attention.methods.grow.neighbours import blocks
from wsi_attention.structures import Certificate

HELD = "what a tile of this model says at most"


class Overview(Protocol):
    """What the overview shows of a single image."""

    @property
    def attention(self) -> Tensor:
        """(1, K)."""
        ...

    @property
    def grid(self) -> Grid:
        """Of the K cells."""
        ...


class Shown(Protocol):
    """What tiles say: by what they are judged (1, n, d), log ω (1, n), which are valid (1, n)."""

    @property
    def seen(self) -> Tensor:
        """(1, n, d)."""
        ...

    @property
    def log_gate(self) -> Tensor:
        """(1, n)."""
        ...

    @property
    def valid(self) -> Tensor:
        """(1, n) bool."""
        ...


class Wish(NamedTuple):
    """What is wanted, and of what.

    Attributes:
        level: as in `protocols.Certifying`.
        budget: tiles that may be read.
        side: of a block.
        least: what no gate is below; 1 where there is none.
        most: what no tile says more than for each class over another, its gate included; empty where nothing holds it.
    """

    level: float
    budget: int
    side: int
    least: float
    most: Sequence[float] = ()


class Certified(NamedTuple):
    """What a certified reading leaves: what each tile of the bag stands for, and the certificate."""

    counts: Counts
    certificate: Certificate


def certify(
    overview: Overview,
    bag: TileBag,
    judge: Callable[[], Shown],
    classifier: nn.Module,
    wish: Wish,
    generator: Generator | None,
    calibration: tuple[Sequence[float], Sequence[float]] | None,
) -> Certified:
    """Read blocks of tiles until the label of the whole sum is settled or no further block fits the budget.

    Args:
        overview: of a single image.
        bag: without tiles; holds those that were read afterwards.
        judge: judges all tiles of the bag.
        classifier: linear.
        wish: what is wanted.
        generator: of what is drawn.
        calibration: as in `protocols.Certifying`.

    Raises:
        TileReadError: not one tile could be read.
    """
    model = prepared(classifier, calibration, wish.least, wish.most)
    population = Blocks(overview, bag, judge, model.head, wish.side)
    read = read_until_settled(population, model, wish.level, wish.budget // wish.side**2, generator)
    at = population.places(read.tiles)
    like, empty = overview.attention, overview.attention.new_zeros(1, len(bag))
    coefficients, chance = (
        empty.index_copy(1, at.to(like.device), values.to(like)) for values in (read.weights, read.chance)
    )
    return Certified(Counts(coefficients, chance), population.in_logits(read.certificate, read.tiles))


def prepared(
    classifier: nn.Module,
    calibration: tuple[Sequence[float], Sequence[float]] | None,
    least: float,
    most: Sequence[float] = (),
) -> Prepared:
    """Return the classifier, calibrated, and the bounds of ω·z for gates between `least` and 1 that may be held."""
    known = None if calibration is None else Calibration(*(np.asarray(one, np.float64) for one in calibration))
    head = head_of(classifier).calibrated(known)
    half = torch.is_autocast_enabled(next(classifier.parameters()).device.type)
    plain = bounds_of(head)
    low, high = np.minimum(plain.low, least * plain.low), np.maximum(plain.high, least * plain.high)
    bounds = Bounds(low, high, f"{plain.source}, times a gate from {least:.2g} to 1")
    narrow = within(bounds, np.asarray(most, np.float64), known) if len(most) else bounds
    return Prepared(head, narrow, HALF_ROUNDING if half else ROUNDING)


def within(bounds: Bounds, most: Floats, calibration: Calibration | None) -> Bounds:
    """Return bounds that are no wider than what a held tile can say (docs/methods/grow.md §5).

    ω·z of class c over k is at most most_c. Calibrated, it is s·ω·z + ω·(b_c - b_k), with a gate between 0 and 1.

    Args:
        bounds: (classes, classes), of calibrated scores with their gates.
        most: (classes,), of scores before calibration.
        calibration: with one factor for all classes; bounds stay as they are where factors differ.
    """
    scale, shift = calibration or (np.ones_like(most), np.zeros_like(most))
    if np.ptp(scale):
        return bounds
    high = scale[0] * most[:, None] * (1 + SPARE) + np.maximum(shift[:, None] - shift, 0.0)
    np.fill_diagonal(high, 0.0)
    return Bounds(np.maximum(bounds.low, -high.T), np.minimum(bounds.high, high), HELD)


class Blocks:
    """The cells of a map as a `certificate.reading.Population`; to read a tile is to read its block.

    Args:
        overview: of a single image.
        bag: where tiles are read into.
        judge: judges all tiles of the bag.
        head: the classifier, calibrated.
        side: of a block.
    """

    def __init__(self, overview: Overview, bag: TileBag, judge: Callable[[], Shown], head: Head, side: int) -> None:
        attention = overview.attention[0]
        self._shape, self._side = overview.grid.shape, side
        self._cells, self._tissue = attention.nonzero().flatten(), attention > 0
        mass = attention[self._cells].double().cpu().numpy()
        self._mass, self._bag, self._judge, self._head = mass / mass.sum(), bag, judge, head

    def known(self) -> tuple[Floats, bool]:
        """Return the attention of all cells, (m,)."""
        return self._mass, False

    def opened(self, regions: NDArray[np.int64]) -> list[tuple[Floats, bool] | None]:
        """Raise ValueError: there are no regions to open."""
        raise ValueError("cells of one map are tiles, not regions")

    def read(self, tiles: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_]]:
        """Return ω·z of each tile, (n, classes), and which tiles could be read."""
        chosen = self._cells[torch.from_numpy(tiles).to(self._cells.device)]
        around = blocks(chosen[None], self._shape, self._side).flatten()
        inside = around[around < len(self._tissue)]
        self._bag.read(self._bag.unread(torch.cat([chosen, inside[self._tissue[inside]]])[None]))
        try:
            return self._scores(tiles)
        except TileReadError:
            return np.zeros((len(tiles), len(self._head.bias))), np.zeros(len(tiles), np.bool_)

    def places(self, tiles: NDArray[np.int64]) -> Tensor:
        """Return where in the bag tiles of these numbers are."""
        chosen = self._cells[torch.from_numpy(tiles).to(self._cells.device)]
        place = torch.zeros(len(self._tissue), dtype=torch.int64, device=chosen.device)
        place[self._bag.cells[0]] = torch.arange(len(self._bag), device=chosen.device)
        return place[chosen]

    def in_logits(self, certificate: Certificate, tiles: NDArray[np.int64]) -> Certificate:
        """Return a certificate of Σ a_i ω_i z_i as one of the slide's logits, Σ a_i ω_i z_i / Σ a_i ω_i.

        The denominator is what was read of it, and at most the unread attention more.
        """
        _, gates, valid = self._shown(tiles)
        mass = self._mass[tiles] * valid
        least = float(mass @ gates)
        most = least + max(0.0, 1.0 - float(mass.sum()))
        low, high = certificate.lead
        lead = low / (most if low > 0 else least), high / (least if high > 0 else most)
        return replace(certificate, lead=lead)

    def _scores(self, tiles: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_]]:
        seen, gates, valid = self._shown(tiles)
        return self._head.scores(seen) * gates[:, None] * valid[:, None], valid

    def _shown(self, tiles: NDArray[np.int64]) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Return what the tiles are judged by (n, d), their gates (n,) and which are valid (n,)."""
        shown = self._judge()
        at = self.places(tiles).to(shown.seen.device)
        seen = np.asarray(shown.seen[0, at].double().cpu().numpy(), np.float64)
        gates = np.asarray(shown.log_gate[0, at].double().exp().cpu().numpy(), np.float64)
        return seen, gates, np.asarray(shown.valid[0, at.to(shown.valid.device)].cpu().numpy(), np.bool_)
