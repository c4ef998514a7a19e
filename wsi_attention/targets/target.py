"""What a model is asked for, as the rest of the package sees it: before labels are read, and fitted to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wsi_attention.statistics.figures import Judgement

Truth = tuple[float, ...]
"""What is known of a slide, as numbers; each target says what they mean."""


@dataclass(frozen=True, eq=False)
class Shown:
    """What people are shown of one slide.

    Attributes:
        classes: names, one a probability; none where there are no probabilities of classes.
        probabilities: (classes,).
        values: (column of predictions.csv, number) beside the probabilities.
        label: text; where it is empty, the most probable class.
    """

    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    values: tuple[tuple[str, float], ...] = field(default=())
    label: str = ""


class Asked(Protocol):
    """What a recipe asks for."""

    @property
    def kind(self) -> str:
        """As the recipe's key `target` names it."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the labels CSV must have."""
        ...

    def text(self, cells: Mapping[str, str], where: str) -> str:
        """Return what a row says, in one spelling.

        Args:
            cells: of `columns`, and others.
            where: file and line, for messages.

        Raises:
            InputError: it says nothing that can be used.
        """
        ...

    def check(self, texts: Mapping[int, str], name: str | Path) -> None:
        """Raise InputError where a text, given with its line, is no truth."""
        ...

    def strata(self, texts: Sequence[str], name: str | Path) -> list[str]:
        """Return for each slide the group of which training and validation get their shares.

        Raises:
            InputError: nothing can be learnt from these slides.
        """
        ...

    def fitted(self, training: Sequence[str], validation: Sequence[str], name: str | Path) -> tuple[Target, list[str]]:
        """Return the target with what training slides say of it, and what is less than ideal, one sentence each.

        Raises:
            InputError: nothing can be learnt from the training slides.
        """
        ...


class Target(Protocol):
    """What the logits of a model mean. `protocols.Aim` is what a model itself uses of it."""

    @property
    def kind(self) -> str:
        """As the recipe's key `target` names it."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names for `classes` of config.json: classes, grades, labels, columns, or ends of intervals."""
        ...

    @property
    def outputs(self) -> int:
        """k, how many logits a model has."""
        ...

    @property
    def weighed(self) -> int:
        """How many classes there are whose slides can be weighed against each other in training; 1 for none."""
        ...

    @property
    def unknown(self) -> float:
        """The standard error of what rests on a single draw."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of predictions.csv, in order."""
        ...

    @property
    def measured(self) -> tuple[str, ...]:
        """Those of the columns that hold the numbers of `read`, in order."""
        ...

    @property
    def wanted(self) -> Asked:
        """What was asked for, to read labels by."""
        ...

    def as_dict(self) -> dict[str, object]:
        """Return what config.json says, for `find.target_of`; nothing for one label."""
        ...

    def known(self, text: str) -> Truth:
        """Return the numbers of a row's text.

        Raises:
            InputError: the target does not know it.
        """
        ...

    def index(self, truth: Truth) -> int:
        """Return which of the `weighed` classes a slide is of."""
        ...

    def tensor(self, truths: Sequence[Truth]) -> Tensor:
        """Return what `loss` takes for b images."""
        ...

    def loss(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the mean loss of logits (b, k), a scalar."""
        ...

    def read(self, logits: Tensor) -> Tensor:
        """Map logits (..., k) to the numbers that stand for them, (..., m); passes are averaged over these."""
        ...

    def headline(self, numbers: Tensor) -> Tensor:
        """Map the numbers (..., m) to those (..., h) of which the greatest is what the spread is of."""
        ...

    def shown(self, numbers: NDArray[np.float64]) -> Shown:
        """Return what people see of the numbers (m,)."""
        ...

    def judged(self, numbers: Tensor, truths: Sequence[Truth], patients: Sequence[str] | None = None) -> Judgement:
        """Return how numbers (n, m) fit the truth, with intervals over patients; each slide its own where None."""
        ...
