"""Whether a slide is like those of the training: a distance of its traits, measured by what is usual there.

Each group of traits has a Mahalanobis distance (Mahalanobis, "On the generalised distance in statistics", 1936) with a
shrunk covariance (Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004). A
slide's distance is the largest of its groups', each over that group's median; the threshold is a quantile of the
distances of training slides whose patient was left out. See docs/uncertainty.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wsi_attention.certainty.conformal import quantile
from wsi_attention.certainty.logits import LEAST_PATIENTS
from wsi_attention.certainty.stored import entry, listed, numbers, whole
from wsi_attention.certainty.traits import GROUPS, Traits

LARGEST = 8
"""Dimensions of a group, at most; of longer vectors the directions count along which training slides differ most."""
ALARMS = 0.02
"""Share of slides like those of the training that may be called unlike them, where there are slides enough."""
DIGITS = 7
LEARNT = "features"
"""The group that depends on what was learnt."""


@dataclass(frozen=True, eq=False)
class Group:
    """How the training slides lie in one group of traits.

    Attributes:
        centre: (d,) their mean.
        axes: (k, d); the distance is the length of axes @ (x − centre), 1 at the threshold.
    """

    centre: NDArray[np.float64]
    axes: NDArray[np.float64]

    def distance(self, traits: NDArray[np.float64]) -> float:
        """Return how far traits (d,) lie from the centre; infinite where they are no finite numbers."""
        found = float(np.linalg.norm(self.axes @ (traits - self.centre)))
        return found if math.isfinite(found) else math.inf


@dataclass(frozen=True, eq=False)
class Familiar:
    """What training slides look like.

    Attributes:
        groups: name -> how they lie.
        patients: how many there were.
        slides: of these.
    """

    groups: Mapping[str, Group]
    patients: int
    slides: int

    def distance(self, traits: Traits) -> tuple[float, str] | None:
        """Return a slide's distance, as a share of the threshold, and the group it comes from; None where no group
        is known of it."""
        found = [
            (group.distance(traits[name]), name)
            for name, group in self.groups.items()
            if name in traits and len(traits[name]) == len(group.centre)
        ]
        return max(found, default=None)

    def note(self, distance: float, group: str) -> tuple[str, ...]:
        """Return what to say of a slide; nothing where it is like those of the training."""
        if distance <= 1:
            return ()
        return (
            f"unlike the slides of the training by {GROUPS[group]}: {distance:.1f} times as far from them as"
            " is usual; the label may mean nothing",
        )

    def as_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        groups = {
            name: {"centre": _short(group.centre), "axes": [_short(axis) for axis in group.axes]}
            for name, group in self.groups.items()
        }
        return {"groups": groups, "patients": self.patients, "slides": self.slides}

    @classmethod
    def from_dict(cls, found: object) -> Self:
        """Return what `as_dict` gave.

        Raises:
            ValueError: it is damaged; the text says what is wrong.
        """
        found = entry(found)
        groups = entry(found.get("groups"))
        if not groups or not set(groups) <= set(GROUPS):
            raise ValueError(f"'groups' must be some of {', '.join(GROUPS)}")
        read = {name: _group(name, entry(one)) for name, one in groups.items()}
        return cls(read, whole(found, "patients"), whole(found, "slides"))

    @property
    def sentence(self) -> str:
        """What people should know of it, one sentence."""
        slides = f" ({self.slides} slides)" if self.slides != self.patients else ""
        return (
            "The column unlike_training is above 1 where a slide is unlike those of the training,"
            f" {self.patients} patients{slides}, by one of {', '.join(self.groups)}."
        )


def fit_familiar(
    traits: Sequence[Traits], patients: Sequence[str], judges: Sequence[bool] = ()
) -> tuple[Familiar | None, str]:
    """Learn what slides look like.

    Args:
        traits: of each slide.
        patients: whose slides they are.
        judges: which of them trained nothing; these alone say what is usual in the group "features" where they are of
            patients enough, because a model makes something else of slides that it has learnt by heart.

    Returns:
        What was learnt and ""; or None and why nothing was.
    """
    names = [name for name in GROUPS if traits and all(name in one for one in traits)]
    count = len(set(patients))
    if count < LEAST_PATIENTS:
        return None, f"{count} patients have slides, at least {LEAST_PATIENTS} are needed"
    if not names:
        return None, "nothing is known of what the slides look like"
    values = {name: np.stack([one[name] for one in traits]) for name in names}
    values, maps = _reduced(values)
    whose = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)[1]
    apart = {name: _left_out(own, whose) for name, own in values.items()}
    chosen = np.asarray(judges, bool) if len(judges) else np.zeros(len(traits), bool)
    if LEARNT in apart and len(set(whose[chosen])) >= LEAST_PATIENTS:
        apart[LEARNT][~chosen] = np.nan
    usual = {name: float(np.nanmedian(own)) or 1.0 for name, own in apart.items()}
    every = np.stack([apart[name] / usual[name] for name in names])
    known = np.isfinite(every).any(axis=0)
    limit = _limit(np.nanmax(every[:, known], axis=0))
    groups = {name: _scaled(*_shape(values[name]), maps.get(name), usual[name] * limit) for name in names}
    return Familiar(groups, count, len(traits)), ""


def _limit(distances: NDArray[np.float64]) -> float:
    """Return the distance that a share `ALARMS` of such slides exceed; the largest one where there are too few."""
    enough = (len(distances) + 1) * ALARMS >= 1
    return (quantile(distances, ALARMS) if enough else float(distances.max())) or 1.0


def _reduced(
    values: Mapping[str, NDArray[np.float64]],
) -> tuple[dict[str, NDArray[np.float64]], dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]]:
    """Return vectors of at most `LARGEST` numbers, and (centre, directions) of the groups that were longer."""
    short, maps = {}, {}
    for name, own in values.items():
        short[name] = own
        if own.shape[1] > LARGEST:
            centre = own.mean(axis=0)
            directions = np.linalg.svd(own - centre, full_matrices=False)[2][:LARGEST]
            maps[name] = centre, directions
            short[name] = (own - centre) @ directions.T
    return short, maps


def _left_out(values: NDArray[np.float64], patients: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (n,), each slide's distance from the slides of all other patients."""
    found = np.empty(len(values))
    for one in np.unique(patients):
        own = patients == one
        centre, axes = _shape(values[~own])
        found[own] = np.linalg.norm((values[own] - centre) @ axes.T, axis=1)
    return found


def _shape(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean (d,) of vectors (n, d), and axes (d, d) that make their shrunk covariance the unit matrix."""
    centre = values.mean(axis=0)
    size = values.std(axis=0)
    size = np.where(size > 1e-9, size, 1.0)
    covariance = shrunk((values - centre) / size)
    return centre, np.linalg.inv(np.linalg.cholesky(covariance)) / size


def shrunk(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the covariance (d, d) of centred vectors (n, d), drawn towards a multiple of the unit matrix.

    Ledoit and Wolf (2004), equations 4 and 14; a little of the unit matrix is always there.
    """
    n, d = values.shape
    plain = values.T @ values / n
    mean = float(np.trace(plain)) / d
    off = float(((plain - mean * np.eye(d)) ** 2).sum()) / d
    noise = float(((values**2).sum(axis=1) ** 2).sum() / n - (plain**2).sum()) / (n * d)
    share = 1.0 if off <= 0 else min(1.0, max(noise, 0.0) / off)
    return np.asarray((1 - share) * plain + (share * mean + 1e-6) * np.eye(d), np.float64)


def _scaled(
    centre: NDArray[np.float64],
    axes: NDArray[np.float64],
    longer: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
    limit: float,
) -> Group:
    axes = axes / limit
    if longer is None:
        return Group(centre, axes)
    origin, directions = longer
    return Group(origin + centre @ directions, axes @ directions)


def _short(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]


def _group(name: str, found: Mapping[str, object]) -> Group:
    centre = np.array(numbers(found.get("centre"), "centre"))
    axes = [numbers(axis, "axes") for axis in listed(found.get("axes"), "axes")]
    if not len(centre) or not axes or any(len(axis) != len(centre) for axis in axes):
        raise ValueError(f"group {name!r} needs a 'centre', and 'axes' of as many numbers each")
    return Group(centre, np.array(axes))
