"""The training loop: epochs of one slide after the other, the learning rate, the best epoch, when to stop.

lightning_fabric supplies devices, precision and processes. With several processes each takes its share of every step's
images, and gradients are summed before the step, so an image that drops out stalls nobody.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.optim import AdamW

from wsi_attention.config import Recipe
from wsi_attention.errors import InputError, SlideError
from wsi_attention.plain_text import lasting
from wsi_attention.protocols import EpochAware, LabelAware, TileSource, contract_of
from wsi_attention.structures import Output
from wsi_attention.targets.target import Target
from wsi_attention.training.accumulation import Accumulation
from wsi_attention.training.augment import AugmentedSource, draw_change
from wsi_attention.training.curriculum import Lessons
from wsi_attention.training.data import Example, ahead, usable
from wsi_attention.training.labels import class_weights
from wsi_attention.training.listener import Listener
from wsi_attention.training.maps import Guide
from wsi_attention.training.processes import agreed, gathered, share_buffers, sum_gradients
from wsi_attention.training.state import (
    EpochRecord,
    TrainingState,
    copied,
    optimiser_tensors,
    recorded,
    restore_optimiser,
    seed_of,
)
from wsi_attention.training.validation import (
    ONE_LABEL,
    DivergedError,
    apart,
    diverging,
    part_figures,
    part_names,
    scores_of,
    validate,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric


LOWEST = -math.inf
"""The merit of an epoch that has none: every other is better."""


@dataclass(frozen=True)
class Job:
    """What `fit` works on.

    Attributes:
        train: images to learn from.
        validation: images that judge.
        recipe: all numbers.
        class_weights: factor on the loss of each class.
        save: called with the state after each epoch, in the first process only.
        listener: told how it goes.
        accumulation: takes in the maps of every pass; None where none are kept.
        guide: maps of an earlier training, for a `Guided` model.
        target: what the model is asked for.
        lessons: which images take part in which epoch; None where all do.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    recipe: Recipe
    class_weights: tuple[float, ...]
    save: Callable[[TrainingState], None]
    listener: Listener
    accumulation: Accumulation | None = None
    guide: Guide | None = None
    target: Target = ONE_LABEL
    lessons: Lessons | None = None

    def of_epoch(self, epoch: int, failed: Mapping[str, str]) -> tuple[Job, tuple[Example, ...]]:
        """Return what an epoch works on, and the images that take part in it, with class weights that are theirs."""
        images = usable(self.train, failed)
        if self.lessons is None:
            return self, images
        images = self.lessons.of_epoch(images, epoch, self.recipe.epochs)
        if self.recipe.class_weights != "balanced":
            return self, images
        weights = class_weights([image.label for image in images], len(self.class_weights))
        return replace(self, class_weights=weights), images


def fit(fabric: Fabric, model: nn.Module, job: Job, state: TrainingState) -> TrainingState:
    """Train from `state` until the epochs or the patience are used up; the model ends with the last weights.

    Raises:
        DivergedError: loss, gradient or output is not finite; the state of the last whole epoch is still saved.
        InputError: more than half of the images cannot be used.
    """
    model = fabric.to_device(model)
    model.load_state_dict(dict(state.weights))
    settings = job.recipe.optimiser
    optimiser = AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    restore_optimiser(optimiser, state.optimiser)
    cards = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(cards), torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False):
        began, first = time.monotonic(), state.epoch
        while not finished(state, job.recipe):
            state = _epoch(fabric, model, optimiser, job, state)
            times = _times(time.monotonic() - began, state.epoch - first, job.recipe.epochs - state.epoch)
            job.listener.line(f"{_summary(state.history[-1], state.best_epoch, job.recipe.bag)}; {times}")
            if fabric.is_global_zero:
                job.save(state)
            fabric.barrier()
    return state


def _epoch(fabric: Fabric, model: nn.Module, optimiser: AdamW, job: Job, state: TrainingState) -> TrainingState:
    number = state.epoch + 1
    lesson, train = job.of_epoch(number, state.failed)
    loss, failed = _train(fabric, model, optimiser, lesson, train, number)
    failed = {**state.failed, **failed}
    judges = [example for example in job.validation if example.name not in failed]
    stage = f"validation {number}"
    numbers, lost = validate(
        fabric,
        model,
        judges,
        job.recipe.validation_passes,
        lambda done: job.listener.progress(stage, done, len(judges)),
        job.target,
    )
    failed |= lost
    _report_failures(job, state.failed, failed)
    names = part_names(model)
    whole, parts = apart(numbers, len(names))
    scores = scores_of(whole, judges, job.class_weights, job.target)
    record = recorded(number, optimiser.param_groups[0]["lr"], loss, scores, len(train), len(failed))
    record = replace(record, parts=part_figures(names, parts, judges, job.class_weights, job.target))
    weights = {name: copied(value) for name, value in model.state_dict().items()}
    state = replace(
        state,
        weights=weights,
        optimiser=optimiser_tensors(optimiser),
        history=(*state.history, record),
        failed=failed,
    )
    latest = state.best_epoch == 0 or (isinstance(model, EpochAware) and model.last_is_best)
    if latest or better(record, state.history[state.best_epoch - 1], job.recipe.best):
        state = replace(state, best=weights, best_epoch=number)
    return state


def _train(
    fabric: Fabric, model: nn.Module, optimiser: AdamW, job: Job, examples: Sequence[Example], epoch: int
) -> tuple[float, dict[str, str]]:
    """Run one pass over the images; return the mean loss, and those that failed."""
    order = torch.randperm(len(examples), generator=Generator().manual_seed(seed_of(job.recipe.seed, "order", epoch)))
    steps = np.array_split(order.numpy(), math.ceil(len(examples) / job.recipe.batch))
    shares = [[examples[i] for i in step[fabric.global_rank :: fabric.world_size]] for step in steps]
    failed: dict[str, str] = {}
    losses: dict[str, Tensor] = {}
    done = 0
    model.train()
    if isinstance(model, EpochAware):
        model.start_epoch(epoch, job.recipe.epochs, _shares(examples, len(job.class_weights)))
    with closing(ahead([example for share in shares for example in share])) as opened:
        for number, (step, share) in enumerate(zip(steps, shares, strict=True)):
            rate = learning_rate(job.recipe, epoch - 1 + (number + 0.5) / len(steps))
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.zero_grad(set_to_none=True)
            for _ in share:
                example, source = next(opened)
                try:
                    loss = _loss(fabric, model, job, example, source, epoch)
                except SlideError as error:
                    failed[example.name] = str(error)
                    continue
                if not math.isfinite(float(loss.detach())):
                    raise _diverged("loss", float(loss.detach()), example.name, epoch, number, job.recipe)
                fabric.backward(loss / len(step))
                losses[example.name] = loss.detach().double().cpu()
            done += len(step)
            if sum_gradients(fabric, model):
                norm = nn.utils.clip_grad_norm_(model.parameters(), job.recipe.optimiser.clip)
                if not math.isfinite(float(norm)):
                    names = ", ".join(example.name for example in share)
                    raise _diverged("gradient", float(norm), names, epoch, number, job.recipe)
                optimiser.step()
            job.listener.progress(f"epoch {epoch}", done, len(examples))
    share_buffers(fabric, model)
    if job.accumulation:
        job.accumulation.share(fabric, examples)
    every = gathered(fabric, examples, losses)
    return float(every.nanmean()) if len(every) else math.nan, agreed(fabric, examples, failed)


def _loss(
    fabric: Fabric, model: nn.Module, job: Job, example: Example, source: TileSource | SlideError, epoch: int
) -> Tensor:
    if isinstance(source, SlideError):
        raise source
    torch.manual_seed(seed_of(job.recipe.seed, "layers", epoch, example.key))
    change = draw_change(job.recipe.augmentation, _generator(job.recipe.seed, "change", epoch, example.key))
    draws = _generator(job.recipe.seed, "draws", epoch, example.key)
    contract = contract_of(model)
    downsample = source.overview_downsample(contract.overview_mpp)
    augmented = AugmentedSource(source, change, downsample, contract.map_stride)
    target = job.target.tensor([example.known])
    with fabric.autocast():
        with diverging(f"epoch {epoch}, slide {example.name}"):
            if isinstance(model, LabelAware):
                output: Output = model.learning_pass(augmented, target, draws)
            else:
                output = model(augmented, draws)
        target = target.to(output.logits.device)
        learnt = job.guide.maps_for(example, augmented, output) if job.guide else None
        if learnt is None:
            loss: Tensor = model.loss(output, target)  # type: ignore[operator]
        else:
            loss = model.guided_loss(output, target, learnt)  # type: ignore[operator]
    if job.accumulation:
        job.accumulation.add(example, augmented, output, epoch)
    return loss * job.class_weights[example.label]


def _shares(examples: Sequence[Example], classes: int) -> list[float]:
    counts = np.bincount([example.label for example in examples], minlength=classes)
    return [float(share) for share in counts / max(1, counts.sum())]


def _diverged(what: str, value: float, name: str, epoch: int, step: int, recipe: Recipe) -> DivergedError:
    return DivergedError(
        f"the {what} is {value} at epoch {epoch}, step {step + 1}, slide {name}; the last whole epoch is kept; "
        f"a learning rate below {recipe.optimiser.learning_rate:g} or precision 32 may help, in a new output folder"
    )


def _report_failures(job: Job, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    for name in now:
        if name not in before:
            job.listener.line(f"left out: {name}: {now[name]}")
    every = {example.name for example in (*job.train, *job.validation)} | now.keys()
    too_many_failed(now, len(every))


def too_many_failed(failed: Mapping[str, str], total: int) -> None:
    """Raise InputError where more than half of the slides cannot be used.

    Raises:
        InputError: too many failed; the text gives the first reason.
    """
    if 2 * len(failed) > total:
        reason = next(iter(failed.values()))
        raise InputError(f"{len(failed)} of {total} slides cannot be used, more than half; the first: {reason}")


def _summary(record: EpochRecord, best: int, bag: str) -> str:
    mark = "  (best)" if best == record.epoch else f"  (best: {best})"
    shown = f"AUROC {record.val_auroc:.4f}, accuracy {record.val_accuracy:.3f}"
    if record.figures:
        shown = ", ".join(f"{one.name} {one.value:.4f}" for one in record.figures)
    shown += f" ({', '.join(f'{one.name} {one.value:.4f}' for one in record.parts)})" if record.parts else ""
    return (
        f"epoch {record.epoch}: loss {record.train_loss:.4f}, validation loss {record.val_loss:.4f}, "
        f"{shown} of {record.val_slides} {bag}s{mark}"
    )


def _times(spent: float, done: int, left: int) -> str:
    """Return the time since the start and what the epochs that are left take, fewer where patience ends them."""
    return f"{lasting(spent)} spent" + (f", at most {lasting(left * spent / done)} left" if left else "")


def _generator(*parts: object) -> Generator:
    return Generator().manual_seed(seed_of(*parts))


def finished(state: TrainingState, recipe: Recipe) -> bool:
    """Return True where nothing is left to train; patience begins when all slides of a curriculum take part."""
    waits_from = max(state.best_epoch, recipe.curriculum.all_from(recipe.epochs) - 1)
    return state.epoch >= recipe.epochs or (state.epoch > 0 and state.epoch - waits_from >= recipe.patience)


def better(new: EpochRecord, old: EpochRecord, best: str = "auroc") -> bool:
    """Return True for a higher validation AUROC, or an equal one (or none) with a lower loss; by that loss alone; or
    always, where the last epoch is wanted.

    For another target its own first figure stands for the AUROC (`statistics.figures.Judgement`).
    """
    if best == "last":
        return True
    if best == "loss":
        return new.val_loss < old.val_loss
    first, second = (LOWEST if math.isnan(record.merit) else record.merit for record in (new, old))
    return (first, -new.val_loss) > (second, -old.val_loss)


def learning_rate(recipe: Recipe, progress: float) -> float:
    """Return the rate after `progress` epochs: linear warm-up, then constant or a cosine down to 0 at the end."""
    settings = recipe.optimiser
    if progress < settings.warmup_epochs:
        return settings.learning_rate * progress / settings.warmup_epochs
    if settings.schedule == "constant":
        return settings.learning_rate
    share = (progress - settings.warmup_epochs) / max(recipe.epochs - settings.warmup_epochs, 1e-9)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
