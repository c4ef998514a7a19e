"""Which slides of a batch a model that learnt from patients looks at together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from wsi_attention.checkpoint import Classifier
from wsi_attention.errors import InputError
from wsi_attention.inference.batch.discovery import SlideFile
from wsi_attention.inference.batch.wishes import Wishes
from wsi_attention.inference.results.folder import Results


def check_features(classifier: Classifier, wishes: Wishes) -> None:
    """Raise InputError where features of files are asked of a model that looks at patients.

    Raises:
        InputError: they are.
    """
    if classifier.bag == "patient" and wishes.features is not None:
        raise InputError(
            f"model {classifier.name} looks at all slides of a patient together, and files of features know one slide"
            " each: leave --features out"
        )


def together(
    slides: Sequence[SlideFile], names: Sequence[str], folder: Results
) -> tuple[tuple[SlideFile, ...], list[str]]:
    """Return the slides, each with the others of its patient, and their names; those of a patient one after the other.

    Args:
        slides: of the call.
        names: of the slides in the results folder.
        folder: whose results know the patients of slides that this call says nothing of, and those that slides had
            before it.

    Raises:
        InputError: the results hold another slide of a patient, now or before, which this call does not ask for.
    """
    asked = dict(zip(names, slides, strict=True))
    states = folder.states
    whose = {name: slide.patient or _known(folder, name) for name, slide in asked.items()}
    own: defaultdict[str, list[str]] = defaultdict(list)
    for name, patient in whose.items():
        own[patient or f"\0{name}"].append(name)
    if states.of_patients:
        before = {_known(folder, name) for name in asked} - {None}
        for name, state in states.items():
            if name not in asked and (state.patient in own or state.patient in before):
                raise InputError(
                    f"patient {state.patient} has a slide in {folder.folder} that is not asked for now ({name}), and"
                    " this model looks at all of a patient's slides together: ask for all, or give another folder"
                )
    order = [name for members in own.values() for name in members]
    full = {name: replace(asked[name], patient=whose[name]) for name in order}
    beside = {name: tuple(full[other] for other in own[whose[name] or f"\0{name}"] if other != name) for name in order}
    return tuple(replace(full[name], beside=beside[name]) for name in order), order


def _known(folder: Results, name: str) -> str | None:
    state = folder.states.get(name)
    return state.patient if state else None
