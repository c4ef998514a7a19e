"""Judging a model on images it does not learn from, with draws that are the same every time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from wsi_attention.errors import InputError, SlideError, WsiAttentionError
from wsi_attention.protocols import InParts, TileSource
from wsi_attention.statistics.figures import Figure, Judgement
from wsi_attention.statistics.metrics import Scores, score
from wsi_attention.targets.one_label import KIND, OneLabel
from wsi_attention.targets.target import Target
from wsi_attention.training.data import Example, ahead
from wsi_attention.training.processes import agreed, gathered
from wsi_attention.training.state import seed_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ONE_LABEL = OneLabel()


def validate(
    fabric: Fabric,
    model: nn.Module,
    examples: Sequence[Example],
    passes: int,
    told: Callable[[int], None],
    target: Target = ONE_LABEL,
) -> tuple[Tensor, dict[str, str]]:
    """Return probabilities (n, classes) of every image from repeatable draws; NaN rows, and why, where there are none.

    For another target these are the numbers (n, m) that stand for its logits (`Target.read`). Those of each part of a
    model that is `InParts` follow, (n, m · (1 + p)) in all; `apart` takes them apart.

    Raises:
        DivergedError: the model's output is not finite; no such image is passed over in silence.
    """
    mine = list(examples)[fabric.global_rank :: fabric.world_size]
    rows: dict[str, Tensor] = {}
    failed: dict[str, str] = {}
    with evaluating(model), torch.no_grad(), closing(ahead(mine)) as opened:
        for done, (example, source) in enumerate(opened, start=1):
            try:
                rows[example.name] = _numbers(fabric, model, example, source, passes, target)
            except SlideError as error:
                failed[example.name] = str(error)
            told(min(done * fabric.world_size, len(examples)))
    return gathered(fabric, examples, rows), agreed(fabric, examples, failed)


def apart(numbers: Tensor, parts: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the numbers (n, m) of the whole model, and those of each of its parts, from what `validate` returned."""
    whole, *others = numbers.tensor_split(1 + parts, dim=1)
    return whole, tuple(others)


def part_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the parts of a model that is `InParts`; none of another one."""
    return tuple(model.part_names) if isinstance(model, InParts) else ()


def part_figures(
    names: Sequence[str],
    numbers: Sequence[Tensor],
    examples: Sequence[Example],
    weights: Sequence[float],
    target: Target = ONE_LABEL,
) -> tuple[Figure, ...]:
    """Return for each part of a model its AUROC, or the first figure of another target; NaN where no image has it."""
    found = []
    for name, own in zip(names, numbers, strict=True):
        figure = Figure("AUROC", math.nan)
        if bool((own.isfinite().all(dim=1) & (own.shape[1] > 0)).any()):
            scores = scores_of(own, examples, weights, target)
            figure = (
                scores.figures[0]
                if isinstance(scores, Judgement)
                else Figure("AUROC", scores.auroc, scores.auroc_interval)
            )
        found.append(replace(figure, name=f"{figure.name} {name}"))
    return tuple(found)


def scores_of(
    probabilities: Tensor, examples: Sequence[Example], weights: Sequence[float], target: Target = ONE_LABEL
) -> Scores | Judgement:
    """Return scores over the rows that have probabilities, or other numbers of a target.

    Raises:
        InputError: none has.
    """
    labels = torch.tensor([example.label for example in examples], dtype=torch.long)
    known = probabilities.isfinite().all(1) & (probabilities.shape[1] > 0)
    if not bool(known.any()):
        raise InputError("no validation slide can be used; the lines above say why")
    patients = [example.patient or example.name for example, use in zip(examples, known.tolist(), strict=True) if use]
    if target.kind == KIND:
        return score(probabilities[known], labels[known], weights, patients)
    truths = [example.known for example, use in zip(examples, known.tolist(), strict=True) if use]
    return target.judged(probabilities[known], truths, patients)


def _numbers(
    fabric: Fabric, model: nn.Module, example: Example, source: TileSource | SlideError, passes: int, target: Target
) -> Tensor:
    if isinstance(source, SlideError):
        raise source
    with fabric.autocast(), diverging(f"validation, slide {example.name}"):
        outputs = [model(source, draws_of(example, i)) for i in range(passes)]
    mean = torch.stack([target.read(output.logits[0].double()) for output in outputs]).mean(0).cpu()
    if not bool(mean.isfinite().all()):
        raise DivergedError(f"the model's output is not finite at validation, slide {example.name}")
    if outputs[0].parts is None or not isinstance(model, InParts):
        return mean
    parts = [torch.stack([target.read(one.double()) for one in output.parts[0]]) for output in outputs]
    return torch.cat([mean, torch.stack(parts).mean(0).flatten().cpu()])


def draws_of(example: Example, number: int = 0) -> Generator:
    """Return the generator of an image's draws in a pass, the same in every epoch."""
    return Generator().manual_seed(seed_of("validation", example.key, number))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode for the time of a block; every module gets its own mode back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


class DivergedError(WsiAttentionError, ArithmeticError):
    """The loss, the gradient or the output is no longer a finite number."""


@contextmanager
def diverging(where: str) -> Iterator[None]:
    """Turn the `ValueError` of a model that meets NaN or infinity into a `DivergedError` that says where.

    Raises:
        DivergedError: the model met NaN or infinity.
    """
    try:
        yield
    except WsiAttentionError:
        raise
    except ValueError as error:
        raise DivergedError(f"the model cannot go on at {where}: {error}") from error
