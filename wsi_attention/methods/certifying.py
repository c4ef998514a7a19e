"""For models whose label is that of a sum over all tiles: from networks to the numbers of a certificate, and back.

docs/certificate.md has the mathematics; `wsi_attention.certificate` does it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator as Chance
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from wsi_attention.certificate.bounds import Bounds, Calibration, Head, bounds_of
from wsi_attention.certificate.reading import Goal, Population, Settled, settle
from wsi_attention.certificate.verdict import PROOF, lead
from wsi_attention.errors import InputError, TileReadError
from wsi_attention.methods.rounds import seeded
from wsi_attention.nn.blocks import Encoder
from wsi_attention.nn.heads import ScaledLinear
from wsi_attention.protocols import Aim, Certifying
from wsi_attention.structures import Certificate, TileSet
from wsi_attention.targets.one_label import KIND

Floats = NDArray[np.float64]
ROUNDING, HALF_ROUNDING = 1e-5, 1e-2
"""Share of the largest score by which a lead must exceed 0: in float32, and where autocast rounds to bfloat16."""


def uncertifiable(encoder: nn.Module | None, classifier: nn.Module, target: Aim) -> str:
    """Say why there is no label to certify, or why nothing bounds what a tile can say; empty where it can be done.

    Args:
        encoder: of tiles.
        classifier: of their sum.
        target: what the logits mean.
    """
    if target.kind != KIND:
        return f"it was asked for {target.kind}, and a certificate is about the one label of several that leads"
    if not isinstance(classifier, ScaledLinear | nn.Linear):
        return "its classifier is not linear, so that nothing bounds what an unread tile can say"
    if not isinstance(encoder, Encoder):
        return "its encoder does not promise features of length 1, so that nothing bounds what an unread tile can say"
    return ""


def check_certifiable(model: Certifying, level: float, budget: int, least: int = 1) -> None:
    """Raise InputError unless the model gives certificates and the wishes make sense; see `check_level`."""
    if model.uncertifiable:
        raise InputError(f"{model.uncertifiable}: no label of it can be certified")
    check_level(level, budget, least)


def check_level(level: float, budget: int, least: int = 1) -> None:
    """Raise InputError unless a level and a budget make sense.

    Args:
        level: `PROOF`, or a confidence.
        budget: tiles that may be asked for.
        least: what it takes to read a single tile.
    """
    if not 0.5 < level <= PROOF:
        raise InputError(f"certify is a proof, or a confidence above 0.5 and below 1 such as 0.99; got {level:g}")
    if budget < least:
        raise InputError(f"a budget of {budget} tiles certifies nothing; give at least {least}")


@torch.no_grad()
def head_of(classifier: nn.Module) -> Head:
    """Return the weights of a linear classifier.

    Raises:
        InputError: it is not linear.
    """
    if isinstance(classifier, ScaledLinear):
        scale = float(classifier.log_scale.exp())
        return Head(scale * _array(classifier.linear.weight), _array(classifier.bias))
    if not isinstance(classifier, nn.Linear):
        raise InputError("only a linear classifier can be certified")
    weight = _array(classifier.weight)
    return Head(weight, np.zeros(len(weight)) if classifier.bias is None else _array(classifier.bias))


class Prepared(NamedTuple):
    """What certifying needs of a model.

    Attributes:
        head: the classifier, calibrated.
        bounds: of what a tile can say.
        rounding: share of the largest score that rounding may hide.
    """

    head: Head
    bounds: Bounds
    rounding: float


def prepared(
    encoder: nn.Module | None, classifier: nn.Module, calibration: tuple[Sequence[float], Sequence[float]] | None
) -> Prepared:
    """Return what certifying needs of a model that is not `uncertifiable`; arguments as in `protocols.Certifying`."""
    known = None if calibration is None else Calibration(*(np.asarray(one, np.float64) for one in calibration))
    head = head_of(classifier).calibrated(known)
    kind = next(classifier.parameters()).device.type
    half = torch.is_autocast_enabled(kind)
    directions = encoder.directions() if isinstance(encoder, Encoder) and not half else None
    bounds = bounds_of(head, None if directions is None else _array(directions))
    return Prepared(head, bounds, HALF_ROUNDING if half else ROUNDING)


def chance_of(generator: Generator | None) -> Chance:
    """Return numpy's generator with a seed that is drawn from torch's; a fixed one where None."""
    return np.random.default_rng(int(torch.randint(2**62, (1,), generator=seeded(generator))))


class Read(NamedTuple):
    """What a certified reading leaves.

    Attributes:
        tiles: (n,) numbers in the population, in the order of reading; regions that failed whole are among them.
        weights: (1, n) of each in the estimate, sum 1; 0 where one failed.
        chance: (1, n) in [0, 1], for the standard error (`attention.spread.jackknife_error`); 0 without a draw.
        valid: (1, n) bool.
        certificate: what is settled.
    """

    tiles: NDArray[np.int64]
    weights: Tensor
    chance: Tensor
    valid: Tensor
    certificate: Certificate


def read_until_settled(
    population: Population, model: Prepared, level: float, budget: int, generator: Generator | None
) -> Read:
    """Read until the label is settled, and say how far it is.

    Args:
        population: all tiles.
        model: whose label it is.
        level: `PROOF`, or a confidence that is enough.
        budget: tiles and views of regions that may be asked for.
        generator: of what is drawn; a fixed seed where None.

    Raises:
        TileReadError: not one tile could be read.
    """
    settled = settle(population, model.bounds, Goal(level, budget, model.rounding), chance_of(generator))
    readings = settled.readings
    if not readings.valid.any():
        raise TileReadError(f"none of the {settled.asked} tiles that attention asked for could be read")
    weights = readings.weights
    drawn = readings.drawn & readings.valid
    by_chance = readings.unread / max(int(drawn.sum()), 1)
    chance = np.where(drawn, (by_chance / np.where(weights > 0, weights, 1.0)) ** 2, 0.0)
    return Read(
        settled.tiles,
        torch.from_numpy(weights)[None],
        torch.from_numpy(chance)[None],
        torch.from_numpy(readings.valid)[None],
        certificate_of(settled, model.bounds, level),
    )


class Cells:
    """The cells of one attention map as a `Population`: all are known at first, and each is a tile.

    Args:
        attention: (K,) of all cells.
        tiles_of: flat cells (1, n) -> their tiles.
        encode: tiles (1, n) -> features (1, n, d), None where no tile could be read, and which could, (1, n) bool.
        head: the classifier.

    Attributes:
        cells: (m,) flat cells with attention, in the order of their numbers.
    """

    def __init__(
        self,
        attention: Tensor,
        tiles_of: Callable[[Tensor], TileSet],
        encode: Callable[[TileSet], tuple[Tensor | None, Tensor]],
        head: Head,
    ) -> None:
        self.cells = attention.nonzero().flatten()
        mass = _array(attention[self.cells])
        self._mass, self._tiles_of, self._encode, self._head = mass / mass.sum(), tiles_of, encode, head
        self._features: list[Tensor | None] = []
        self._counts: list[int] = []

    def known(self) -> tuple[Floats, bool]:
        """Return the attention of all cells, (m,)."""
        return self._mass, False

    def opened(self, regions: NDArray[np.int64]) -> list[tuple[Floats, bool] | None]:
        """Raise ValueError: there are no regions to open."""
        raise ValueError("cells of one map are tiles, not regions")

    def read(self, tiles: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the logits of each tile by itself, and which tiles could be read."""
        chosen = self.cells[torch.from_numpy(tiles).to(self.cells.device)]
        features, valid = self._encode(self._tiles_of(chosen[None]))
        self._features.append(features)
        self._counts.append(len(tiles))
        scores = np.zeros((len(tiles), len(self._head.bias)))
        return (scores if features is None else self._head.scores(_array(features[0]))), valid[0].cpu().numpy()

    def features(self) -> Tensor:
        """Return those of all that was read, (1, n, d), in the order of reading; at least one tile could be."""
        known = next(one for one in self._features if one is not None)
        parts = [
            known.new_zeros(1, n, known.shape[-1]) if one is None else one
            for one, n in zip(self._features, self._counts, strict=True)
        ]
        return torch.cat(parts, dim=1)


def certificate_of(settled: Settled, bounds: Bounds, level: float) -> Certificate:
    """Return what is settled, in numbers; `settled` has a verdict."""
    verdict, readings = settled.verdict, settled.readings
    if verdict is None:
        raise ValueError("nothing was read")
    pair = verdict.winner, verdict.rival
    low, high = lead(readings, bounds, pair, verdict.level or level)
    return Certificate(
        level=verdict.level,
        classes=pair,
        lead=(low if verdict.level is None else max(low, 0.0), high),  # a settled label says itself that it leads
        score=(float(bounds.low[pair]), float(bounds.high[pair])),
        score_source=bounds.source,
        tiles=int(readings.valid.sum()),
        drawn=int((readings.drawn & readings.valid).sum()),
        failed=int((~readings.valid).sum()),
    )


def all_read(mean: Tensor, model: Prepared, share: float, tiles: int, failed: int) -> Certificate:
    """Return the certificate of a sum of which all tiles were read, except those that could not be.

    Args:
        mean: (1, d) mean feature of the tiles that were read.
        model: whose label it is.
        share: the most attention that the others could have, in [0, 1].
        tiles: how many were read.
        failed: how many could not be.
    """
    (scores,), low, high = model.head.scores(_array(mean)), model.bounds.low, model.bounds.high
    winner = int(np.argmax(scores))
    margin = scores[winner] - scores
    least = np.minimum(margin, margin + share * (low[winner] - margin))
    most = np.maximum(margin, margin + share * (high[winner] - margin))
    others = np.arange(len(scores)) != winner
    rival = int(np.argmin(np.where(others, least, np.inf)))
    proven = bool((least > model.rounding * model.bounds.size[winner])[others].all())
    return Certificate(
        level=PROOF if proven else None,
        classes=(winner, rival),
        lead=(float(least[rival]), float(most[rival])),
        score=(float(low[winner, rival]), float(high[winner, rival])),
        score_source=model.bounds.source,
        tiles=tiles,
        drawn=0,
        failed=failed,
    )


def _array(values: Tensor) -> Floats:
    return np.asarray(values.detach().double().cpu().numpy(), np.float64)
