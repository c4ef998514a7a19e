"""How far to believe the labels of a model that has just been trained, fitted on its slides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_attention.certainty.calibration import fit_calibration
from wsi_attention.certainty.conformal import fit_conformal
from wsi_attention.certainty.familiar import fit_familiar
from wsi_attention.certainty.fitted import PARTS, Certainty
from wsi_attention.certainty.logits import too_few
from wsi_attention.certainty.traits import GROUPS, Traits, spaced
from wsi_attention.config import Recipe
from wsi_attention.errors import SlideError
from wsi_attention.inference.traits import traits_of
from wsi_attention.protocols import Holding
from wsi_attention.structures import UNDECIDED
from wsi_attention.targets.one_label import KIND
from wsi_attention.targets.target import Target
from wsi_attention.training.data import Example, ahead
from wsi_attention.training.listener import Listener
from wsi_attention.training.processes import gathered
from wsi_attention.training.validation import diverging, draws_of, evaluating

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MOST = 200
"""Training slides that are looked at once more to know what slides look like; more would tell little."""

ONLY = "and this is for one label a slide"
"""Why nothing is fitted to another target, after what it is."""


@dataclass(frozen=True)
class Looks:
    """What one look at each of some slides, as in prediction, has shown.

    Attributes:
        examples: the slides that could be read.
        logits: (n, classes).
        traits: of each.
        said: (n, classes) the most that a tile said for each class, where the model is `protocols.Holding`.
    """

    examples: tuple[Example, ...] = ()
    logits: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    traits: tuple[Traits, ...] = ()
    said: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))

    @property
    def patients(self) -> list[str]:
        """Whose slides they are."""
        return [patient_of(example) for example in self.examples]


def judged(
    fabric: Fabric,
    model: nn.Module,
    training: Sequence[Example],
    validation: Sequence[Example],
    recipe: Recipe,
    target: Target,
    listener: Listener,
) -> tuple[Certainty, Mapping[str, object]]:
    """Look at the slides once more, as prediction does, and fit what the recipe asks for; to one label a slide alone.

    A model that can be held is held to what its tiles said meanwhile; its options that say so are returned.

    Calibration and sets rest on the validation slides. These chose the epoch too, so the model looks a little better on
    them than on others; what that may cost is in docs/uncertainty.md, and out-of-fold predictions are freer of it.

    Args:
        fabric: of the run.
        model: with the weights to keep.
        training: the training slides that can be used.
        validation: the validation slides that can be used.
        recipe: says what to fit.
        target: what the model was asked for.
        listener: told how it goes, and what was fitted.
    """
    if target.kind != KIND:
        nothing = Certainty(missing=dict.fromkeys(PARTS, f"the model was asked for {target.kind}, {ONLY}"))
        return _told(nothing, listener), {}
    classes = target.names
    fits = (recipe.calibration != "none" or recipe.conformal > 0) and not too_few([*map(patient_of, validation)])
    compares = recipe.familiar and not too_few([*map(patient_of, (*training, *validation))])
    some = [training[i] for i in spaced(len(training), MOST)] if compares else []
    judges = list(validation) if fits or compares else []
    every, total = [*some, *judges], len(some) + len(judges)
    seen = looked(fabric, model, every, compares, lambda done: listener.progress("judging", done, total))
    kept = {example.name for example in judges}
    known = [row for row, example in enumerate(seen.examples) if example.name in kept]
    logits = seen.logits[known].reshape(len(known), len(classes)) if fits else np.zeros((len(validation), len(classes)))
    own = [seen.examples[row] for row in known] if fits else validation
    found = fitted(logits, [one.label for one in own], [*map(patient_of, own)], recipe, classes)
    found = with_familiar(found, seen if compares else Looks((*training, *validation)), kept, recipe)
    return _told(found, listener), _held(model, seen)


def _held(model: nn.Module, seen: Looks) -> Mapping[str, object]:
    """Hold a model to what its tiles have said, and return the options that say so."""
    return model.hold(seen.said.max(axis=0).tolist()) if isinstance(model, Holding) and seen.said.size else {}


def _told(found: Certainty, listener: Listener) -> Certainty:
    for line in found.sentences:
        listener.line(f"note: {line}")
    return found


def patient_of(example: Example) -> str:
    """Return whose slide it is; its own name where nobody says."""
    return example.patient or example.name


def fitted(
    logits: NDArray[np.float64],
    labels: Sequence[int],
    patients: Sequence[str],
    recipe: Recipe,
    classes: Sequence[str],
) -> Certainty:
    """Return what a recipe asks to fit to predictions, and why something cannot be.

    Args:
        logits: (n, classes) of slides that trained nothing.
        labels: (n,) class indices.
        patients: (n,) whose slides they are.
        recipe: says what to fit.
        classes: names in the order of the logits.
    """
    calibration, plain = fit_calibration(logits, labels, patients, recipe.calibration)
    conformal, bare = None, "the recipe says conformal = 0"
    if recipe.conformal and UNDECIDED in classes:
        bare = f"a class is called {UNDECIDED!r}, as a withheld label would be"
    elif recipe.conformal and (odd := next((one for one in classes if "|" in one), None)):
        bare = f"a class is called {odd!r}, and | stands between the classes of a set"
    elif recipe.conformal:
        by_class = recipe.conformal_by == "class"
        conformal, bare = fit_conformal(logits, labels, patients, recipe.conformal, by_class, classes)
    missing = {"calibration": plain, "conformal": bare}
    return Certainty(calibration, conformal, None, {name: reason for name, reason in missing.items() if reason})


def with_familiar(found: Certainty, seen: Looks, judges: set[str], recipe: Recipe) -> Certainty:
    """Return the same, with what the slides look like, or why that is not known.

    Args:
        found: without it.
        seen: looks at training and validation slides.
        judges: names of those that trained nothing.
        recipe: says whether to learn it.
    """
    if not recipe.familiar:
        return replace(found, missing={**found.missing, "familiar": "the recipe says familiar = false"})
    familiar, why = fit_familiar(seen.traits, seen.patients, [one.name in judges for one in seen.examples])
    return replace(found, familiar=familiar, missing={**found.missing, **({"familiar": why} if why else {})})


def looked(
    fabric: Fabric, model: nn.Module, examples: Sequence[Example], compares: bool, told: Callable[[int], None]
) -> Looks:
    """Look once at each slide in eval mode; those that cannot be read are left out.

    Args:
        fabric: of the run; its processes share the slides.
        model: on the run's device.
        examples: the slides.
        compares: whether traits are wanted.
        told: called with the number of slides done.
    """
    rows: dict[str, Tensor] = {}
    mine = list(examples)[fabric.global_rank :: fabric.world_size]
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in GROUPS}
    told_by: dict[str, Tensor] = {}
    with evaluating(model), torch.no_grad(), closing(ahead(mine)) as opened:
        for done, (example, source) in enumerate(opened, start=1):
            try:
                if isinstance(source, SlideError):
                    raise source
                with fabric.autocast(), diverging(f"the last look, slide {example.name}"):
                    output = model(source, draws_of(example))
                for name, values in (traits_of(model, source, output) if compares else {}).items():
                    parts[name][example.name] = torch.from_numpy(values)
                if isinstance(model, Holding):
                    told_by[example.name] = model.said(output)[0].double().cpu()
                rows[example.name] = output.logits[0].double().cpu()
            except SlideError:
                continue
            told(min(done * fabric.world_size, len(examples)))
    logits = gathered(fabric, examples, rows).numpy()
    groups = {name: gathered(fabric, examples, own).numpy() for name, own in parts.items()} if compares else {}
    there: list[int] = np.flatnonzero(np.isfinite(logits).all(axis=1)).tolist() if logits.size else []
    traits = [{name: values[row] for name, values in groups.items() if _known(values[row])} for row in there]
    said = gathered(fabric, examples, told_by).numpy()[there]
    return Looks(tuple(examples[row] for row in there), logits[there], tuple(traits), said)


def _known(values: NDArray[np.float64]) -> bool:
    return bool(values.size and np.isfinite(values).all())
