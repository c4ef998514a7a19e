"""Numbers: one or several measurements of a slide, each standardised by the mean and deviation of training slides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_attention.errors import InputError
from wsi_attention.statistics.agreement import mean_of, r_squared
from wsi_attention.statistics.figures import Judgement, judgement
from wsi_attention.targets.numbers import number_in
from wsi_attention.targets.target import Shown, Truth

KIND = "regression"
GROUPS = 4
"""Training and validation get their shares of each quarter of the slides, by the first number."""


@dataclass(frozen=True)
class WantedNumbers:
    """Columns with a number each.

    Attributes:
        columns: one or several.
    """

    columns: tuple[str, ...]
    kind: str = KIND

    def text(self, cells: Mapping[str, str], where: str) -> str:
        """See `Asked`: the numbers with spaces between them."""
        return " ".join(repr(number_in(cells[column], column, where)) for column in self.columns)

    def check(self, texts: Mapping[int, str], name: str | Path) -> None:
        """See `Asked`; `text` has looked at each."""

    def strata(self, texts: Sequence[str], name: str | Path) -> list[str]:
        """See `Asked`; the group is the quarter by rank."""
        self._check_varied(texts, name, "slides")
        first = [float(text.split()[0]) for text in texts]
        groups = GROUPS if len(texts) >= 4 * GROUPS else 1
        places = np.argsort(np.argsort(first, kind="stable"), kind="stable")
        return [f"part {place * groups // len(texts) + 1} of {groups}" for place in places.tolist()]

    def fitted(self, training: Sequence[str], validation: Sequence[str], name: str | Path) -> tuple[Numbers, list[str]]:
        """See `Asked`; mean and deviation are those of training slides."""
        self._check_varied(training, name, "training slides")
        values = np.array([[float(part) for part in text.split()] for text in training])
        mean, deviation = values.mean(axis=0), values.std(axis=0)
        return Numbers(self.columns, tuple(mean.tolist()), tuple(deviation.tolist()), self), []

    def _check_varied(self, texts: Sequence[str], name: str | Path, whose: str) -> None:
        for column, values in zip(self.columns, zip(*(text.split() for text in texts), strict=True), strict=False):
            if len(set(values)) < 2:
                raise InputError(
                    f"{name}: all {len(values)} {whose} have {column} {float(values[0]):g}; there is nothing to learn"
                )


@dataclass(frozen=True)
class Numbers:
    """A number a column, in its own unit.

    Attributes:
        names: the columns.
        mean: of the training slides.
        deviation: of the training slides, above 0.
        wanted: what was asked for.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    wanted: WantedNumbers
    kind: str = KIND
    weighed: int = 1

    @property
    def unknown(self) -> float:
        """The deviation of the first column."""
        return self.deviation[0]

    @property
    def outputs(self) -> int:
        """One a column."""
        return len(self.names)

    @property
    def columns(self) -> tuple[str, ...]:
        """A value a column."""
        return tuple(f"value_{name}" for name in self.names)

    @property
    def measured(self) -> tuple[str, ...]:
        """All of them."""
        return self.columns

    def as_dict(self) -> dict[str, object]:
        """Return what config.json says."""
        return {
            "kind": KIND,
            "columns": list(self.names),
            "mean": list(self.mean),
            "deviation": list(self.deviation),
        }

    def known(self, text: str) -> Truth:
        """Return the numbers."""
        return tuple(map(float, text.split()))

    def index(self, truth: Truth) -> int:
        """Return 0: slides are not weighed."""
        return 0

    def tensor(self, truths: Sequence[Truth]) -> Tensor:
        """Return (b, columns) numbers, standardised."""
        values = (np.array(truths, np.float64) - np.array(self.mean)) / np.array(self.deviation)
        return torch.from_numpy(values.astype(np.float32))

    def loss(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return half the mean squared error of the standardised numbers; truth as `tensor` returns it."""
        return (logits - truth.to(logits)).square().mean() / 2

    def read(self, logits: Tensor) -> Tensor:
        """Return the numbers in their own units."""
        return logits * logits.new_tensor(self.deviation) + logits.new_tensor(self.mean)

    def headline(self, numbers: Tensor) -> Tensor:
        """Return the first number: the spread is in its unit."""
        return numbers[..., :1]

    def shown(self, numbers: NDArray[np.float64]) -> Shown:
        """Return the numbers; the label has their four first digits."""
        values = tuple(zip(self.columns, numbers.tolist(), strict=True))
        texts = [f"{value:.4g}" for _, value in values]
        several = [f"{name} {text}" for name, text in zip(self.names, texts, strict=True)]
        return Shown((), np.empty(0), values, texts[0] if len(texts) == 1 else ", ".join(several))

    def judged(self, numbers: Tensor, truths: Sequence[Truth], patients: Sequence[str] | None = None) -> Judgement:
        """Return R², the mean over the columns, and each column's mean absolute error in its unit."""
        found, truth = numbers.double().numpy(), np.array(truths, np.float64)
        errors = np.abs(found - truth)
        loss = float((((found - truth) / np.array(self.deviation)) ** 2).mean() / 2)
        figures = {"R2": r_squared(truth, found)}
        for at, name in enumerate(self.names):
            figures[f"mean error of {name}"] = mean_of(errors[:, at])
        return judgement(loss, figures, len(truths), patients)
