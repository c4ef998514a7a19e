"""Grades in order, such as G1 < G2 < G3: a wrong neighbour costs less than a wrong end.

K grades have K − 1 logits; logit j says how sure it is that a slide that is beyond all grades before j is beyond j too.
The probability to be beyond a grade is their product, so it falls from grade to grade whatever the weights are. This is
the sequential model of Tutz (1991), and the conditional training of CORN (Shi, Cao & Raschka, "Deep neural networks for
rank-consistent ordinal regression based on conditional probabilities", Pattern Analysis and Applications 2023) with all
tasks of a slide in one likelihood instead of a mean over each task's slides.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wsi_attention.errors import InputError
from wsi_attention.statistics.agreement import mean_of, quadratic_kappa
from wsi_attention.statistics.figures import Judgement, judgement
from wsi_attention.targets.one_label import enough_of_each, position
from wsi_attention.targets.sequential import log_shares
from wsi_attention.targets.target import Shown, Truth

KIND = "ordinal"
EXPECTED = "expected_grade"


@dataclass(frozen=True)
class WantedGrade:
    """A column with one of the grades.

    Attributes:
        order: the grades, lowest first.
        columns: the column that says it, one.
    """

    order: tuple[str, ...]
    columns: tuple[str, ...] = ("label",)
    kind: str = KIND

    def text(self, cells: Mapping[str, str], where: str) -> str:
        """See `Asked`."""
        found = unicodedata.normalize("NFC", cells[self.columns[0]])
        try:
            return self.order[position(found, self.order)]
        except InputError:
            raise InputError(
                f"{where}: {self.columns[0]} is {found!r}, which is no grade of the recipe's order "
                f"({', '.join(self.order)}); correct one of them, or leave the slide out"
            ) from None

    def check(self, texts: Mapping[int, str], name: str | Path) -> None:
        """See `Asked`; `text` has looked at each."""

    def strata(self, texts: Sequence[str], name: str | Path) -> list[str]:
        """See `Asked`; the group is the grade."""
        enough_of_each(texts, self.order, name)
        return list(texts)

    def fitted(self, training: Sequence[str], validation: Sequence[str], name: str | Path) -> tuple[Grades, list[str]]:
        """See `Asked`."""
        missing = [grade for grade in self.order if grade not in training]
        if missing:
            raise InputError(
                f"{name}: no training slide has the grade {missing[0]!r} of the recipe's order; change the "
                "column split or the order"
            )
        absent = [grade for grade in self.order if grade not in validation]
        notes = [f"no validation slide has the grade {', '.join(absent)}: it is not judged"] if absent else []
        return Grades(self.order, self), notes


@dataclass(frozen=True)
class Grades:
    """The most probable grade, the probability of each, and the expected one.

    Attributes:
        names: the grades, lowest first.
        wanted: what was asked for.
    """

    names: tuple[str, ...]
    wanted: WantedGrade
    kind: str = KIND
    unknown: float = 0.5

    @property
    def outputs(self) -> int:
        """One a step from a grade to the next."""
        return len(self.names) - 1

    @property
    def weighed(self) -> int:
        """The grades."""
        return len(self.names)

    @property
    def measured(self) -> tuple[str, ...]:
        """A probability a grade."""
        return tuple(f"prob_{name}" for name in self.names)

    @property
    def columns(self) -> tuple[str, ...]:
        """The probabilities and the expected grade."""
        return (*self.measured, EXPECTED)

    def as_dict(self) -> dict[str, object]:
        """Return what config.json says."""
        return {"kind": KIND, "order": list(self.names), "columns": list(self.wanted.columns)}

    def known(self, text: str) -> Truth:
        """Return the place of a grade, from 0."""
        return (float(position(text, self.names)),)

    def index(self, truth: Truth) -> int:
        """Return the place of the grade, from 0."""
        return int(truth[0])

    def tensor(self, truths: Sequence[Truth]) -> Tensor:
        """Return (b,) places of grades."""
        return torch.tensor([int(place) for (place,) in truths])

    def loss(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the mean negative log-likelihood; truth (b,)."""
        return functional.nll_loss(log_shares(-logits), truth)

    def read(self, logits: Tensor) -> Tensor:
        """Return the probability of each grade, (..., K)."""
        return log_shares(-logits).exp()

    def headline(self, numbers: Tensor) -> Tensor:
        """Return the same: the spread is of the winning probability."""
        return numbers

    def shown(self, numbers: NDArray[np.float64]) -> Shown:
        """Return grades with their probabilities, and the expected place from 1."""
        expected = float(numbers @ np.arange(1, len(numbers) + 1) / numbers.sum())
        return Shown(self.names, numbers, ((EXPECTED, expected),))

    def judged(self, numbers: Tensor, truths: Sequence[Truth], patients: Sequence[str] | None = None) -> Judgement:
        """Return quadratic kappa, the mean error in grades, and accuracy of the most probable grade."""
        truth, predicted = self.tensor(truths), numbers.argmax(dim=-1)
        loss = -numbers.double().gather(1, truth[:, None]).clamp_min(1e-12).log().mean()
        places, found = truth.numpy(), predicted.numpy()
        figures = {
            "quadratic kappa": quadratic_kappa(places, found, len(self.names)),
            "mean error in grades": mean_of(np.abs(places - found).astype(np.float64)),
            "accuracy": mean_of((places == found).astype(np.float64)),
        }
        return judgement(float(loss), figures, len(truths), patients)
