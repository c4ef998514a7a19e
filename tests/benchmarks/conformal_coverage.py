"""How often conformal sets hold the right class, over simulated cohorts of patients with several slides.

    python tests/benchmarks/conformal_coverage.py [--cohorts 2000]

Each cohort is drawn anew: patients with a difficulty of their own that all their slides share, and more slides of those
that are easy, as of large specimens.
Sets are fitted on its first patients and tried on one random slide of each of fifty others. Prints the mean share of
sets that hold the right class, over all slides and by class, beside the share that the theory gives, k / (n + 1); and
what it would be if slides of one patient were counted as independent of each other.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from wsi_attention.certainty.conformal import fit_conformal

ALPHA, CLASSES, TRIED = 0.1, 3, 50


def cohort(
    random: np.random.Generator, n: int, labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits (slides, classes) of patients with these labels, and whose slides they are (slides,)."""
    middle = 1.5 * np.eye(CLASSES)[labels] + random.normal(0, 1.0, (n, CLASSES))
    easy = middle.argmax(axis=1) == labels
    whose = np.repeat(np.arange(n), np.where(easy, random.integers(1, 9, n), 1))
    return middle[whose] + random.normal(0, 0.7, (len(whose), CLASSES)), whose


def coverage(
    random: np.random.Generator, counts: list[int], by_class: bool, naive: bool = False
) -> NDArray[np.float64]:
    """The share of sets that hold the right class in one cohort, for each class.

    Args:
        random: draws the cohort.
        counts: patients of each class to fit on.
        by_class: thresholds by class.
        naive: count each slide as a patient.
    """
    known = np.repeat(np.arange(CLASSES), counts)
    if not by_class:
        known = random.integers(0, CLASSES, len(known))
    labels = np.concatenate([known, random.integers(0, CLASSES, TRIED)])
    logits, whose = cohort(random, len(labels), labels)
    fits = whose < len(known)
    names = [f"{slide if naive else patient}" for slide, patient in enumerate(whose[fits])]
    found, reason = fit_conformal(logits[fits], labels[whose[fits]], names, ALPHA, by_class)
    assert found is not None, reason
    rows = np.array([random.choice(np.flatnonzero(whose == one)) for one in range(len(known), len(labels))])
    truth = labels[len(known) :]
    inside = found.sets(logits[rows])[np.arange(TRIED), truth]
    return np.array(
        [inside.mean(), *(inside[truth == k].mean() if (truth == k).any() else np.nan for k in range(CLASSES))]
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", type=int, default=2_000)
    cohorts = parser.parse_args().cohorts
    print(f"alpha {ALPHA}, {cohorts} cohorts, {CLASSES} classes, patients of one to eight slides")
    cases = [("all", [20, 20, 19], False), ("all", [40, 40, 39], False), ("class", [19, 19, 29], True)]
    for name, counts, by_class in cases:
        began, random = time.perf_counter(), np.random.default_rng(0)
        found = np.array([coverage(random, counts, by_class) for _ in range(cohorts)])
        sizes = counts if by_class else [sum(counts)]
        exact = [(n + 1 - int((n + 1) * ALPHA + 1e-9)) / (n + 1) for n in sizes]
        theory = ", ".join(f"{share:.4f}" for share in exact)
        means = np.nanmean(found, axis=0)
        each = ", ".join(f"{share:.4f}" for share in means[1:])
        spent = time.perf_counter() - began
        print(f"by {name:<6} patients {counts}: {means[0]:.4f}, by class {each}; theory {theory}  ({spent:.0f} s)")
    random = np.random.default_rng(0)
    found = np.array([coverage(random, [20, 20, 19], False, naive=True) for _ in range(cohorts)])
    low = float((found[:, 0] < 0.8).mean())
    print(f"slides as patients:  {np.nanmean(found[:, 0]):.4f}; below 0.8 in {low:.3f} of the cohorts")


if __name__ == "__main__":
    main()
