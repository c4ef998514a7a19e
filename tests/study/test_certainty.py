"""What is fitted to out-of-fold predictions is part of the ensemble's folder; what cannot be is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wsi_attention.config import Recipe
from wsi_attention.csv_table import Table
from wsi_attention.study.certainty import ALONE, Sight, study_certainty
from wsi_attention.study.folds import Division
from wsi_attention.study.out_of_fold import Judged
from wsi_attention.study.plan import StudyPlan
from wsi_attention.training.certainty import fitted
from wsi_attention.training.listener import Silent

CLASSES = ("benign", "lesion")


def predictions(patients: int) -> Judged:
    """Two slides a patient; log-odds four times what they should be."""
    chance = np.random.default_rng(0)
    labels = np.repeat(np.arange(patients) % 2, 2)
    odds = 8 * (2.0 * labels - 1 + chance.normal(size=2 * patients))  # 2 * would be right
    shares = 1 / (1 + np.exp(-odds))
    names = tuple(f"s{i:03}" for i in range(2 * patients))
    return Judged(
        names, tuple(f"P{i // 2}" for i in range(2 * patients)), CLASSES, labels, np.stack([1 - shares, shares], 1)
    )


def plan(recipe: Recipe) -> StudyPlan:
    return StudyPlan(Table("labels.csv", (), ()), (), (), {}, Division(2), recipe, ())


def test_calibration_and_sets_are_those_of_the_predictions() -> None:
    found, recipe = predictions(40), Recipe()
    certainty = study_certainty(torch.nn.Identity(), found, plan(recipe), Sight(()), Silent())
    alone = fitted(found.logits, found.labels.tolist(), found.patients, recipe, CLASSES)
    assert certainty == replace(alone, missing={"familiar": ALONE}, folds=True)
    assert certainty.calibration is not None and certainty.calibration.patients == 40
    assert 0.1 < certainty.calibration.scale < 0.5 and certainty.conformal is not None


@pytest.mark.parametrize(
    ("recipe", "slides", "said"),
    [
        (Recipe(), ("slides",), "8 patients with a label were kept for it, at least 20 are needed"),
        (Recipe(familiar=False), ("slides",), "the recipe says familiar = false"),
        (Recipe(), (), ALONE),
    ],
)
def test_what_cannot_be_fitted_is_told(recipe: Recipe, slides: tuple[str, ...], said: str, tmp_path: Path) -> None:
    certainty = study_certainty(torch.nn.Identity(), predictions(8), plan(recipe), Sight(slides), Silent())
    assert certainty.calibration is certainty.conformal is certainty.familiar is None
    assert certainty.missing["familiar"] == said and "8 patients" in certainty.missing["calibration"]
