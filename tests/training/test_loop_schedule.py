"""The rate, the best epoch and the end follow from recipe and history alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from wsi_attention.config import Optimiser, Recipe
from wsi_attention.training.loop import better, finished, learning_rate
from wsi_attention.training.state import EpochRecord, TrainingState


def test_ties_go_to_the_lower_loss() -> None:
    base = EpochRecord(1, 1e-3, 1.0, 0.5, 0.9, 1.0, 1.0, 4, 0)
    assert better(replace(base, val_auroc=0.91, val_loss=9.0), base)
    assert better(replace(base, val_loss=0.4), base)
    assert not better(base, base)
    assert not better(replace(base, val_auroc=math.nan), base)
    assert better(replace(base, val_auroc=math.nan, val_loss=0.1), replace(base, val_auroc=math.nan))


def test_the_loss_alone_may_decide() -> None:
    base = EpochRecord(1, 1e-3, 1.0, 0.5, 0.9, 1.0, 1.0, 4, 0)
    assert not better(replace(base, val_auroc=0.99, val_loss=0.6), base, "loss")
    assert better(replace(base, val_auroc=0.8, val_loss=0.4), base, "loss")
    assert not better(replace(base, val_loss=math.nan), base, "loss")


def test_the_last_epoch_may_be_kept_whatever_validation_says() -> None:
    base = EpochRecord(1, 1e-3, 1.0, 0.5, 0.9, 1.0, 1.0, 4, 0)
    assert better(replace(base, val_auroc=0.1, val_loss=9.0), base, "last")
    assert better(replace(base, val_auroc=math.nan, val_loss=math.nan), base, "last")


def test_the_rate_rises_and_falls() -> None:
    recipe = Recipe(epochs=10, optimiser=Optimiser(learning_rate=1.0, warmup_epochs=2.0))
    rates = [learning_rate(recipe, progress) for progress in (1, 2, 6, 10)]
    assert rates == pytest.approx([0.5, 1.0, 0.5, 0.0])
    steady = replace(recipe, optimiser=replace(recipe.optimiser, schedule="constant"))
    assert learning_rate(steady, 9) == 1.0


@pytest.mark.parametrize(("epochs", "best", "ends"), [(0, 0, False), (3, 1, False), (4, 1, True), (10, 10, True)])
def test_it_ends_with_the_epochs_or_the_patience(epochs: int, best: int, ends: bool) -> None:
    record = EpochRecord(1, 1e-3, 1.0, 0.5, 0.9, 1.0, 1.0, 4, 0)
    state = TrainingState({}, "32", {}, best_epoch=best, history=(record,) * epochs)
    assert finished(state, Recipe(epochs=10, patience=3)) is ends
