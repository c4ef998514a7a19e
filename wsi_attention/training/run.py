"""`train`: labels and slides in, a model folder out; started again after a kill, it goes on where it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from wsi_attention.config import Recipe, as_recipe
from wsi_attention.devices import device_of, fabric_on, precision_on
from wsi_attention.files import given_path, given_paths
from wsi_attention.methods.method import build_model
from wsi_attention.protocols import contract_of
from wsi_attention.training.accumulation import Accumulation, begin, save_epoch, save_last
from wsi_attention.training.accumulation import tidy as tidy_epochs
from wsi_attention.training.data import MEMORY_BYTES, Example, OverviewMemory, slide_examples
from wsi_attention.training.encoder_choice import settled
from wsi_attention.training.folder import finish, forget, tidy, write_split
from wsi_attention.training.labels import LabelRow, class_weights
from wsi_attention.training.listener import Listener, Silent
from wsi_attention.training.loop import Job, fit
from wsi_attention.training.maps import Guide, guide_for
from wsi_attention.training.plan import (
    FOLDER,
    Finished,
    Plan,
    check_same_plan,
    finished_before,
    make_plan,
)
from wsi_attention.training.start import encoder_colours, take_encoder, take_weights, tissue_colours, without_hub
from wsi_attention.training.state import (
    EpochRecord,
    TrainingState,
    copied,
    load_state,
    save_state,
    seed_of,
)


@dataclass(frozen=True)
class TrainingResult:
    """What a call of `train` led to.

    Attributes:
        folder: the model folder.
        best: the epoch whose weights are in it.
        epochs: epochs trained in all.
        epochs_now: of these, in this call.
        finished_before: whether an earlier call had done everything.
        failed: slide name -> why it was left out.
        reports: whether this process is the one that reports, where several trained together.
    """

    folder: Path
    best: EpochRecord
    epochs: int
    epochs_now: int
    finished_before: bool
    failed: Mapping[str, str]
    reports: bool = True


def train(
    labels: str | Path,
    slides: str | Path | Iterable[str | Path],
    output: str | Path,
    recipe: Recipe | str | Path | None = None,
    *,
    earlier: Literal["continue", "replace"] = "continue",
    device: str = "auto",
    processes: int = 1,
    memory: int = MEMORY_BYTES,
    series: str | None = None,
    command: str = "",
    listener: Listener | None = None,
) -> TrainingResult:
    """Train a model and write its folder; an interrupted call, repeated, ends with the same model, bit for bit.

    Args:
        labels: CSV `slide,label[,patient][,mpp][,split][,series]`.
        slides: folders or files in which the labels' slides are found, one or several.
        output: the model folder; `training/` in it holds metrics.csv, split.csv and, until the end, the state.
        recipe: all numbers: a `Recipe`, a TOML file or the name of a shipped one such as "ats"; that of the default
            method where None.
        earlier: "continue" a training in the folder, or "replace" it as soon as all the rest has proved usable.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        processes: how many devices of that kind work together.
        memory: bytes for overviews kept between epochs.
        series: the number or name of the image that is the slide, for rows of the labels that do not say.
        command: the command line, for the model card.
        listener: told how it goes.

    Returns:
        The model folder, its best epoch, and the slides that were left out.

    Raises:
        InputError: labels, slides, recipe or device are wrong, or the folder holds another training.
        DivergedError: loss, gradient or output is no number any more.
        ResultsError: the folder cannot be written.
    """
    table, places = Path(given_path(labels, "labels", "a CSV")), given_paths(slides, "slides", "a folder or a slide")
    recipe, folder = settled(as_recipe(recipe)), Path(given_path(output, "output", "the model folder to write"))
    begun = load_state(folder / FOLDER) if earlier == "continue" else None
    precision = begun.precision if begun else precision_on(device_of(device), recipe.precision)
    fabric = fabric_on(device, processes, precision)
    listener = listener if listener and fabric.is_global_zero else Silent()
    plan = make_plan(table, places, recipe, listener, series)
    done = finished_before(folder, plan) if earlier == "continue" else None
    if done:
        tidy(folder / FOLDER)
        return TrainingResult(folder, done.best, done.epochs, 0, True, done.failed, fabric.is_global_zero)
    views = OverviewMemory(memory)
    if begun:
        check_same_plan(folder, begun.plan, plan)
        listener.line(f"going on after epoch {begun.epoch}")
    state = begun or _new_state(plan, precision, views)
    classes = plan.split.classes
    model = build_model(recipe.method, len(classes), **state.arguments)
    guide = guide_for(model, recipe, classes, plan.training_slides, folder, listener)
    if earlier == "replace":
        forget(folder)
        fabric.barrier()
    accumulation = begin(recipe.accumulate, classes, recipe.epochs, folder / FOLDER, state.epoch)
    job = _job(plan, model, views, folder / FOLDER, listener, accumulation, guide)
    if fabric.is_global_zero:
        write_split(folder / FOLDER, plan.split)
    first, state = state.epoch, fit(fabric, model, job, state)
    end = Finished(state.history[state.best_epoch - 1], state.epoch, state.failed)
    if fabric.is_global_zero:
        model.load_state_dict(dict(state.best))
        save_last(accumulation, folder)
        finish(folder, plan, model.cpu(), state, end, command)
    fabric.barrier()
    return TrainingResult(folder, end.best, end.epochs, end.epochs - first, False, end.failed, fabric.is_global_zero)


def _new_state(plan: Plan, precision: str, views: OverviewMemory) -> TrainingState:
    arguments: dict[str, object] = {**plan.recipe.model, **plan.told}
    method, classes = plan.recipe.method, len(plan.split.classes)
    if plan.recipe.statistics != "builder":
        arguments |= _colours(plan, build_model(method, classes, **arguments), views)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(plan.recipe.seed, "weights"))
        model = build_model(method, classes, **arguments)
    if plan.recipe.start:
        take_weights(model, plan.recipe.start)
    if plan.recipe.encoder_start:
        take_encoder(model, plan.recipe.encoder_start)
    weights = {name: copied(value) for name, value in model.state_dict().items()}
    arguments = without_hub(model, arguments)
    return TrainingState(plan.digests, precision, weights, failed=dict(plan.surveyed.failed), arguments=arguments)


def _colours(plan: Plan, model: nn.Module, views: OverviewMemory) -> dict[str, object]:
    if plan.recipe.statistics == "encoder":
        return encoder_colours(model, plan.recipe.encoder_start, plan.recipe.model)
    mpp = contract_of(model).overview_mpp
    mean, std = tissue_colours(_examples(plan, plan.split.train, views, mpp), mpp)
    return {"mean": list(mean), "std": list(std)}


def _job(
    plan: Plan,
    model: nn.Module,
    views: OverviewMemory,
    folder: Path,
    listener: Listener,
    accumulation: Accumulation | None,
    guide: Guide | None,
) -> Job:
    def save(state: TrainingState) -> None:
        save_epoch(accumulation, folder, state.epoch)
        save_state(folder, state)
        tidy_epochs(folder, state.epoch)

    mpp = contract_of(model).overview_mpp
    train_set = _examples(plan, plan.split.train, views, mpp)
    classes = len(plan.split.classes)
    balanced = plan.recipe.class_weights == "balanced"
    weights = class_weights([example.label for example in train_set], classes) if balanced else (1.0,) * classes
    return Job(
        train_set,
        _examples(plan, plan.split.validation, views, mpp),
        plan.recipe,
        weights,
        save,
        listener,
        accumulation,
        guide,
    )


def _examples(plan: Plan, rows: Sequence[LabelRow], views: OverviewMemory, mpp: float) -> tuple[Example, ...]:
    return slide_examples(rows, plan.slides, plan.surveyed, plan.split.classes, views, mpp, plan.recipe.snap)
