"""How good probabilities are: AUROC with a bootstrap interval, accuracy, F1, confusion. torchmetrics counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

RESAMPLES = 1000
"""Bootstrap resamples behind an interval."""


@dataclass(frozen=True)
class Scores:
    """How a set of probabilities fits its labels.

    Attributes:
        n: slides.
        auroc: of the second class where there are two, else the mean one-against-rest over the classes that can be
            judged; NaN where only one class occurs.
        accuracy: share whose most probable class is right.
        f1: unweighted mean over the classes that occur or were predicted.
        loss: mean negative log-likelihood, weighted by class where weights are given.
        confusion: [truth][prediction] counts.
    """

    n: int
    auroc: float
    accuracy: float
    f1: float
    loss: float
    confusion: tuple[tuple[int, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN is None."""
        values = {name: getattr(self, name) for name in ("auroc", "accuracy", "f1", "loss")}
        finite = {name: value if np.isfinite(value) else None for name, value in values.items()}
        return {"n": self.n, **finite, "confusion": [list(row) for row in self.confusion]}


def score(probabilities: Tensor, labels: Tensor, weights: Sequence[float] | None = None) -> Scores:
    """Scores of (n, classes) probabilities against (n,) class indices; n of at least 1."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_f1_score

    classes = probabilities.shape[1]
    predicted = probabilities.argmax(1)
    confusion = multiclass_confusion_matrix(predicted, labels, classes, validate_args=False)
    f1 = multiclass_f1_score(predicted, labels, classes, average="macro", validate_args=False)
    return Scores(
        len(labels),
        auroc(probabilities, labels),
        float((predicted == labels).double().mean()),
        float(f1),
        _loss(probabilities, labels, weights),
        tuple(tuple(int(cell) for cell in row) for row in confusion),
    )


def auroc(probabilities: Tensor, labels: Tensor) -> float:
    """Area under the ROC curve of (n, classes) probabilities, as `Scores.auroc` says."""
    from torchmetrics.functional.classification import binary_auroc

    classes = range(1, 2) if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    areas = []
    for c in classes:
        truth = (labels == c).long()
        if 0 < int(truth.sum()) < len(truth):
            areas.append(float(binary_auroc(_ranks(probabilities[:, c]), truth, validate_args=False)))
    return float(np.mean(areas)) if areas else float("nan")


def auroc_interval(
    probabilities: Tensor, labels: Tensor, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the AUROC: slides drawn anew within each class, so that none can be missing."""
    draw = np.random.default_rng(seed)
    members = [np.flatnonzero(labels.numpy() == c) for c in range(probabilities.shape[1])]
    areas = []
    for _ in range(resamples):
        index = torch.from_numpy(np.concatenate([draw.choice(own, len(own)) for own in members if len(own)]))
        areas.append(auroc(probabilities[index], labels[index]))
    low, high = np.quantile(areas, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _ranks(values: Tensor) -> Tensor:
    """Dense ranks scaled into [0, 1]: the same AUROC, but no rounding to float32 makes two values one."""
    ranks = np.unique(values.double().numpy(), return_inverse=True)[1].astype(np.float64)
    return torch.from_numpy(ranks / max(ranks.max(), 1.0))


def _loss(probabilities: Tensor, labels: Tensor, weights: Sequence[float] | None) -> float:
    own = probabilities.double().gather(1, labels[:, None])[:, 0].clamp_min(1e-12).log()
    weight = torch.ones_like(own) if weights is None else torch.tensor(weights, dtype=torch.float64)[labels]
    return float(-(weight * own).sum() / weight.sum().clamp_min(1e-12))
