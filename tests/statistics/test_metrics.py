"""Figures that can be worked out by hand, and an interval that covers what it should."""

from __future__ import annotations

import math

import pytest
import torch

from wsi_attention.statistics.metrics import auroc, score


def binary(positive: list[float]) -> torch.Tensor:
    p = torch.tensor(positive, dtype=torch.float64)
    return torch.stack([1 - p, p], 1)


def test_by_hand() -> None:
    found = score(binary([0.1, 0.6, 0.4, 0.9]), torch.tensor([0, 0, 1, 1]))
    assert found.auroc == pytest.approx(3 / 4)
    assert found.accuracy == pytest.approx(1 / 2)
    assert found.confusion == ((1, 1), (1, 1))
    assert found.f1 == pytest.approx(0.5)
    assert found.loss == pytest.approx(-sum(math.log(p) for p in (0.9, 0.4, 0.4, 0.9)) / 4)
    assert found.n == 4


def test_weights_act_on_the_loss_alone() -> None:
    labels = torch.tensor([0, 1])
    plain, weighted = (score(binary([0.1, 0.5]), labels, weights) for weights in (None, (3.0, 1.0)))
    assert weighted.loss == pytest.approx(-(3 * math.log(0.9) + math.log(0.5)) / 4)
    assert (plain.auroc, plain.f1) == (weighted.auroc, weighted.f1)


def test_ties_count_half_and_tiny_differences_count() -> None:
    assert auroc(binary([0.5, 0.5]), torch.tensor([0, 1])) == pytest.approx(0.5)
    assert auroc(binary([0.5, 0.5 + 1e-12]), torch.tensor([0, 1])) == 1.0
    assert auroc(binary([1 - 1e-12, 1 - 2e-12]), torch.tensor([0, 1])) == 0.0


def test_several_classes_average_over_those_that_can_be_judged() -> None:
    p = torch.tensor([[0.8, 0.1, 0.1, 0.0], [0.2, 0.7, 0.1, 0.0], [0.6, 0.3, 0.1, 0.0]], dtype=torch.float64)
    assert auroc(p, torch.tensor([0, 1, 1])) == pytest.approx((1.0 + 1.0) / 2)
    assert auroc(p, torch.tensor([0, 1, 0])) == pytest.approx(1.0)


def test_one_class_alone_has_no_auroc() -> None:
    found = score(binary([0.2, 0.3]), torch.tensor([1, 1]))
    assert math.isnan(found.auroc)
    assert found.as_dict()["auroc"] is None
    assert all(math.isnan(bound) for bound in found.auroc_interval)
    assert found.as_dict()["auroc_interval_95"] == [None, None]


def test_figures_know_how_many_slides_and_patients_they_rest_on() -> None:
    found = score(binary([0.1, 0.6, 0.4, 0.9]), torch.tensor([0, 0, 1, 1]), patients=["p", "p", "q", "r"])
    assert (found.n, found.patients) == (4, 3)
    assert [(one.slides, one.patients, one.right) for one in found.recalls] == [(2, 1, 1), (2, 2, 1)]
    assert found.auroc_interval[0] < 0.75 < found.auroc_interval[1]
    assert found.accuracy_interval[0] < 0.5 < found.accuracy_interval[1]
    assert found.f1_interval[0] < found.f1 < found.f1_interval[1]
    assert found.as_dict()["f1_interval_95"] == list(found.f1_interval)
    assert score(binary([0.1, 0.9]), torch.tensor([0, 1])).patients == 2
