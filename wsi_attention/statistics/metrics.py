"""How good probabilities are: AUROC, accuracy and each class's own share, with intervals; F1, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_attention.statistics.curves import area_under_roc
from wsi_attention.statistics.intervals import NONE, auroc_interval, f1_interval, proportion_interval


@dataclass(frozen=True)
class Recall:
    """How many slides of one class are called right.

    Attributes:
        slides: of that class.
        patients: whose they are.
        right: of the slides, those that are called so.
        interval: 95 %, of the share right / slides.
    """

    slides: int
    patients: int
    right: int
    interval: tuple[float, float]


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
        patients: whose slides they are; as many as slides where nobody says.
        auroc_interval: 95 %, as all intervals here from `statistics.intervals`, over patients where they repeat.
        accuracy_interval: 95 %.
        f1_interval: 95 %.
        recalls: of each class; of two, the second's is the sensitivity and the first's the specificity.
    """

    n: int
    auroc: float
    accuracy: float
    f1: float
    loss: float
    confusion: tuple[tuple[int, ...], ...]
    patients: int = 0
    auroc_interval: tuple[float, float] = NONE
    accuracy_interval: tuple[float, float] = NONE
    f1_interval: tuple[float, float] = NONE
    recalls: tuple[Recall, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Return plain JSON values; NaN is None."""
        values = {name: getattr(self, name) for name in ("auroc", "accuracy", "f1", "loss")}
        finite = {name: value if np.isfinite(value) else None for name, value in values.items()}
        return {
            "n": self.n,
            "patients": self.patients,
            **finite,
            "auroc_interval_95": _ends(self.auroc_interval),
            "accuracy_interval_95": _ends(self.accuracy_interval),
            "f1_interval_95": _ends(self.f1_interval),
            "recalls": [{**asdict(one), "interval": _ends(one.interval)} for one in self.recalls],
            "confusion": [list(row) for row in self.confusion],
        }


def score(
    probabilities: Tensor,
    labels: Tensor,
    weights: Sequence[float] | None = None,
    patients: Sequence[str] | None = None,
) -> Scores:
    """Return the scores of probabilities.

    Args:
        probabilities: (n, classes), n of at least 1.
        labels: (n,) class indices.
        weights: of each class in the loss; all the same where None.
        patients: whose slide each is; each slide its own where None.
    """
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(1)
    table = confusion(labels.numpy(), predicted.numpy(), classes)
    own = np.arange(len(labels)) if patients is None else np.unique(np.asarray(patients), return_inverse=True)[1]
    right, truth = (predicted == labels).numpy(), labels.numpy()
    return Scores(
        len(labels),
        auroc(probabilities, labels),
        float(right.mean()),
        mean_f1(table),
        _loss(probabilities, labels, weights),
        tuple(tuple(int(cell) for cell in row) for row in table),
        len(np.unique(own)),
        auroc_interval(probabilities.double().numpy(), truth, own),
        proportion_interval(right, own),
        f1_interval(truth, predicted.numpy(), own),
        tuple(_recall(right[truth == c], own[truth == c]) for c in range(classes)),
    )


def auroc(probabilities: Tensor, labels: Tensor) -> float:
    """Return the area under the ROC curve of (n, classes) probabilities, as `Scores.auroc` says."""
    shares, truth = probabilities.double().numpy(), labels.numpy()
    classes = range(1, 2) if shares.shape[1] == 2 else range(shares.shape[1])
    areas = [area_under_roc(shares[:, c], truth == c) for c in classes]
    found = [area for area in areas if np.isfinite(area)]
    return float(np.mean(found)) if found else float("nan")


def confusion(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return (classes, classes) counts, [truth][prediction], of (n,) class indices."""
    cells: NDArray[np.int64] = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return cells.reshape(classes, classes)


def mean_f1(table: NDArray[np.int64]) -> float:
    """Return the unweighted mean F1 over the classes of a confusion table that occur or were predicted."""
    both = table.sum(0) + table.sum(1)
    used = both > 0
    return float((2 * np.diagonal(table)[used] / both[used]).mean())


def _recall(right: NDArray[np.bool_], own: NDArray[np.int64]) -> Recall:
    return Recall(len(right), len(np.unique(own)), int(right.sum()), proportion_interval(right, own))


def _ends(interval: tuple[float, float]) -> list[float | None]:
    return [end if np.isfinite(end) else None for end in interval]


def _loss(probabilities: Tensor, labels: Tensor, weights: Sequence[float] | None) -> float:
    own = probabilities.double().gather(1, labels[:, None])[:, 0].clamp_min(1e-12).log()
    weight = torch.ones_like(own) if weights is None else torch.tensor(weights, dtype=torch.float64)[labels]
    return float(-(weight * own).sum() / weight.sum().clamp_min(1e-12))
