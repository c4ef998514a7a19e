"""Several labels at once: each is there or not, whatever the others are."""

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
from wsi_attention.statistics.agreement import macro_auroc, mean_of
from wsi_attention.statistics.figures import Judgement, judgement
from wsi_attention.targets.target import Shown, Truth

KIND = "labels"
JOINT, NOTHING = "+", "none"
"""How a cell, and the column `label` of predictions.csv, say which labels there are."""
FEW = 5
"""Combinations of labels that fewer slides have are one group when slides are drawn for validation."""
_YES = ("1", "1.0", "yes", "true", "positive", "present", "+")
_NO = ("0", "0.0", "no", "false", "negative", "absent", "-")


@dataclass(frozen=True)
class WantedLabels:
    """A column a label, or one column that lists them.

    Attributes:
        columns: one a label with 1 or 0 in it; or `label` alone, with such as "necrosis+mitoses", or "none".
        listed: whether one column lists them.
    """

    columns: tuple[str, ...] = ("label",)
    listed: bool = True
    kind: str = KIND

    def text(self, cells: Mapping[str, str], where: str) -> str:
        """See `Asked`: the labels in order, joined by "+"; "none" for none."""
        if self.listed:
            found = _listed(cells[self.columns[0]], self.columns[0], where)
        else:
            found = [column for column in self.columns if _said(cells[column], column, where)]
        return JOINT.join(found) or NOTHING

    def check(self, texts: Mapping[int, str], name: str | Path) -> None:
        """See `Asked`; `text` has looked at each."""

    def strata(self, texts: Sequence[str], name: str | Path) -> list[str]:
        """See `Asked`; the group is the combination of labels, rare ones together."""
        self._check_varied(texts, name, "slides")
        counts = Counter(texts)
        return [text if counts[text] >= FEW else "rare" for text in texts]

    def fitted(
        self, training: Sequence[str], validation: Sequence[str], name: str | Path
    ) -> tuple[SeveralLabels, list[str]]:
        """See `Asked`; in a column that lists them the labels are those that occur."""
        self._check_varied(training, name, "training slides")
        names = self._names([*training, *validation])
        absent = [one for one in names if not any(one in _parts(text) for text in validation)]
        notes = [f"no validation slide has the label {', '.join(absent)}: the AUROC leaves it out"] if absent else []
        return SeveralLabels(names, self), notes

    def _names(self, texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(sorted({one for text in texts for one in _parts(text)})) if self.listed else self.columns

    def _check_varied(self, texts: Sequence[str], name: str | Path, whose: str) -> None:
        if not (names := self._names(texts)):
            raise InputError(f"{name}: no slide has a label; there is nothing to learn")
        for one in names:
            having = sum(one in _parts(text) for text in texts)
            if having in (0, len(texts)):
                told = "none" if not having else "all"
                raise InputError(f"{name}: {told} of {len(texts)} {whose} have the label {one!r}; leave it out")


@dataclass(frozen=True)
class SeveralLabels:
    """The probability of each label; those of ½ and more are the slide's.

    Attributes:
        names: the labels.
        wanted: what was asked for.
    """

    names: tuple[str, ...]
    wanted: WantedLabels
    kind: str = KIND
    unknown: float = 0.5
    weighed: int = 1

    @property
    def outputs(self) -> int:
        """One a label."""
        return len(self.names)

    @property
    def columns(self) -> tuple[str, ...]:
        """A probability a label."""
        return tuple(f"prob_{name}" for name in self.names)

    @property
    def measured(self) -> tuple[str, ...]:
        """All of them."""
        return self.columns

    def as_dict(self) -> dict[str, object]:
        """Return what config.json says."""
        return {
            "kind": KIND,
            "names": list(self.names),
            "columns": list(self.wanted.columns),
            "listed": self.wanted.listed,
        }

    def known(self, text: str) -> Truth:
        """Return 1 or 0 for each label.

        Raises:
            InputError: a label that the model does not know.
        """
        unknown = [one for one in _parts(text) if one not in self.names]
        if unknown:
            raise InputError(f"label {unknown[0]!r} is none of the model's ({', '.join(self.names)})")
        return tuple(float(name in _parts(text)) for name in self.names)

    def index(self, truth: Truth) -> int:
        """Return 0: slides are not weighed."""
        return 0

    def tensor(self, truths: Sequence[Truth]) -> Tensor:
        """Return (b, labels), 1 or 0."""
        return torch.tensor(truths, dtype=torch.float32)

    def loss(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the mean binary cross-entropy; truth (b, labels)."""
        return functional.binary_cross_entropy_with_logits(logits, truth.to(logits))

    def read(self, logits: Tensor) -> Tensor:
        """Return the probability of each label."""
        return logits.sigmoid()

    def headline(self, numbers: Tensor) -> Tensor:
        """Return the same: the spread is of the most probable label."""
        return numbers

    def shown(self, numbers: NDArray[np.float64]) -> Shown:
        """Return labels with their probabilities."""
        there = [name for name, share in zip(self.names, numbers.tolist(), strict=True) if share >= 0.5]
        return Shown(self.names, numbers, (), JOINT.join(there) or NOTHING)

    def judged(self, numbers: Tensor, truths: Sequence[Truth], patients: Sequence[str] | None = None) -> Judgement:
        """Return the mean AUROC and that of each label, and the share of slides with all labels right."""
        truth, found = np.array(truths) > 0, numbers.double().numpy()
        loss = functional.binary_cross_entropy(numbers.double().clamp(1e-12, 1 - 1e-12), self.tensor(truths).double())
        figures = {"mean AUROC": macro_auroc(truth, found)}
        for at, name in enumerate(self.names if len(self.names) > 1 else ()):
            figures[f"AUROC of {name}"] = macro_auroc(truth[:, [at]], found[:, [at]])
        figures["all labels right"] = mean_of((truth == (found >= 0.5)).all(axis=1).astype(np.float64))
        return judgement(float(loss), figures, len(truths), patients)


def _parts(text: str) -> list[str]:
    return [] if text == NOTHING else text.split(JOINT)


def _listed(cell: str, column: str, where: str) -> list[str]:
    """Return the labels in a cell, sorted."""
    parts = [part.strip() for part in unicodedata.normalize("NFC", cell).split(JOINT)]
    if not all(parts) or len(set(parts)) < len(parts):
        raise InputError(
            f'{where}: {column} is {cell!r}; write labels with {JOINT!r} between them, or "{NOTHING}" for none'
        )
    if NOTHING in map(str.casefold, parts):
        if len(parts) > 1:
            raise InputError(f"{where}: {column} is {cell!r}: both {NOTHING!r} and a label; write one of them")
        return []
    return sorted(parts)


def _said(cell: str, column: str, where: str) -> bool:
    said = cell.strip().casefold()
    if said in _YES or said in _NO:
        return said in _YES
    told = f"is {cell!r}" if cell else "is empty"
    raise InputError(f"{where}: {column} {told}; write 1 where the label is there, and 0 where it is not")
