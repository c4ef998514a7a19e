"""The folder of a training: what it holds while one runs, what is left when it is finished, and how it is emptied."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from torch import nn

from wsi_attention.certainty.fitted import NOTHING, Certainty
from wsi_attention.checkpoint import CONFIG, README, WEIGHTS, save_model
from wsi_attention.errors import InputError
from wsi_attention.files import remove_unfinished, write_text
from wsi_attention.model_card import ModelCard
from wsi_attention.plain_text import in_cell
from wsi_attention.training.accumulation import tidy as tidy_epochs
from wsi_attention.training.curve import CURVE, write_curve
from wsi_attention.training.labels import LabelRow, Split
from wsi_attention.training.map_store import STORE
from wsi_attention.training.plan import FINISHED, FOLDER, Finished, Plan
from wsi_attention.training.state import METRICS, STATE, TrainingState, write_metrics

SPLIT = "split.csv"
FETCHED = "fetched"
"""Subfolder for what was fetched of slides behind URLs, so that a training that goes on does not fetch it again."""


def forget(output: str | Path) -> None:
    """Remove an earlier training and its model from a folder, and nothing else; a kill in between leaves no half.

    Raises:
        InputError: the folder holds a model from elsewhere.
    """
    folder = Path(output)
    ours = [folder / FOLDER / name for name in (STATE, FINISHED, METRICS, SPLIT, CURVE)]
    if any(path.is_file() for path in ours):
        model = [folder / name for name in (README, WEIGHTS, CONFIG)] if (folder / CONFIG).is_file() else []
        for path in (*model, folder / STORE, *ours):
            path.unlink(missing_ok=True)
        tidy_epochs(folder / FOLDER)
        remove_unfinished(folder / FOLDER)
        with suppress(OSError):
            (folder / FOLDER).rmdir()
    elif (folder / CONFIG).exists():
        raise InputError(f"{folder} holds a model that was not trained there; choose another output folder")


def write_split(folder: Path, split: Split) -> None:
    """Write which slide trains and which validates, one a row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("slide", "label", "patient", "split"))
    for part, rows in (("train", split.train), ("val", split.validation)):
        writer.writerows((*map(in_cell, (row.slide, row.label, row.patient)), part) for row in rows)
    write_text(folder / SPLIT, text.getvalue())


def finish(
    folder: Path,
    plan: Plan,
    model: nn.Module,
    state: TrainingState,
    end: Finished,
    command: str,
    certainty: Certainty = NOTHING,
) -> None:
    """Write the model, then the mark that it is finished, then remove the state: a kill in between only repeats this.

    Args:
        folder: the model folder.
        plan: what the run was about.
        model: with the weights to keep, on the CPU.
        state: of the last epoch.
        end: what the folder is to say.
        command: the command line, for the model card.
        certainty: what was fitted to the model's predictions.
    """
    card = ModelCard(
        plan.recipe.method,
        dict(state.arguments),
        plan.split.classes,
        plan.recipe.as_dict(),
        _metrics(plan, state, end),
        plan.fingerprint,
        command,
        negative=plan.negative,
        seen=plan.seen,
        encoder=plan.origin,
        certainty=certainty,
        target=plan.target.as_dict() or None,
        plain_images=plan.images is not None,
    )
    save_model(folder, model, card)
    write_metrics(folder / FOLDER, state.history)
    write_curve(folder / FOLDER, state.history, end.best.epoch)
    content = {"plan": dict(state.plan), **end.as_dict()}
    write_text(folder / FOLDER / FINISHED, json.dumps(content, indent=2, sort_keys=True) + "\n")
    tidy(folder / FOLDER)


def tidy(folder: Path) -> None:
    """Remove what only an unfinished training needs."""
    (folder / STATE).unlink(missing_ok=True)
    tidy_epochs(folder)
    remove_unfinished(folder)
    shutil.rmtree(folder / FETCHED, ignore_errors=True)


def _metrics(plan: Plan, state: TrainingState, end: Finished) -> dict[str, object]:
    usable = [row for row in plan.split.validation if not {row.slide, plan.name_of(row)} & end.failed.keys()]
    if end.best.figures:
        figures: dict[str, object] = {f"validation {one.name}": one.value for one in end.best.figures}
        figures |= {f"validation {one.name}, 95 %": list(one.interval) for one in end.best.figures}
        return {**figures, **_counts(plan, usable, state, end)}
    return {
        "validation AUROC": end.best.val_auroc,
        "validation AUROC, 95 %": [end.best.val_auroc_low, end.best.val_auroc_high],
        "validation accuracy": end.best.val_accuracy,
        "validation accuracy, 95 %": [end.best.val_accuracy_low, end.best.val_accuracy_high],
        "validation F1": end.best.val_f1,
        **_counts(plan, usable, state, end),
    }


def _counts(plan: Plan, usable: Sequence[LabelRow], state: TrainingState, end: Finished) -> dict[str, object]:
    return {
        "validation slides": len(usable),
        "validation patients": len({row.patient for row in usable}),
        f"training {plan.recipe.bag}s": end.best.slides,
        "slides left out": len(end.failed),
        "best epoch": end.best.epoch,
        "epochs": end.epochs,
        "precision": state.precision,
    }
