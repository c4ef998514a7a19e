"""Cohorts whose true figures are known: patients of several slides, whose scores are alike, judged by two models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from wsi_attention.statistics.comparison import difference_interval
from wsi_attention.statistics.curves import average_precision
from wsi_attention.statistics.intervals import (
    auroc_interval,
    average_precision_interval,
    f1_interval,
    mean_interval,
    proportion_interval,
)
from wsi_attention.statistics.metrics import confusion, mean_f1

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Cohort:
    """How slides come about.

    Attributes:
        patients: of them round(prevalence · patients) are positive, at least two.
        prevalence: share of positive patients.
        apart: how far the scores of a positive slide lie above those of a negative one, in standard deviations.
        alike: correlation of the scores of a patient's slides.
        worse: `apart` of the second model, as a share of that of the first.
        most: slides of a patient, 1 to this many, at random.
    """

    patients: int
    prevalence: float
    apart: float
    alike: float
    worse: float = 0.6
    most: int = 5

    @property
    def positives(self) -> int:
        """Positive patients."""
        return max(2, round(self.prevalence * self.patients))

    def draw(self, rng: np.random.Generator) -> tuple[Floats, Floats, Ints, Ints]:
        """Return (n,) scores of the first and the second model, labels and patients."""
        own = np.repeat(np.arange(self.patients), rng.integers(1, self.most + 1, self.patients))
        labels = (own < self.positives).astype(np.int64)

        def noise() -> Floats:
            between, within = rng.normal(size=self.patients)[own], rng.normal(size=len(own))
            return math.sqrt(self.alike) * between + math.sqrt(1 - self.alike) * within

        shared = noise()
        second = self.worse * self.apart * labels + 0.7 * shared + math.sqrt(1 - 0.7**2) * noise()
        return self.apart * labels + shared, second, labels, own

    def probability(self, scores: Floats) -> Floats:
        """Return the model's probability of being positive: a logistic one that is somewhat too sure."""
        share = self.positives / self.patients
        logits = 1.3 * (max(self.apart, 0.7) * (scores - self.apart / 2)) + math.log(share / (1 - share))
        found: Floats = 1 / (1 + np.exp(-logits))
        return found

    def truths(self) -> dict[str, float]:
        """Return what each interval should hold: in closed form, or of 400,000 slides."""
        n, rng = 400_000, np.random.default_rng(12345)
        labels = (np.arange(n) < n * self.positives / self.patients).astype(np.int64)
        scores = self.apart * labels + rng.normal(size=n)
        area, share = float(norm.cdf(self.apart / math.sqrt(2))), float(norm.cdf(self.apart / 2))
        return {
            "AUROC": area,
            "AUROC difference": area - float(norm.cdf(self.worse * self.apart / math.sqrt(2))),
            "accuracy": share,
            "sensitivity": share,
            "F1": mean_f1(confusion(labels, (scores > self.apart / 2).astype(np.int64), 2)),
            "average precision": average_precision(scores, labels == 1),
            "Brier score": float(((self.probability(scores) - labels) ** 2).mean()),
        }

    def intervals(self, rng: np.random.Generator) -> dict[str, Interval]:
        """Return the intervals of one cohort, over patients."""
        scores, second, labels, own = self.draw(rng)
        positive, called = labels == 1, (scores > self.apart / 2).astype(np.int64)
        right, pairs = called == labels, [np.stack([-one, one], 1) for one in (scores, second)]
        return {
            "AUROC": auroc_interval(pairs[0], labels, own),
            "AUROC difference": difference_interval(pairs[0], pairs[1], labels, own),
            "accuracy": proportion_interval(right, own),
            "sensitivity": proportion_interval(right[positive], own[positive]),
            "F1": f1_interval(labels, called, own),
            "average precision": average_precision_interval(scores, positive, own),
            "Brier score": mean_interval((self.probability(scores) - labels) ** 2, own),
        }


@dataclass(frozen=True)
class Held:
    """How often an interval held what is true, and how wide it was on average."""

    share: float
    width: float


def coverage(cohort: Cohort, runs: int, seed: int = 1) -> dict[str, Held]:
    """Return how often each interval holds the truth in so many cohorts."""
    rng, truths = np.random.default_rng(seed), cohort.truths()
    found = [cohort.intervals(rng) for _ in range(runs)]
    return {
        name: Held(
            float(np.mean([one[name][0] - 1e-9 <= true <= one[name][1] + 1e-9 for one in found])),
            float(np.mean([one[name][1] - one[name][0] for one in found])),
        )
        for name, true in truths.items()
    }


def cohorts(patients: int) -> list[Cohort]:
    """Return all kinds of cohorts of so many patients: models at chance to nearly perfect, slides alike or not."""
    kinds = product((0.5, 0.25), (0.0, 1.0, 2.5), (0.2, 0.8))
    return [Cohort(patients, prevalence, apart, alike) for prevalence, apart, alike in kinds]
