"""For models that estimate a sum over all cells: read tiles in parts, draw in rounds, and know when to stop."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from wsi_attention.attention.expectation import DrawnCells, counted, unread_mass, without_failed
from wsi_attention.attention.sampling import Draw, available, first_of
from wsi_attention.attention.spread import jackknife_error, leave_one_out
from wsi_attention.errors import InputError
from wsi_attention.methods.outputs import require_tiles
from wsi_attention.methods.reading import encoded, joined
from wsi_attention.nn.preprocess import in_float32
from wsi_attention.protocols import Aim, Estimating, TileSource
from wsi_attention.structures import TileSet
from wsi_attention.targets.one_label import OneLabel

PART = 256
"""Tiles whose pixels are in memory at once where all tiles of a slide are read."""
ONE_LABEL = OneLabel()
UNKNOWN = ONE_LABEL.unknown
"""The standard error of a probability that rests on one draw: as large as that of a probability can be."""
LEAST_ROUNDS = 2
"""Rounds before the standard error is believed; one small round can agree with itself by chance."""
EVAL_SEED = 0
"""Seeds the draws in eval mode where the caller passes no generator."""


def seeded(generator: Generator | None) -> Generator:
    """Return the generator of draws in eval mode: the caller's, or a fresh one with a fixed seed."""
    return generator or Generator().manual_seed(EVAL_SEED)


class Rounds:
    """Independent rounds of draws as one bag: F = Σ w_j f_j / Σ w_j over the draws of all rounds, and its error.

    Where the weights of a round sum to 1, F is the mean of the rounds. Where they do so only on average, F is a ratio
    of sums: if each round were divided by its own Σ w, the bias of a single round, of the order of one over its draws,
    would stay, however many rounds there are.

    An entry is what was drawn independently of the others: a tile, or all that was read inside a region.

    Args:
        target: what the logits mean.
    """

    def __init__(self, target: Aim = ONE_LABEL) -> None:
        self._target = target
        self._features: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._chance: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._features)

    def add(self, features: Tensor, weights: Tensor, chance: Tensor) -> None:
        """Add a round.

        Args:
            features: (b, n, d) of the entries; b and d are the same in each round.
            weights: (b, n) coefficients, not scaled to sum 1 (see above); 0 where an entry failed.
            chance: (b, n) in [0, 1], as in `attention.spread.jackknife_error`; 0 where an entry failed.
        """
        self._features.append(features.detach())
        self._weights.append(weights.detach())
        self._chance.append(chance.detach())

    @property
    def weights(self) -> Tensor:
        """(b, n) of all rounds, in the order they were added, scaled to sum 1."""
        weights = torch.cat(self._weights, dim=1)
        return weights / weights.sum(dim=-1, keepdim=True)

    @property
    def mean(self) -> Tensor:
        """The estimate so far, (b, d)."""
        features = torch.cat(self._features, dim=1)
        return mean_of(features, self.weights)

    def spread(self, classifier: nn.Module) -> Tensor:
        """Return the standard error of the winning class's probability, (b,), from all draws of all rounds."""
        features, chance = torch.cat(self._features, dim=1), torch.cat(self._chance, dim=1)
        return spread_of(classifier, features, self.weights, chance, self._target)


class Limits(NamedTuple):
    """When reading may stop before the budget is used up: both limits must be met.

    A small standard error alone is no reason to stop: where no draw has shown a lesion, all draws agree.

    Attributes:
        tolerance: the most that the standard error of the winning class's probability may be.
        unread: the most attention mass that may lie on tiles that were not read. A slide's feature is the mean of its
            tiles', weighted by attention, and those have length 1: what was not read moves it by at most 2·unread.
    """

    tolerance: float
    unread: float

    def met(self, spread: Tensor, unread: Tensor, rounds: int) -> bool:
        """Return True where both limits are met for every image.

        Args:
            spread: (b,) standard error; NaN where no chance is left, which meets every limit.
            unread: (b,) attention mass that was not read.
            rounds: how many there were.
        """
        certain = spread.isnan() | ((spread <= self.tolerance) & (unread <= self.unread) & (rounds >= LEAST_ROUNDS))
        return bool(certain.all())


def limits(tolerance: float, unread: float | None, budget: int, draws: int) -> Limits:
    """Return checked limits.

    Args:
        tolerance: see `Limits`.
        unread: see `Limits`; the tolerance where None.
        budget: tiles that may be read.
        draws: tiles of one round.

    Raises:
        InputError: they make no sense for rounds of so many draws.
    """
    check_limits(tolerance, budget, draws)
    if unread is not None and not 0 <= unread <= 1:
        raise InputError(f"unread is a share of the attention, between 0 and 1; got {unread}")
    return Limits(tolerance, tolerance if unread is None else unread)


def mean_of(features: Tensor, weights: Tensor) -> Tensor:
    """Return Σ w_j f_j / Σ w_j, (b, d), summed in double precision; the result has the features' precision.

    Args:
        features: (b, n, d).
        weights: (b, n), non-negative, above 0 somewhere in each row.
    """
    share = weights.double() / weights.double().sum(dim=-1, keepdim=True)
    return (share.unsqueeze(1) @ features.double()).squeeze(1).to(features.dtype)


@torch.no_grad()
def spread_of(
    classifier: nn.Module, features: Tensor, weights: Tensor, chance: Tensor, target: Aim = ONE_LABEL
) -> Tensor:
    """Return the standard error (b,) of the winning class's probability, by the jackknife over the entries of a bag.

    NaN where nothing was drawn at random; `target.unknown` where a single entry was drawn, as no other can contradict
    it.

    Args:
        classifier: (..., d) -> (..., classes).
        features: (b, n, d).
        weights: (b, n), 0 where an entry failed.
        chance: (b, n), as in `attention.spread.jackknife_error`.
        target: what the logits mean; the error is of the greatest number of its headline.
    """
    numbers = target.headline(target.read(in_float32(classifier, mean_of(features, weights))))
    best = numbers.argmax(dim=-1, keepdim=True)
    without = leave_one_out(features, weights)
    every = target.headline(target.read(in_float32(classifier, without)))
    each = every.gather(-1, best[:, None].expand(-1, without.shape[1], -1))
    error = jackknife_error(each.squeeze(-1), numbers.gather(-1, best).squeeze(-1), chance)
    alone = ((weights > 0).sum(dim=-1) == 1) & ~error.isnan()
    return error.masked_fill(alone, target.unknown)


class Reading:
    """Finds the features of tiles from the first to the last, as far as is asked for, part by part (`encoded`).

    Args:
        source: where the pixels come from.
        tiles: all that may be asked for, in order.
        preprocess: (m, c, h, w) pixels of any dtype -> floats on the model's device.
        encoder: (m, c, h, w) -> (m, d).
        part: tiles whose pixels are in memory at once.
    """

    def __init__(
        self, source: TileSource, tiles: TileSet, preprocess: nn.Module, encoder: nn.Module, part: int = PART
    ) -> None:
        self._source, self._tiles, self._part = source, tiles, part
        self._preprocess, self._encoder = preprocess, encoder
        self._found: list[tuple[Tensor | None, Tensor]] = []
        self._read = 0

    def first(self, n: int) -> tuple[Tensor, Tensor]:
        """Return the features (b, n, d) of the first n tiles, zeros where one failed, and which are valid (b, n).

        What was read before is not read again; n must not be smaller than in the call before.

        Raises:
            TileReadError: not one of these tiles could be read for some image.
        """
        while self._read < n:
            end = min(n, self._read + self._part)
            part = self._tiles.select(slice(self._read, end))
            self._found.append(encoded(self._source, part, self._preprocess, self._encoder))
            self._read = end
        features, valid = joined(self._found)
        require_tiles(valid)
        assert features is not None
        return features, valid.to(features.device)


def read_until(
    reading: Reading,
    attention: Tensor,
    draw: Draw,
    classifier: nn.Module,
    draws: int,
    until: Limits,
    target: Aim = ONE_LABEL,
) -> tuple[DrawnCells, Tensor, Tensor]:
    """Read one long draw without replacement, `draws` more tiles a round, until the limits are met.

    The first n cells of a Gumbel-top-k draw are a draw of n, so each round's estimate is what n draws from the start
    would have given, with the normalised threshold rule. Averaging independent rounds instead would read the cells with
    much attention again and again, keep the bias of a single round, and never come to an end; here no tile is read
    twice, and with all cells read the sum is exact. The error alone is not enough to stop: with one decisive tile in
    fifty under flat attention, two rounds of 32 show none in a quarter of all runs, and look certain (`Limits`).

    The error is the jackknife's over all tiles so far: from the means of two or three rounds it could not be estimated.
    Stopping where it looks small favours rounds where it is too small, so that intervals cover a little less often than
    without stopping, more so for a large tolerance (figures in tests/methods/test_rounds.py).

    Args:
        reading: of the cells of the draw, in its order.
        attention: (1, K) that they were drawn from.
        draw: as many cells as may be read.
        classifier: (..., d) -> (..., classes).
        draws: cells a round; the last one may have fewer.
        until: when to stop.
        target: what the logits mean.

    Returns:
        cells, coefficients and chances (1, n) of what was read, 0 where a tile failed; features (1, n, d); which tiles
        are valid (1, n).
    """
    most = draw.cells.shape[-1]
    for done in range(1, math.ceil(most / draws) + 1):
        n = min(done * draws, most)
        features, valid = reading.first(n)
        drawn = counted(attention, first_of(draw, n), "normalised-threshold")
        drawn = drawn._replace(coefficients=without_failed(drawn.coefficients, valid), chance=drawn.chance * valid)
        spread = spread_of(classifier, features, drawn.coefficients, drawn.chance, target)
        if until.met(spread, unread_mass(attention, drawn.cells, valid), done):
            break
    return drawn, features, valid


def most_tiles(attention: Tensor, draws: int, budget: int) -> int:
    """Return how many different cells whole rounds of so many draws can read; all where the budget allows it.

    Args:
        attention: (1, K).
        draws: cells a round.
        budget: tiles.
    """
    cells = int(available(attention))
    return cells if cells <= budget else budget - budget % draws


def check_quantity(model: Estimating) -> None:
    """Raise InputError unless the model's prediction estimates the sum that `exact` and `until` are about."""
    if model.other_quantity:
        raise InputError(refusal(model))


def refusal(model: Estimating) -> str:
    """Say why a model of another quantity gives no exact sum."""
    return f"{model.other_quantity}: exact and tolerance are for models that predict from random draws"


def check_one_image(source: TileSource) -> None:
    """Raise InputError unless the source holds a single image, as exact sums and stopping need."""
    if source.batch != 1:
        raise InputError(f"one image at a time can be looked at exactly or until it is certain, got {source.batch}")


def check_limits(tolerance: float, budget: int, draws: int) -> None:
    """Raise InputError unless a tolerance and a budget make sense for rounds of so many draws."""
    if not (math.isfinite(tolerance) and 0 < tolerance < 1):
        raise InputError(f"tolerance is a standard error of a probability, above 0 and below 1; got {tolerance}")
    if budget < draws:
        raise InputError(f"budget {budget} is less than the {draws} tiles of one round; give at least {draws}")
