"""Several models of one method as one: the mean of their probabilities, all that they read, and how far they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.nn import functional

from wsi_attention.errors import InputError
from wsi_attention.nn.encoders import Frozen, turns_of
from wsi_attention.protocols import AttentionModel, Estimating, TileSource, contract_of
from wsi_attention.structures import AttentionMap, Glimpse, Output, TileSet

SCALES = ("tile_mpp", "overview_mpp", "overview_pixels", "map_stride")
"""Attributes that must be the same in all members, for they look at one source."""
LEAST = 1e-300
"""The least mean probability whose logarithm is taken."""


class Ensemble(nn.Module):
    """Members that look at a slide one after the other, each with draws of its own; `ensemble_of` makes one.

    Args:
        members: models of the same scales and classes.
        shared: whether one encoder, frozen, is that of all members.
    """

    def __init__(self, members: Sequence[nn.Module], shared: bool) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.shared = shared
        first = contract_of(members[0])
        self.tile_mpp, self.overview_mpp = first.tile_mpp, first.overview_mpp
        self.overview_pixels, self.map_stride = first.overview_pixels, first.map_stride

    @property
    def encoder(self) -> nn.Module | None:
        """The encoder that all members share; None where each has its own."""
        return contract_of(self.members[0]).encoder if self.shared else None

    @property
    def preprocess(self) -> nn.Module:
        """That of the first member."""
        return contract_of(self.members[0]).preprocess

    @property
    def quantity(self) -> str:
        """What is estimated, for the model card."""
        own = str(getattr(self.members[0], "quantity", ""))
        return f"The mean of the probabilities of {len(self.members)} members. Of each: {own}" if own else ""

    def forward(self, source: TileSource, generator: Generator | None = None) -> Output:
        """Let every member look; errors as in the members' own pass."""
        return merged([member(source, generator) for member in self.members])

    def loss(self, output: Output, target: Tensor) -> Tensor:
        """Return −log of the mean probability of the target's class, a scalar; target (b,)."""
        return functional.nll_loss(output.logits, target)


class EstimatingEnsemble(Ensemble):
    """An `Ensemble` whose members estimate a sum that can be computed exactly, or more closely."""

    @property
    def draws(self) -> int:
        """Tiles of one draw of all members."""
        return sum(member.draws for member in self._estimating)

    @property
    def other_quantity(self) -> str:
        """See `protocols.Estimating`."""
        return self._estimating[0].other_quantity

    def exact(self, source: TileSource) -> Output:
        """Compute the sum of each member; errors as in the members' own."""
        return merged([member.exact(source) for member in self._estimating])

    def until(
        self,
        source: TileSource,
        tolerance: float,
        budget: int,
        generator: Generator | None = None,
        unread: float | None = None,
    ) -> Output:
        """Let every member read until its own limits are met, each with its part of the budget.

        Where each member's standard error is at most the tolerance, that of the mean is smaller still.
        """
        part = budget // len(self.members)
        return merged([member.until(source, tolerance, part, generator, unread) for member in self._estimating])

    @property
    def _estimating(self) -> list[Estimating]:
        return [member for member in self.members if isinstance(member, Estimating)]


def ensemble_of(members: Sequence[nn.Module], shared: bool | None = None) -> Ensemble:
    """Return models as one.

    Args:
        members: of one method, scales and classes; where their encoder is shared, theirs is replaced by the first's.
        shared: whether one encoder is that of all members; found out by comparing where None.

    Raises:
        InputError: there are no members, or they look at different scales.
    """
    if not members:
        raise InputError("an ensemble needs members; none were given")
    for name in SCALES:
        values = [getattr(contract_of(member), name) for member in members]
        if len(set(values)) > 1:
            raise InputError(f"members of an ensemble must have one {name}; found {', '.join(map(str, values))}")
    shared = same_encoder(members) if shared is None else shared
    for member in members[1:] if shared else ():
        share_encoder(member, members[0])
    kind = EstimatingEnsemble if all(isinstance(member, Estimating) for member in members) else Ensemble
    return kind(members, shared)


def same_encoder(members: Sequence[nn.Module]) -> bool:
    """Return whether all members have one frozen encoder: the same weights, turns and colours before it."""
    contracts = [contract_of(member) for member in members]
    return all(_is_frozen(one) for one in contracts) and all(
        turns_of(one.encoder) == turns_of(contracts[0].encoder)
        and _same(_of(one.encoder), _of(contracts[0].encoder))
        and _same(_of(one.preprocess), _of(contracts[0].preprocess))
        for one in contracts[1:]
    )


def share_encoder(model: nn.Module, first: nn.Module) -> None:
    """Put the encoder of another model in place of a model's own, wherever it stands in it."""
    own, encoder = contract_of(model).encoder, contract_of(first).encoder
    places = [(module, name) for module in model.modules() for name, part in module.named_children() if part is own]
    for module, name in places:
        setattr(module, name, encoder)


def repeated_names(model: nn.Module) -> dict[str, str]:
    """Return each name in a model's state dict under which a tensor stands once more -> the name it stands under first.

    A model folder keeps such a tensor once; in models without shared parts there is none.
    """
    if not isinstance(model, Ensemble):
        return {}
    first: dict[int, str] = {}
    names = {name: first.setdefault(id(value), name) for name, value in model.state_dict(keep_vars=True).items()}
    return {name: kept for name, kept in names.items() if name != kept}


def merged(outputs: Sequence[Output]) -> Output:
    """Return what members say of the same b images as one output.

    The logits are the logarithms of the mean probabilities. The draws of members are independent, so that the standard
    error of the mean of m probabilities is sqrt(Σ spread²) / m; with more than two classes each member's spread is of
    the class that it takes for the winner. The unread mass is the mean. Weights of tiles are divided by m.
    """
    shares = torch.stack([torch.softmax(one.logits.double(), -1) for one in outputs])
    spreads = torch.stack([one.spread.double() for one in outputs])
    error = spreads.square().nansum(0).sqrt() / len(outputs)
    unread = [one.unread_mass for one in outputs if one.unread_mass is not None]
    images = range(shares.shape[1])
    return Output(
        logits=shares.mean(0).clamp_min(LEAST).log(),
        glimpses=tuple(merged_glimpses([one.glimpses[i] for one in outputs]) for i in images),
        maps=tuple(merged_maps([one.maps[i] for one in outputs]) for i in images),
        spread=error.masked_fill(spreads.isnan().all(0), torch.nan),
        unread_mass=torch.stack(unread).mean(0) if len(unread) == len(outputs) else None,
        members=shares,
    )


def merged_glimpses(members: Sequence[tuple[Glimpse, ...]]) -> tuple[Glimpse, ...]:
    """Return the glimpses of members of one image as one for each stage, its weights summing to 1 over all tiles.

    Where members differ in their stages, or in the size of tiles, each glimpse stays as it is, one member's after the
    other's.
    """
    stages = [{_stage(look) for look in looks} for looks in zip(*members, strict=False)]
    alike = len({len(looks) for looks in members}) == 1 and all(len(kinds) == 1 for kinds in stages)
    if not alike:
        return tuple(look for looks in members for look in looks)
    return tuple(_joined(looks) for looks in zip(*members, strict=True))


def merged_maps(members: Sequence[tuple[AttentionMap, ...]]) -> tuple[AttentionMap, ...]:
    """Return the mean of the members' maps of one image, or all their maps where these lie on different grids."""
    alike = len({tuple((one.name, one.grid) for one in maps) for maps in members}) == 1
    return (
        tuple(map(_mean_map, zip(*members, strict=True))) if alike else tuple(one for maps in members for one in maps)
    )


def members_facts(classes: Sequence[str], shares: NDArray[np.float64]) -> dict[str, object]:
    """Return what provenance says of the members.

    Args:
        classes: class names.
        shares: (m, classes) probabilities of each member.

    Returns:
        How many members name each class, and of the probability of the winning class the least, the highest and the
        standard deviation between members (with m − 1).
    """
    won = shares[:, int(shares.mean(0).argmax())]
    counts = Counter(classes[i] for i in shares.argmax(1))
    return {
        "count": len(shares),
        "labels": dict(sorted(counts.items())),
        "lowest": float(won.min()),
        "highest": float(won.max()),
        "deviation": float(won.std(ddof=1)) if len(won) > 1 else 0.0,
    }


def disagreement(classes: Sequence[str], shares: NDArray[np.float64]) -> tuple[str, ...]:
    """Return a sentence on members that name different classes; nothing where all name one. Arguments as above."""
    counts = Counter(classes[i] for i in shares.argmax(1))
    if len(counts) < 2:
        return ()
    at = int(shares.mean(0).argmax())
    won = shares[:, at]
    said = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    return (
        f"members disagree: of {len(shares)} say {said}; probability of {classes[at]} {won.min():.3f} to"
        f" {won.max():.3f}, standard deviation {won.std(ddof=1):.3f}",
    )


def _stage(look: Glimpse) -> tuple[object, ...]:
    return look.name, look.tiles.size, look.tiles.downsample


def _joined(looks: Sequence[Glimpse]) -> Glimpse:
    """Return the tiles of all members in one glimpse, in the order of the members."""
    tiles = TileSet(
        np.concatenate([look.tiles.locations for look in looks], axis=1), looks[0].tiles.size, looks[0].tiles.downsample
    )
    weights = np.concatenate([look.weights for look in looks]) / len(looks)
    attention, valid = (np.concatenate([getattr(look, name) for look in looks]) for name in ("attention", "valid"))
    return Glimpse(tiles, weights, attention, valid, looks[0].name, all(look.drawn for look in looks))


def _mean_map(maps: Sequence[AttentionMap]) -> AttentionMap:
    values = np.stack([one.values for one in maps]).astype(np.float64).mean(0).astype(np.float32)
    return replace(maps[0], values=values)


def _is_frozen(model: AttentionModel) -> bool:
    encoder = model.encoder
    return encoder is not None and (isinstance(encoder, Frozen) or not encoder.state_dict())


def _of(module: nn.Module | None) -> Mapping[str, Tensor]:
    return {} if module is None else module.state_dict()


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
