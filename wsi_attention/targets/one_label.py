"""One label a slide out of several classes: cross-entropy, a softmax."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wsi_attention.errors import InputError
from wsi_attention.statistics.figures import Figure, Judgement
from wsi_attention.statistics.metrics import score
from wsi_attention.targets.label_values import check_classes, check_values
from wsi_attention.targets.target import Shown, Truth

KIND = "label"


@dataclass(frozen=True)
class WantedLabel:
    """A column `label` with the name of a class; the classes are what occurs."""

    kind: str = KIND
    columns: tuple[str, ...] = (KIND,)

    def text(self, cells: Mapping[str, str], where: str) -> str:
        """See `Asked`."""
        label = unicodedata.normalize("NFC", cells[KIND])
        if not label:
            raise InputError(f"{where}: label is empty")
        return label

    def check(self, texts: Mapping[int, str], name: str | Path) -> None:
        """See `Asked`."""
        check_values(texts, name)

    def strata(self, texts: Sequence[str], name: str | Path) -> list[str]:
        """See `Asked`; the group is the class."""
        check_classes(texts, name)
        enough_of_each(texts, class_names(texts), name)
        return list(texts)

    def fitted(
        self, training: Sequence[str], validation: Sequence[str], name: str | Path
    ) -> tuple[OneLabel, list[str]]:
        """See `Asked`."""
        classes = class_names([*training, *validation])
        missing = set(classes) - set(training)
        if missing:
            raise InputError(f"{name}: no training slide has the label {min(missing)!r}; change the column split")
        absent = [label for label in classes if label not in validation]
        if not absent:
            return OneLabel(classes), []
        judged = "the AUROC leaves it out" if len(classes) - len(absent) > 1 else "there is no AUROC, the loss decides"
        return OneLabel(classes), [f"no validation slide has the label {', '.join(absent)}: {judged}"]


@dataclass(frozen=True)
class OneLabel:
    """The class with the highest probability.

    Attributes:
        names: class names in the order of the logits; a model itself need not know them.
    """

    names: tuple[str, ...] = ()
    kind: str = KIND
    unknown: float = 0.5
    wanted: WantedLabel = WantedLabel()

    @property
    def outputs(self) -> int:
        """One a class."""
        return len(self.names)

    @property
    def weighed(self) -> int:
        """The classes."""
        return len(self.names)

    @property
    def columns(self) -> tuple[str, ...]:
        """A probability a class."""
        return tuple(f"prob_{name}" for name in self.names)

    @property
    def measured(self) -> tuple[str, ...]:
        """All of them."""
        return self.columns

    def as_dict(self) -> dict[str, object]:
        """Return nothing: a model folder says no more than its classes."""
        return {}

    def known(self, text: str) -> Truth:
        """Return the index of a class."""
        return (float(position(text, self.names)),)

    def index(self, truth: Truth) -> int:
        """Return the index of the class."""
        return int(truth[0])

    def tensor(self, truths: Sequence[Truth]) -> Tensor:
        """Return (b,) class indices."""
        return torch.tensor([int(index) for (index,) in truths])

    def loss(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the cross-entropy; truth (b,)."""
        return functional.cross_entropy(logits, truth)

    def read(self, logits: Tensor) -> Tensor:
        """Return the probabilities of the classes."""
        return logits.softmax(dim=-1)

    def headline(self, numbers: Tensor) -> Tensor:
        """Return the same: the spread is of the winning probability."""
        return numbers

    def shown(self, numbers: NDArray[np.float64]) -> Shown:
        """Return classes with their probabilities."""
        return Shown(self.names, numbers)

    def judged(self, numbers: Tensor, truths: Sequence[Truth], patients: Sequence[str] | None = None) -> Judgement:
        """Return AUROC, accuracy and mean F1; `statistics.metrics.score` says more of them."""
        found = score(numbers, self.tensor(truths), patients=patients)
        figures = (
            Figure("AUROC", found.auroc, found.auroc_interval),
            Figure("accuracy", found.accuracy, found.accuracy_interval),
            Figure("F1", found.f1, found.f1_interval),
        )
        return Judgement(found.n, found.patients, found.loss, figures)


LABEL = WantedLabel()
"""What is asked for where a recipe does not say otherwise."""


def class_names(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels that occur, sorted; numbers by value."""
    found = set(labels)
    numeric = all(label.lstrip("+-").isdigit() for label in found)
    return tuple(sorted(found, key=lambda label: (int(label) if numeric else 0, label)))


def enough_of_each(labels: Sequence[str], classes: Sequence[str], name: str | Path) -> None:
    """Raise InputError unless there are two classes or more, with two slides or more each."""
    counts = Counter(labels)
    found = [label for label in classes if counts[label]]
    if len(found) < 2:
        told = f"only {found[0]!r}" if found else "none"
        raise InputError(f"{name}: training needs two classes or more; found {told}")
    single = [label for label in found if counts[label] == 1]
    if single:
        raise InputError(
            f"{name}: class {single[0]!r} has one slide; training and validation need one each, so at least two"
        )


def position(text: str, names: Sequence[str]) -> int:
    """Return where a name stands, in small or capital letters where that leaves one.

    Raises:
        InputError: nowhere.
    """
    known = [unicodedata.normalize("NFC", name) for name in names]
    alike = [i for i, name in enumerate(known) if name.casefold() == text.casefold()]
    if text in known:
        return known.index(text)
    if len(alike) == 1:
        return alike[0]
    raise InputError(f"{text!r} is none of {', '.join(names)}")
