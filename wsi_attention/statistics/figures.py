"""What is known of a set of predictions: named figures, each with its interval, and the mean loss."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wsi_attention.json_values import as_plain
from wsi_attention.statistics.bayesian_bootstrap import Weighted, bootstrap_interval, whole
from wsi_attention.statistics.intervals import NONE


@dataclass(frozen=True)
class Figure:
    """One number about many predictions.

    Attributes:
        name: as people read it, such as "C-index".
        value: NaN where it does not exist.
        interval: 95 %.
    """

    name: str
    value: float
    interval: tuple[float, float] = NONE

    @property
    def key(self) -> str:
        """The name as a column or a key, such as "c_index"."""
        return re.sub(r"\W+", "_", self.name.casefold()).strip("_")


@dataclass(frozen=True)
class Judgement:
    """How predictions fit the truth.

    Attributes:
        n: slides.
        patients: whose slides they are; as many as slides where nobody says.
        loss: the mean loss that training makes small.
        figures: the first one tells the best epoch: the higher, the better.
    """

    n: int
    patients: int
    loss: float
    figures: tuple[Figure, ...]

    def as_dict(self) -> dict[str, object]:
        """Return plain JSON values; NaN is None."""
        found: dict[str, object] = {"n": self.n, "patients": self.patients, "loss": as_plain(self.loss)}
        for one in self.figures:
            found[one.key] = as_plain(one.value)
            found[f"{one.key}_interval_95"] = as_plain(one.interval)
        return found


def judgement(loss: float, figures: Mapping[str, Weighted], n: int, patients: Sequence[str] | None) -> Judgement:
    """Return the figures of n slides, each with its interval over patients.

    Args:
        loss: the mean loss.
        figures: name -> figure; the first one tells the best epoch.
        n: slides.
        patients: (n,), whose slide each is; each its own where None.
    """
    own = np.arange(n) if patients is None else np.unique(np.asarray(patients), return_inverse=True)[1]
    found = tuple(Figure(name, whole(one, n), bootstrap_interval(one, own)) for name, one in figures.items())
    return Judgement(n, len(np.unique(own)), loss, found)
