"""Figures equal scikit-learn's to 1e-12 on fixed arrays, with ties, extremes and rare classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wsi_attention.statistics.curves import area_under_roc, average_precision, precision_recall, roc
from wsi_attention.statistics.metrics import score
from wsi_attention.statistics.reliability import brier, multiclass_brier, reliability_bins
from wsi_attention.statistics.thresholds import at_threshold

Floats = NDArray[np.float64]
EXACT = {"rtol": 0, "atol": 1e-12}


def binary(kind: str) -> tuple[Floats, NDArray[np.bool_]]:
    """(n,) probabilities and truth."""
    rng = np.random.default_rng(3)
    truth = rng.random(257) < {"rare": 0.05}.get(kind, 0.4)
    shares = 1 / (1 + np.exp(-(rng.normal(size=257) + 1.2 * truth - 0.6)))
    if kind == "ties":
        shares = np.round(shares, 1)
    if kind == "ends":
        shares = np.where(rng.random(257) < 0.2, truth.astype(float), shares)
    return shares, truth


def several() -> tuple[Floats, NDArray[np.int64]]:
    """(n, 4) probabilities and labels."""
    rng = np.random.default_rng(4)
    labels = rng.choice(4, 200, p=[0.5, 0.3, 0.15, 0.05])
    logits = rng.normal(size=(200, 4)) + 1.5 * np.eye(4)[labels]
    shares = np.exp(logits)
    return shares / shares.sum(1, keepdims=True), labels


@pytest.mark.parametrize("kind", ["plain", "ties", "ends", "rare"])
def test_curves_and_areas(kind: str) -> None:
    from sklearn import metrics as theirs

    shares, truth = binary(kind)
    found, other = roc(shares, truth), precision_recall(shares, truth)
    assert found is not None
    assert other is not None
    for mine, yours in zip(
        (found.false_alarms, found.sensitivity, found.thresholds),
        theirs.roc_curve(truth, shares, drop_intermediate=False),
        strict=True,
    ):
        np.testing.assert_allclose(mine, yours, **EXACT)
    for mine, yours in zip(
        (other.precision, other.recall, other.thresholds), theirs.precision_recall_curve(truth, shares), strict=True
    ):
        np.testing.assert_allclose(mine, yours, **EXACT)
    assert area_under_roc(shares, truth) == pytest.approx(theirs.roc_auc_score(truth, shares), abs=1e-12)
    assert average_precision(shares, truth) == pytest.approx(theirs.average_precision_score(truth, shares), abs=1e-12)


@pytest.mark.parametrize("kind", ["plain", "ties", "ends", "rare"])
def test_calibration(kind: str) -> None:
    from sklearn import metrics as theirs
    from sklearn.calibration import calibration_curve

    shares, truth = binary(kind)
    bins = reliability_bins(shares, truth)
    share, mean = calibration_curve(truth, shares, n_bins=10)
    np.testing.assert_allclose([one.share for one in bins], share, **EXACT)
    np.testing.assert_allclose([one.probability for one in bins], mean, **EXACT)
    assert brier(shares, truth).score == pytest.approx(theirs.brier_score_loss(truth, shares), abs=1e-12)


def test_thresholds() -> None:
    from sklearn import metrics as theirs

    shares, truth = binary("ties")
    for threshold in (0.0, 0.2, 0.5, 0.9, 1.0):
        found, called = at_threshold(shares, truth, threshold), shares >= threshold
        table = theirs.confusion_matrix(truth, called).ravel().tolist()
        assert table == [found.true_negatives, found.false_positives, found.false_negatives, found.true_positives]
        assert found.sensitivity.value == pytest.approx(theirs.recall_score(truth, called), abs=1e-12)
        assert found.specificity.value == pytest.approx(theirs.recall_score(~truth, ~called), abs=1e-12)
        if called.any() and not called.all():
            assert found.ppv.value == pytest.approx(theirs.precision_score(truth, called), abs=1e-12)
            assert found.npv.value == pytest.approx(theirs.precision_score(~truth, ~called), abs=1e-12)


def test_scores_of_two_and_of_several_classes() -> None:
    from sklearn import metrics as theirs

    shares, labels = several()
    found = score(torch.from_numpy(shares), torch.from_numpy(labels))
    each = [theirs.roc_auc_score(labels == c, shares[:, c]) for c in range(4)]
    assert found.auroc == pytest.approx(np.mean(each), abs=1e-12)
    assert found.auroc == pytest.approx(theirs.roc_auc_score(labels, shares, multi_class="ovr"), abs=1e-12)
    assert found.accuracy == pytest.approx(theirs.accuracy_score(labels, shares.argmax(1)), abs=1e-12)
    assert found.f1 == pytest.approx(theirs.f1_score(labels, shares.argmax(1), average="macro"), abs=1e-12)
    assert found.loss == pytest.approx(theirs.log_loss(labels, shares), abs=1e-12)
    assert found.confusion == tuple(map(tuple, theirs.confusion_matrix(labels, shares.argmax(1)).tolist()))
    assert multiclass_brier(shares, labels) == pytest.approx(
        theirs.brier_score_loss(labels, shares, scale_by_half=False), abs=1e-12
    )
    positive, truth = binary("ties")
    two = score(torch.from_numpy(np.stack([1 - positive, positive], 1)), torch.from_numpy(truth.astype(np.int64)))
    assert two.auroc == pytest.approx(theirs.roc_auc_score(truth, positive), abs=1e-12)
