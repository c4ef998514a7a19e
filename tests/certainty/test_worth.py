"""A calibration is kept where it helps patients that it was not fitted to, and left out, in a sentence, where not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from wsi_attention.certainty.calibration import fit_calibration, fitted
from wsi_attention.certainty.logits import log_softmax
from wsi_attention.certainty.worth import PARTS, fit_where_better, log_losses, parts_of
from wsi_attention.config import Recipe
from wsi_attention.training.certainty import fitted as fitted_by

Cohort = tuple[NDArray[np.float64], NDArray[np.int64], list[str]]


def cohort(seed: int, too_sure: float, patients: int = 60, slides: int = 1, shift: float = 0.0) -> Cohort:
    """Logits whose log-odds are so many times, and by so much more, what Bayes' rule says."""
    random = np.random.default_rng(seed)
    labels = (np.arange(patients) % 2).repeat(slides)
    odds = too_sure * 2 * (2 * labels - 1 + random.normal(0, 1, len(labels))) + shift
    return np.stack([-odds / 2, odds / 2], 1), labels, [f"p{i}" for i in range(patients) for _ in range(slides)]


def test_what_is_right_is_mostly_left_alone_and_what_is_too_sure_is_mended() -> None:
    tried, kind = range(4), "temperature"
    kept = {sure: sum(fit_where_better(*cohort(seed, sure), kind)[0] is not None for seed in tried) for sure in (1, 4)}
    assert kept[1] <= 2 and kept[4] == 4


def test_fresh_slides_lose_less_with_the_rule_than_with_every_fit_where_the_model_was_right() -> None:
    fresh, truth, _ = cohort(99, 1.0, 2_000)

    def loss(shares: NDArray[np.float64]) -> float:
        return float(-np.log(shares[np.arange(len(truth)), truth]).mean())

    own = np.exp(log_softmax(fresh))
    always, ruled = [], []
    for seed in range(4):
        every, some = fit_calibration(*cohort(seed, 1.0))[0], fit_where_better(*cohort(seed, 1.0))[0]
        assert every is not None and (some is None or some == every)
        always.append(loss(every.probabilities(fresh)))
        ruled.append(loss(own if some is None else some.probabilities(fresh)))
    assert loss(own) <= np.mean(ruled) < loss(own) + (np.mean(always) - loss(own)) * 0.7


def test_another_prevalence_is_mended() -> None:
    found, why = fit_where_better(*cohort(1, 1.0, shift=3.0))
    assert found is not None and why == "" and found.bias[1] == pytest.approx(-1.5, abs=0.5)


def test_the_sentence_says_what_was_compared() -> None:
    logits, labels, patients = cohort(0, 1.0)
    found, why = fit_where_better(logits, labels, patients, "platt")
    own, mended = log_losses(logits, labels, patients, "platt")
    assert found is None and mended >= own
    assert why.startswith("Platt scaling was fitted to 60 patients and left out")
    assert why.endswith(f"log loss {mended:.3f} with it, {own:.3f} without")
    certainty = fitted_by(logits, labels.tolist(), patients, Recipe(calibration="platt"), ("a", "b"))
    assert certainty.calibration is None and f"({why}.)" in certainty.sentences[0]
    assert fit_where_better(logits[:19], labels[:19], patients[:19])[1].startswith("19 patients")


def test_losses_are_those_of_a_loop_by_hand() -> None:
    logits, labels, patients = cohort(3, 2.0, 25, slides=2)
    part, total = parts_of(labels, patients), 0.0
    for i in range(len(labels)):
        others = [j for j in range(len(labels)) if part[j] != part[i]]
        fit = fitted(logits[others], labels[others], [patients[j] for j in others], "platt")
        assert fit is not None
        total -= float(np.log(fit.probabilities(logits[i])[labels[i]]))
    own, mended = log_losses(logits, labels, patients, "platt")
    assert mended == pytest.approx(total / len(labels), rel=1e-12)
    assert own == pytest.approx(-log_softmax(logits)[np.arange(len(labels)), labels].mean(), rel=1e-12)


def test_patients_stay_whole_classes_share_alike_and_order_does_not_matter() -> None:
    logits, labels, patients = cohort(4, 3.0, 44, slides=3)
    part = parts_of(labels, patients)
    assert all(len(set(part[i : i + 3].tolist())) == 1 for i in range(0, len(part), 3))
    counts = np.array([[np.sum((part == one) & (labels == k)) // 3 for k in (0, 1)] for one in range(PARTS)])
    assert (np.ptp(counts, axis=0) <= 1).all() and (np.ptp(counts.sum(1)) <= 1)
    mixed = np.random.default_rng(0).permutation(len(labels))
    again = log_losses(logits[mixed], labels[mixed], [patients[i] for i in mixed], "temperature")
    assert again == pytest.approx(log_losses(logits, labels, patients, "temperature"), rel=1e-6)


def test_a_patient_with_many_slides_counts_once() -> None:
    logits, labels, patients = cohort(5, 2.0)
    more = np.concatenate([logits, logits[:1].repeat(50, 0)]), [*labels.tolist(), *labels[:1].tolist() * 50]
    often = log_losses(*more, [*patients, *["p0"] * 50], "platt")
    assert often == pytest.approx(log_losses(logits, labels, patients, "platt"), rel=1e-4)
