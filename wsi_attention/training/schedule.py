"""When the learning rate falls, which epoch is the best, and when to stop: pure functions of recipe and history."""

from __future__ import annotations

import math

from wsi_attention.config import Recipe
from wsi_attention.training.state import EpochRecord, TrainingState


def finished(state: TrainingState, recipe: Recipe) -> bool:
    """Whether there is nothing left to train."""
    return state.epoch >= recipe.epochs or (state.epoch > 0 and state.epoch - state.best_epoch >= recipe.patience)


def better(new: EpochRecord, old: EpochRecord, best: str = "auroc") -> bool:
    """Higher validation AUROC, equal ones (or none) told apart by the lower validation loss; or that loss alone."""
    if best == "loss":
        return new.val_loss < old.val_loss
    first, second = (-1.0 if math.isnan(record.val_auroc) else record.val_auroc for record in (new, old))
    return (first, -new.val_loss) > (second, -old.val_loss)


def learning_rate(recipe: Recipe, progress: float) -> float:
    """The rate after `progress` epochs: linear warm-up, then constant or a cosine down to 0 at the last epoch."""
    settings = recipe.optimiser
    if progress < settings.warmup_epochs:
        return settings.learning_rate * progress / settings.warmup_epochs
    if settings.schedule == "constant":
        return settings.learning_rate
    share = (progress - settings.warmup_epochs) / max(recipe.epochs - settings.warmup_epochs, 1e-9)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
