"""Conformal sets: the quantile by hand, the promised share in simulated cohorts, one slide a patient, refusals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from wsi_attention.certainty.conformal import Conformal, fit_conformal, one_a_patient, quantile
from wsi_attention.certainty.fitted import Certainty
from wsi_attention.errors import InputError


def names(n: int) -> list[str]:
    return [f"p{i}" for i in range(n)]


def test_the_quantile_by_hand() -> None:
    scores = np.array([5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 8.0, 7.0, 6.0])
    assert quantile(scores, 0.1) == 9.0  # ceil(10 · 0.9) = 9th of 9
    assert quantile(scores, 0.2) == 8.0
    assert quantile(scores, 0.25) == 8.0  # ceil(7.5)
    for n in (19, 29, 99):
        assert quantile(np.arange(1.0, n + 1), 0.1) == math.ceil(round((n + 1) * 0.9, 9))


@pytest.mark.parametrize("by_class", [False, True])
def test_sets_hold_the_right_class_as_often_as_promised(by_class: bool) -> None:
    """600 cohorts of 39 patients (19 and 29 of the classes where by class), each with forty new patients."""
    random = np.random.default_rng(1)
    sizes = (19, 29) if by_class else (20, 19)
    hits = np.zeros(2)
    tried = np.zeros(2)
    for _ in range(600):
        known = np.repeat([0, 1], sizes) if by_class else random.integers(0, 2, 39)
        labels = np.concatenate([known, random.integers(0, 2, 40)])
        logits = 1.2 * np.eye(2)[labels] + random.normal(size=(len(labels), 2))
        n = len(known)
        found, reason = fit_conformal(logits[:n], labels[:n], names(n), 0.1, by_class)
        assert found is not None and reason == "" and found.by_class is by_class
        inside = found.sets(logits[n:])[np.arange(40), labels[n:]]
        hits += np.bincount(labels[n:], inside, 2)
        tried += np.bincount(labels[n:], minlength=2)
    shares = hits / tried if by_class else [hits.sum() / tried.sum()]
    for share in shares:
        assert share == pytest.approx(0.9, abs=0.01)


def test_one_slide_of_each_patient_counts_whatever_it_shows() -> None:
    patients = [f"p{i}" for i in range(30) for _ in range(3)]
    rows = one_a_patient(patients)
    assert [patients[row] for row in rows] == names(30)
    assert {int(row) % 3 for row in rows} == {0, 1, 2}
    logits = np.zeros((90, 2))
    logits[rows, 0] = np.linspace(1, 4, 30)
    found, _ = fit_conformal(logits, np.zeros(90, int), patients)
    assert found is not None and found.patients == (30,)
    surprise = np.sort(np.log1p(np.exp(-np.linspace(1, 4, 30))))
    assert found.thresholds[0] == pytest.approx(surprise[27])  # ceil(31 · 0.9) = 28th


def test_a_set_may_hold_no_class_or_all() -> None:
    found = Conformal(0.1, (math.log(2) - 1e-9,), (20,))
    assert found.sets([0.0, 0.0]).tolist() == [False, False]
    assert Conformal(0.1, (math.log(2) + 1e-9,), (20,)).sets([[0.0, 0.0], [9.0, 0.0]]).tolist() == [
        [True, True],
        [True, False],
    ]
    assert Conformal(0.1, (0.1, 5.0), (20, 20)).sets([0.0, 0.0]).tolist() == [False, True]


def test_too_little_is_said_and_skipped() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(40, 2)), np.array([0] * 5 + [1] * 35)
    assert fit_conformal(logits[:19], labels[:19], names(19))[1] == (
        "19 patients with a label were kept for it, at least 20 are needed"
    )
    assert fit_conformal(logits, labels, names(40), 0.02) == (
        None,
        "40 patients were kept for it, at least 49 are needed for 0.02",
    )
    assert fit_conformal(logits, labels, names(40), 0.1, True, ("benign", "lesion")) == (
        None,
        "5 patients of class benign were kept for it, at least 9 are needed for 0.1",
    )
    for alpha in (0.0, 1.0, math.nan):
        with pytest.raises(InputError, match="between 0 and 1"):
            fit_conformal(logits, labels, names(40), alpha)


def test_goes_into_a_folder_and_back() -> None:
    random = np.random.default_rng(0)
    for by_class in (False, True):
        found, _ = fit_conformal(random.normal(size=(60, 3)), np.arange(60) % 3, names(60), 0.1, by_class)
        assert found is not None
        assert Conformal.from_dict(json.loads(json.dumps(found.as_dict())), 3) == found
        assert "0.9" in found.sentence and "60 patients" in found.sentence


GOOD = {"alpha": 0.1, "thresholds": [1.0], "patients": [20]}


@pytest.mark.parametrize(
    "broken",
    [
        7,
        {},
        GOOD | {"alpha": 0},
        GOOD | {"alpha": None},
        GOOD | {"thresholds": [1.0] * 3},
        GOOD | {"thresholds": [math.inf]},
        GOOD | {"patients": []},
        GOOD | {"patients": [-1]},
    ],
)
def test_damaged_entries_are_refused(broken: object) -> None:
    assert Conformal.from_dict(GOOD, 2).thresholds == (1.0,)
    with pytest.raises(ValueError, match=r"\w"):
        Conformal.from_dict(broken, 2)


def test_nothing_is_promised_of_an_ensemble_whose_folds_were_seen() -> None:
    entry = {"conformal": Conformal(0.1, (1.0,), (60,)).as_dict()}
    alone, mean = (Certainty.from_config(entry | more, 2) for more in ({}, {"members": [{"options": {}}]}))
    assert "at least 0.9 of" in alone.sentences[1] and "folds" not in alone.sentences[1]
    assert "about 0.9 of" in mean.sentences[1] and "at least" not in mean.sentences[1]
    assert "models of folds whose mean this model is" in mean.sentences[1]
