"""`train`: labels and slides in, a model folder out; started again after a kill, it goes on where it was."""

from __future__ import annotations

import csv
import inspect
import io
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wsi_attention import __version__, registry
from wsi_attention.config import Recipe, default_recipe, unknown_key
from wsi_attention.errors import InputError
from wsi_attention.inference.writing import write_text
from wsi_attention.training.colours import tissue_colours
from wsi_attention.training.data import MEMORY_BYTES, OverviewMemory, Survey, data_fingerprint, slide_examples, survey
from wsi_attention.training.devices import fabric_on, precision_on
from wsi_attention.training.examples import Example
from wsi_attention.training.labels import LabelRow, find_slides, read_labels
from wsi_attention.training.listener import Listener, Silent
from wsi_attention.training.loop import Job, fit, too_many_failed
from wsi_attention.training.split import Split, class_weights, split_rows
from wsi_attention.training.state import (
    STATE,
    EpochRecord,
    TrainingState,
    copied,
    load_state,
    plan_of,
    save_state,
    seed_of,
    write_metrics,
)

FOLDER = "training"
"""Subfolder of the model folder for everything that classifying does not need."""
FINISHED = "finished.json"
MODEL_FILES = ("config.json", "model.safetensors", "README.md")


@dataclass(frozen=True)
class TrainingResult:
    """What a call of `train` led to.

    Attributes:
        folder: the model folder.
        best: the epoch whose weights are in it.
        epochs: epochs trained in all.
        epochs_now: of these, in this call; 0 where the folder was finished already.
        failed: slide name -> why it was left out.
        first_process: whether this is the process that reports, where several trained together.
    """

    folder: Path
    best: EpochRecord
    epochs: int
    epochs_now: int
    failed: Mapping[str, str]
    first_process: bool = True


@dataclass(frozen=True)
class _Plan:
    recipe: Recipe
    split: Split
    slides: Mapping[str, Path]
    surveyed: Survey
    builder: Callable[..., nn.Module]

    @property
    def rows(self) -> tuple[LabelRow, ...]:
        return (*self.split.train, *self.split.validation)

    @property
    def digests(self) -> dict[str, str]:
        labels = {row.slide: (row.label, row.patient, row.mpp, row.part) for row in self.rows}
        return plan_of(recipe=self.recipe.as_dict(), labels=labels, slides=dict(self.surveyed.fingerprints))

    @property
    def fingerprint(self) -> str:
        return data_fingerprint(self.surveyed.fingerprints, {row.slide: row.label for row in self.rows})


def train(
    labels: str | Path,
    slides: Sequence[str | Path],
    output: str | Path,
    recipe: Recipe | None = None,
    *,
    device: str = "auto",
    processes: int = 1,
    memory: int = MEMORY_BYTES,
    command: str = "",
    listener: Listener | None = None,
) -> TrainingResult:
    """Trains a model and writes its folder; an interrupted call, repeated, ends with the same model.

    Args:
        labels: CSV `slide,label[,patient][,mpp][,split]`.
        slides: folders or files in which the labels' slides are found.
        output: the model folder; `training/` in it holds metrics.csv, split.csv and, until the end, the state.
        recipe: all numbers; the shipped one for ATS where None.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        processes: how many devices of that kind work together.
        memory: bytes for overviews kept between epochs.
        command: the command line, for the model card.
        listener: told how it goes.

    Raises:
        InputError: labels, slides, recipe or device are wrong, or the folder holds another training.
        DivergedError: the loss is no number any more.
        ResultsError: the folder cannot be written.
    """
    recipe, folder, listener = recipe or default_recipe("ats"), Path(output), listener or Silent()
    plan = _planned(Path(labels), slides, recipe, listener)
    done = _finished_before(folder, plan)
    if done:
        return done
    state = _begun_before(folder, plan)
    precision = state.precision if state else precision_on(device, recipe.precision)
    fabric = fabric_on(device, processes, precision)
    listener = listener if fabric.is_global_zero else Silent()
    _tell(plan, state, listener)
    memory_of_views = OverviewMemory(memory)
    state = state or _new_state(plan, precision, memory_of_views)
    model = _built(plan, state.arguments)
    train_set, validation_set = _examples(plan, model, memory_of_views)
    weights = class_weights([example.label for example in train_set], len(plan.split.classes))
    if fabric.is_global_zero:
        _write_split(folder / FOLDER, plan.split)
    job = Job(train_set, validation_set, recipe, weights, lambda new: save_state(folder / FOLDER, new), listener)
    before = state.epoch
    state = fit(fabric, model, job, state)
    result = TrainingResult(
        folder,
        state.history[state.best_epoch - 1],
        state.epoch,
        state.epoch - before,
        state.failed,
        fabric.is_global_zero,
    )
    if fabric.is_global_zero:
        model.load_state_dict(dict(state.best))
        _finish(plan, model.cpu(), state, result, command)
    fabric.barrier()
    return result


def forget(output: str | Path) -> None:
    """Removes an earlier training and its model from a folder, and nothing else."""
    folder = Path(output)
    if (folder / FOLDER).is_dir():
        shutil.rmtree(folder / FOLDER)
        for name in MODEL_FILES:
            (folder / name).unlink(missing_ok=True)
    elif (folder / "config.json").exists():
        raise InputError(f"{folder} holds a model that was not trained there; choose another output folder")


def _planned(labels: Path, slides: Sequence[str | Path], recipe: Recipe, listener: Listener) -> _Plan:
    builder = registry.load(registry.MODELS, recipe.method)
    _check_arguments(builder, recipe)
    rows = read_labels(labels)
    split = split_rows(rows, recipe.validation_share, recipe.seed, labels)
    kept = (*split.train, *split.validation)
    found = find_slides([row.slide for row in kept], slides, labels)
    listener.line(f"looking at {len(kept)} slides")
    surveyed = survey(found, kept)
    for name, reason in surveyed.failed.items():
        listener.line(f"left out: {name}: {reason}")
    too_many_failed(surveyed.failed, len(kept))
    return _Plan(recipe, split, found, surveyed, builder)


def _check_arguments(builder: Callable[..., nn.Module], recipe: Recipe) -> None:
    valid = tuple(inspect.signature(builder).parameters)[1:]
    for key in recipe.model:
        if key not in valid:
            raise unknown_key(key, valid, f"recipe [model] of method {recipe.method}")


def _finished_before(folder: Path, plan: _Plan) -> TrainingResult | None:
    path = folder / FOLDER / FINISHED
    if not path.is_file():
        if (folder / "config.json").is_file() and not (folder / FOLDER).is_dir():
            raise InputError(f"{folder} holds a model that was not trained there; choose another output folder")
        return None
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        best = EpochRecord(**{name: math.nan if value is None else value for name, value in facts["best"].items()})
        _same_plan(folder, facts["plan"], plan)
        return TrainingResult(folder, best, facts["epochs"], 0, facts["failed"])
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); train with --overwrite to begin anew") from error


def _begun_before(folder: Path, plan: _Plan) -> TrainingState | None:
    state = load_state(folder / FOLDER)
    if state:
        _same_plan(folder, state.plan, plan)
    return state


def _same_plan(folder: Path, stored: Mapping[str, str], plan: _Plan) -> None:
    other = [name for name, digest in plan.digests.items() if stored.get(name) != digest]
    if other:
        raise InputError(
            f"{folder} holds a training with other {' and '.join(other)}; "
            "choose another output folder, or --overwrite to begin anew"
        )


def _tell(plan: _Plan, state: TrainingState | None, listener: Listener) -> None:
    for note in plan.split.notes:
        listener.line(f"note: {note}")
    counts = ", ".join(
        f"{label}: {sum(row.label == label for row in plan.split.train)} + "
        f"{sum(row.label == label for row in plan.split.validation)}"
        for label in plan.split.classes
    )
    listener.line(f"classes (training + validation slides): {counts}")
    if state:
        listener.line(f"going on after epoch {state.epoch}")


def _new_state(plan: _Plan, precision: str, memory: OverviewMemory) -> TrainingState:
    arguments = dict(plan.recipe.model)
    if plan.recipe.statistics == "tissue":
        model = _built(plan, arguments)
        mean, std = tissue_colours(_examples(plan, model, memory)[0], float(model.overview_mpp))  # type: ignore[arg-type]
        arguments |= {"mean": list(mean), "std": list(std)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(plan.recipe.seed, "weights"))
        weights = {name: copied(value) for name, value in _built(plan, arguments).state_dict().items()}
    return TrainingState(plan.digests, precision, weights, failed=dict(plan.surveyed.failed), arguments=arguments)


def _built(plan: _Plan, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        return plan.builder(len(plan.split.classes), **arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"recipe [model] of method {plan.recipe.method}: {error}") from error


def _examples(plan: _Plan, model: nn.Module, memory: OverviewMemory) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    mpp = float(model.overview_mpp)  # type: ignore[arg-type]
    parts = (plan.split.train, plan.split.validation)
    one, other = (slide_examples(part, plan.slides, plan.surveyed, plan.split.classes, memory, mpp) for part in parts)
    return one, other


def _write_split(folder: Path, split: Split) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("slide", "label", "patient", "split"))
    for part, rows in (("train", split.train), ("val", split.validation)):
        writer.writerows((row.slide, row.label, row.patient, part) for row in rows)
    write_text(folder / "split.csv", text.getvalue())


def _finish(plan: _Plan, model: nn.Module, state: TrainingState, result: TrainingResult, command: str) -> None:
    from wsi_attention.training.card import save

    save(result.folder, model, plan, state, command)
    folder = result.folder / FOLDER
    write_metrics(folder, state.history)
    best = {name: _json_number(value) for name, value in vars(result.best).items()}
    facts = {
        "plan": dict(state.plan),
        "best": best,
        "epochs": state.epoch,
        "failed": dict(state.failed),
        "version": __version__,
    }
    write_text(folder / FINISHED, json.dumps(facts, indent=2, sort_keys=True) + "\n")
    (folder / STATE).unlink(missing_ok=True)


def _json_number(value: float) -> float | None:
    return value if math.isfinite(value) else None
