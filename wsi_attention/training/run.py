"""`train`: labels and slides in, a model folder out; started again after a kill, it goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from wsi_attention.config import Recipe, as_recipe
from wsi_attention.defaults import FEATURE_STORE_GB
from wsi_attention.devices import device_of, fabric_on, precision_on
from wsi_attention.errors import InputError
from wsi_attention.files import given_path, given_paths
from wsi_attention.methods.method import Method, build_model, find_method
from wsi_attention.nn.overview_colours import NAMES, OverviewPixelOptions
from wsi_attention.nn.turned import one_turn
from wsi_attention.protocols import contract_of
from wsi_attention.slide.readers.remote.cache import by_default
from wsi_attention.targets.find import aim
from wsi_attention.training.accumulation import Accumulation, begin, save_epoch, save_last
from wsi_attention.training.accumulation import tidy as tidy_epochs
from wsi_attention.training.bags import Stored, bag_examples, stored_for, with_features
from wsi_attention.training.certainty import judged
from wsi_attention.training.curriculum import Lessons
from wsi_attention.training.curve import write_curve
from wsi_attention.training.data import MEMORY_BYTES, Example, Known, OverviewMemory, slide_examples, usable
from wsi_attention.training.encoder_choice import settled
from wsi_attention.training.features import Place, kept_features
from wsi_attention.training.folder import FETCHED, finish, forget, tidy, write_split
from wsi_attention.training.images import Views, image_examples, open_images
from wsi_attention.training.labels import LabelRow, class_weights
from wsi_attention.training.listener import Listener, Silent
from wsi_attention.training.loop import Job, fit
from wsi_attention.training.maps import Guide, guide_for
from wsi_attention.training.open_slides import OpenSlides
from wsi_attention.training.patients import PATIENT, patient_examples
from wsi_attention.training.plan import (
    FOLDER,
    Finished,
    Plan,
    check_same_plan,
    finished_before,
    make_plan,
)
from wsi_attention.training.start import (
    colours_of_start,
    encoder_colours,
    take_encoder,
    take_weights,
    tissue_colours,
    without_hub,
)
from wsi_attention.training.state import (
    EpochRecord,
    TrainingState,
    copied,
    load_state,
    save_state,
    seed_of,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric


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
    slides: str | Path | Iterable[str | Path] | None,
    output: str | Path,
    recipe: Recipe | str | Path | None = None,
    *,
    earlier: Literal["continue", "replace"] = "continue",
    device: str = "auto",
    processes: int = 1,
    memory: int = MEMORY_BYTES,
    series: str | None = None,
    feature_store: str | Path | None = None,
    feature_store_gb: float = FEATURE_STORE_GB,
    features: str | Path | None = None,
    images: str | Path | None = None,
    command: str = "",
    listener: Listener | None = None,
) -> TrainingResult:
    """Train a model and write its folder; an interrupted call, repeated, ends with the same model, bit for bit.

    Args:
        labels: CSV `slide,label[,patient][,mpp][,split][,series]`.
        slides: folders, files or URLs among which the labels' slides are found, one or several; None to train on
            features alone.
        output: the model folder; `training/` in it holds metrics.csv, learning_curve.svg, split.csv and, until
            the end, the state.
        recipe: all numbers: a `Recipe`, a TOML file or the name of a shipped one such as "ats"; that of the default
            method where None.
        earlier: "continue" a training in the folder, or "replace" it as soon as all the rest has proved usable.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps"; or several that work together, such as "cuda:0,cuda:1".
        processes: how many devices of one kind work together.
        memory: bytes for overviews kept between epochs.
        series: the number or name of the image that is the slide, for rows of the labels that do not say.
        feature_store: folder that keeps what a frozen encoder says of tiles, so that none is read and encoded again;
            trainings and `classify` may share it, and then agree with runs of their own up to the last bits, because
            tiles are encoded in other batches. `features` beside the model folder where None.
        feature_store_gb: limit of its size in GB; 0 keeps nothing.
        features: a folder of TRIDENT, CLAM, STAMP or LazySlide with features of the slides' tiles: attention takes the
            nearest of them instead of reading a tile. The slides are then seen as they are, without augmentation.
        images: in place of slides, plain images that are seen as they are (`tiles.images.Images`): a zarr array of
            bytes (n, h, w) or (n, h, w, c), which labels name by number, or a folder of .npy, PNG or JPEG files. Their
            µm per pixel is 1 where the labels do not say it.
        command: the command line, for the model card.
        listener: told how it goes.

    Returns:
        The model folder, its best epoch, and the slides that were left out.

    Raises:
        InputError: labels, slides, recipe or device are wrong, or the folder holds another training.
        DivergedError: loss, gradient or output is no number any more.
        ResultsError: the folder cannot be written.
    """
    recipe, folder = settled(as_recipe(recipe)), Path(given_path(output, "output", "the model folder to write"))
    table, plain = Path(given_path(labels, "labels", "a CSV")), open_images(images, recipe, bool(slides or features))
    places = () if plain else _places(slides, features)
    begun = load_state(folder / FOLDER) if earlier == "continue" else None
    precision = (
        begun.precision if begun else precision_on(device_of(device.split(",", maxsplit=1)[0]), recipe.precision)
    )
    fabric = fabric_on(device, processes, precision)
    listener = listener if listener and fabric.is_global_zero else Silent()
    with by_default(folder / FOLDER / FETCHED):
        doors = OpenSlides()
        plan = make_plan(table, places, recipe, listener, series, doors, features, plain)
        recipe = plan.recipe
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
        model = build_model(recipe.method, plan.target.outputs, **state.arguments)
        aim(model, plan.target)
        guide = guide_for(model, recipe, classes, plan.training_slides, folder, listener)
        if earlier == "replace":
            forget(folder)
            fabric.barrier()
        model.load_state_dict(dict(state.weights))
        place, arguments = Place(feature_store, feature_store_gb, folder), dict(state.arguments)
        stored = stored_for(plan.features, model, recipe.method, arguments) if plan.features else None
        alone = plain is not None or (plan.features is not None and plan.features.alone)
        known = None if alone else kept_features(place, recipe, model, arguments, precision, fabric.device, listener)
        accumulation = begin(recipe.accumulate, classes, recipe.epochs, folder / FOLDER, state.epoch)
        mpp, stride = contract_of(model).overview_mpp, contract_of(model).map_stride
        rest = partial(_examples, plan, known=known, doors=doors, stored=stored)
        open_all = partial(rest, views=views, mpp=mpp, stride=stride)
        job = _job(plan, open_all, folder / FOLDER, listener, accumulation, guide)
        if fabric.is_global_zero:
            write_split(folder / FOLDER, plan.split)
        first, state = state.epoch, _learnt(fabric, model, job, state, stored)
        end = Finished(state.history[state.best_epoch - 1], state.epoch, state.failed)
        model.load_state_dict(dict(state.best))
        learnt, kept = (usable(part, state.failed) for part in (job.train, job.validation))
        certainty, fitted = judged(fabric, model, learnt, kept, recipe, plan.target, listener)
        state = replace(state, arguments={**state.arguments, **fitted})
        if fabric.is_global_zero:
            save_last(accumulation, folder)
            finish(folder, plan, model.cpu(), state, end, command, certainty)
        doors.close()
        fabric.barrier()
        return TrainingResult(
            folder, end.best, end.epochs, end.epochs - first, False, end.failed, fabric.is_global_zero
        )


def _learnt(fabric: Fabric, model: nn.Module, job: Job, state: TrainingState, stored: Stored | None) -> TrainingState:
    """Return what training makes of a state; tiles are seen in one turn, unless files have their features."""
    with one_turn(model) if stored is None else nullcontext():
        return fit(fabric, model, job, state)


def _new_state(plan: Plan, precision: str, views: OverviewMemory) -> TrainingState:
    arguments = plan.arguments
    method, outputs = plan.recipe.method, plan.target.outputs
    if plan.recipe.statistics != "builder":
        arguments |= _colours(plan, build_model(method, outputs, **arguments), views)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(plan.recipe.seed, "weights"))
        model = build_model(method, outputs, **arguments)
    if plan.recipe.start:
        take_weights(model, plan.recipe.start)
    if plan.recipe.encoder_start:
        take_encoder(model, plan.recipe.encoder_start)
    weights = {name: copied(value) for name, value in model.state_dict().items()}
    arguments = without_hub(model, arguments)
    return TrainingState(plan.digests, precision, weights, failed=dict(plan.surveyed.failed), arguments=arguments)


def _colours(plan: Plan, model: nn.Module, views: OverviewMemory) -> dict[str, object]:
    mpp, names = contract_of(model).overview_mpp, ("mean", "std")
    told: dict[str, object] = {}
    if plan.recipe.statistics == "encoder":
        told, names = encoder_colours(model, plan.recipe.encoder_start, plan.recipe.model), NAMES
        if set(NAMES) & set(plan.recipe.model) or not _has_own_colours(plan):
            return told
        if plan.recipe.start:
            return told | colours_of_start(plan.recipe.start)
    found = tissue_colours(_examples(plan, plan.split.train, views, mpp), mpp)
    return told | {name: list(values) for name, values in zip(names, found, strict=True)}


def _has_own_colours(plan: Plan) -> bool:
    """Return whether the method's overview can have colours of its own, and there are slides to take them from."""
    method = find_method(plan.recipe.method)
    known = isinstance(method, Method) and issubclass(method.options, OverviewPixelOptions)
    return known and not plan.images and not (plan.features and plan.features.alone)


def _job(
    plan: Plan,
    examples: Callable[[Sequence[LabelRow]], tuple[Example, ...]],
    folder: Path,
    listener: Listener,
    accumulation: Accumulation | None,
    guide: Guide | None,
) -> Job:
    def save(state: TrainingState) -> None:
        save_epoch(accumulation, folder, state.epoch)
        save_state(folder, state)
        write_curve(folder, state.history, state.best_epoch)
        tidy_epochs(folder, state.epoch)

    train_set = examples(plan.split.train)
    classes = plan.target.weighed
    balanced = plan.recipe.class_weights == "balanced"
    weights = class_weights([example.label for example in train_set], classes) if balanced else (1.0,) * classes
    return Job(
        train_set,
        examples(plan.split.validation),
        plan.recipe,
        weights,
        save,
        listener,
        accumulation,
        guide,
        plan.target,
        _told(plan.curriculum, train_set, plan.recipe, listener),
    )


def _told(lessons: Lessons | None, examples: Sequence[Example], recipe: Recipe, listener: Listener) -> Lessons | None:
    """Say how the curriculum goes, where there is one, and return it."""
    if lessons:
        curriculum, first = recipe.curriculum, len(lessons.of_epoch(examples, 1, recipe.epochs))
        listener.line(
            f"curriculum: {curriculum.first} {curriculum.column} first; {first} of {len(examples)} {recipe.bag}s in "
            f"epoch 1, all of them from epoch {curriculum.all_from(recipe.epochs)} on"
        )
    return lessons


def _examples(
    plan: Plan,
    rows: Sequence[LabelRow],
    views: OverviewMemory,
    mpp: float,
    known: Known | None = None,
    doors: OpenSlides | None = None,
    stored: Stored | None = None,
    stride: int = 1,
) -> tuple[Example, ...]:
    surveyed, target, snap = plan.surveyed, plan.target, plan.recipe.snap
    if plan.images:
        return image_examples(rows, surveyed, target, plan.images, plan.recipe, Views(views.limit))
    if plan.features and plan.features.alone:
        if stored is None:
            raise InputError('statistics = "tissue" are of slides, and there are features alone; leave it out')
        return bag_examples(rows, surveyed, target, stored)
    found = slide_examples(rows, plan.slides, surveyed, target, views, mpp, snap, known, doors)
    if plan.recipe.bag == PATIENT:
        return patient_examples(found, mpp, stride)
    return found if stored is None else tuple(with_features(one, stored) for one in found)


def _places(slides: str | Path | Iterable[str | Path] | None, features: str | Path | None) -> tuple[str | Path, ...]:
    """Return where slides are; nowhere where there are features alone.

    Raises:
        InputError: there are neither.
    """
    if features is not None:
        given_path(features, "features", "a folder")
    places = () if slides is None else given_paths(slides, "slides", "a folder or a slide")
    if features is None and not places:
        raise InputError(
            "no slides are given (-i), no plain images (--images), and no features of them (--features): give one"
        )
    return places
