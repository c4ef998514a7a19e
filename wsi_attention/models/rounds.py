"""What models that estimate a sum share: reading every tile in parts, draws in rounds, and when to stop."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wsi_attention.attention.spread import jackknife_error, leave_one_out
from wsi_attention.errors import InputError, TileReadError
from wsi_attention.nn.bags import encode
from wsi_attention.protocols import TileSource
from wsi_attention.structures import TileSet

PART = 256
"""Tiles whose pixels are in memory at once where all tiles of a slide are read."""
LEAST_ROUNDS = 2
"""Rounds before the standard error is believed; one small round can agree with itself by chance."""


class Rounds:
    """Independent rounds of draws as one bag: F = Σ w_j f_j / Σ w_j over the draws of all rounds, and its error.

    Every round has the same total weight on average, so F is the mean of the rounds for weights that sum to 1, and a
    ratio of sums otherwise: dividing by each round's own Σ w, the bias of order one over the draws of a single round
    would stay, however many rounds there are.

    An entry is what was drawn independently of the others: a tile, or all that was read below it.
    """

    def __init__(self) -> None:
        self._features: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._chance: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._features)

    def add(self, features: Tensor, weights: Tensor, chance: Tensor) -> None:
        """Takes a round in.

        Args:
            features: (b, n, d) of the entries; b and d the same in each round.
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
        """(b, d), the estimate so far."""
        features = torch.cat(self._features, dim=1)
        return mean_of(features, self.weights)

    def spread(self, classifier: nn.Module) -> Tensor:
        """(b,) standard error of the winning class's probability, from all draws of all rounds."""
        return spread_of(classifier, torch.cat(self._features, dim=1), self.weights, torch.cat(self._chance, dim=1))

    def enough(self, spread: Tensor, tolerance: float) -> bool:
        """Whether to stop: an error of 0 is final, another one counts from round `LEAST_ROUNDS` on."""
        return enough(spread, tolerance, len(self))


def enough(spread: Tensor, tolerance: float, rounds: int) -> bool:
    """Whether the standard error (b,) after so many rounds is a reason to stop."""
    worst = float(spread.max())
    return worst == 0.0 or (rounds >= LEAST_ROUNDS and worst <= tolerance)


def mean_of(features: Tensor, weights: Tensor) -> Tensor:
    """Σ w_j f_j / Σ w_j, (b, d), summed in double precision and given in the features' own.

    Args:
        features: (b, n, d).
        weights: (b, n), non-negative, above 0 somewhere in each row.
    """
    share = weights.double() / weights.double().sum(dim=-1, keepdim=True)
    return (share.unsqueeze(1) @ features.double()).squeeze(1).to(features.dtype)


@torch.no_grad()
def spread_of(classifier: nn.Module, features: Tensor, weights: Tensor, chance: Tensor) -> Tensor:
    """Standard error (b,) of the winning class's probability, by the jackknife over the entries of a bag.

    Args:
        classifier: (..., d) -> (..., classes).
        features: (b, n, d).
        weights: (b, n), 0 where an entry failed.
        chance: (b, n), as in `attention.spread.jackknife_error`.
    """
    weights = weights.to(features.dtype)
    probabilities = classifier(mean_of(features, weights)).float().softmax(dim=-1)
    best = probabilities.argmax(dim=-1, keepdim=True)
    without = leave_one_out(features, weights)
    each = classifier(without).float().softmax(dim=-1).gather(-1, best[:, None].expand(-1, without.shape[1], -1))
    return jackknife_error(each.squeeze(-1), probabilities.gather(-1, best).squeeze(-1), chance)


def read_in_parts(
    source: TileSource, tiles: TileSet, preprocess: nn.Module, encoder: nn.Module, part: int = PART
) -> tuple[Tensor, Tensor]:
    """Features (b, n, d) of any number of tiles, zeros where one failed, and which are valid (b, n).

    Pixels of `part` tiles are in memory at a time; only features are kept.

    Raises:
        TileReadError: not one tile of some image could be read.
    """
    found: list[Tensor | None] = []
    valid: list[Tensor] = []
    for start in range(0, len(tiles), part):
        batch = source.read(tiles.select(slice(start, start + part)))
        valid.append(batch.valid)
        found.append(encode(batch, preprocess, encoder) if bool(batch.valid.any()) else None)
    real = torch.cat(valid, dim=1)
    if not bool(real.any(dim=-1).all()):
        raise TileReadError(f"none of the {len(tiles)} tiles that were asked for could be read")
    some = next(features for features in found if features is not None)
    parts = [
        some.new_zeros(*good.shape, some.shape[-1]) if features is None else features
        for features, good in zip(found, valid, strict=True)
    ]
    return torch.cat(parts, dim=1), real.to(some.device)


def check_one_image(source: TileSource) -> None:
    """Exact sums and stopping are for one image at a time.

    Raises:
        InputError: the source holds several.
    """
    if source.batch != 1:
        raise InputError(f"one image at a time can be looked at exactly or until it is certain, got {source.batch}")


def check_limits(tolerance: float, budget: int, draws: int) -> None:
    """Whether a tolerance and a budget make sense for rounds of so many draws.

    Raises:
        InputError: one does not.
    """
    if not (math.isfinite(tolerance) and 0 < tolerance < 1):
        raise InputError(f"tolerance is a standard error of a probability, above 0 and below 1; got {tolerance}")
    if budget < draws:
        raise InputError(f"budget {budget} is less than the {draws} tiles of one round; give at least {draws}")
