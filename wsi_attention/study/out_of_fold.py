"""Predictions of all slides by models that have not seen them, as one results folder: `out_of_fold/` of a study."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import InputError, ResultsError
from wsi_attention.evaluation.overlap import EARLIER_WEIGHTS, OUT_OF_FOLD, PATIENTS_GIVEN
from wsi_attention.export.chosen import exporters_of
from wsi_attention.export.patients import deciding_figures
from wsi_attention.export.record import to_record
from wsi_attention.export.table import figures
from wsi_attention.files import write_text
from wsi_attention.inference.batch.discovery import SlideFile
from wsi_attention.inference.batch.matching import SlideNames
from wsi_attention.inference.batch.names import assign_names
from wsi_attention.inference.pictures import write_unfinished
from wsi_attention.inference.results.folder import open_results
from wsi_attention.inference.results.state import FOLDER, RunKey, State, prediction_of, read_state, read_states
from wsi_attention.methods.ensemble import disagreement, merged_glimpses, merged_maps
from wsi_attention.structures import Counters, Prediction
from wsi_attention.study.fold import EXPORTS, HELD_OUT
from wsi_attention.study.plan import StudyPlan
from wsi_attention.training.labels import LabelRow

RUN = "run_out_of_fold.json"
"""What says whose results they are; without a time, so that the same study has the same files."""
REMARKS = "seen_in_training"
"""Key in it of sentences on slides that judge although a model had seen them, or may have."""


@dataclass(frozen=True, eq=False)
class Judged:
    """What the models of a study say of slides that they have not seen, beside the truth; one entry a slide.

    Attributes:
        slides: names in the results folder.
        patients: whose they are; the slide itself where the labels do not say.
        classes: class names.
        labels: (n,) int64, the true class.
        probabilities: (n, classes), of one fold's model itself, whatever its calibration makes of them, or the mean
            over repeats.
    """

    slides: tuple[str, ...]
    patients: tuple[str, ...]
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @property
    def logits(self) -> NDArray[np.float64]:
        """(n, classes), the logarithms of the probabilities."""
        return np.asarray(np.log(np.maximum(self.probabilities, np.finfo(np.float64).tiny)))

    @property
    def sha256(self) -> str:
        """Tell these predictions and labels from others."""
        told = [self.slides, self.patients, self.classes, self.labels.tolist(), self.probabilities.tolist()]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def gather(study: Path, plan: StudyPlan) -> tuple[State, ...]:
    """Write `out_of_fold/` anew from the results of the folds; return its states, without their records.

    A slide that several repeats predict has the mean of their probabilities. Column `seconds` is 0: a time would not be
    the same in a study that was interrupted.

    Args:
        study: the folder.
        plan: what it is about.

    Raises:
        ResultsError: the results of a fold are not there, or the folder cannot be written.
        InputError: two slides have one name.
    """
    found = _held_out(study, plan)
    run = RunKey("the models of the folds", _digest_of(plan), {"classes": list(plan.classes), OUT_OF_FOLD: True})
    with open_results(study / OUT_OF_FOLD, run, "overwrite") as results:
        for name in sorted(found):
            results.add(_stated(name, found[name], run, results.folder))
        results.write_table()
        return tuple(results.states[name] for name in sorted(found))


def write_run(study: Path, plan: StudyPlan, weights_sha256: str = "", remarks: Sequence[str] = ()) -> None:
    """Say in `out_of_fold/` which ensemble the models belong to that made it, and what they had seen before.

    Args:
        study: the folder, which is the ensemble's too.
        plan: what it is about.
        weights_sha256: of the ensemble; empty where there is none yet.
        remarks: what people should know of slides that judge although a model had seen them.

    Raises:
        ResultsError: it cannot be written.
    """
    model = {"name": study.name, "folder": str(study.resolve()), "weights_sha256": weights_sha256, OUT_OF_FOLD: True}
    model[PATIENTS_GIVEN] = all(row.has_patient for row in plan.rows)
    model[EARLIER_WEIGHTS] = bool(plan.recipe.start or plan.recipe.encoder_start)
    content = {"model": model, REMARKS: list(remarks)}
    write_text(study / OUT_OF_FOLD / RUN, json.dumps(content, indent=2) + "\n")


def judged(study: Path, plan: StudyPlan) -> Judged:
    """Return the predictions of a study's `out_of_fold/` beside the truth; slides without a prediction are left out."""
    rows, entries = rows_by_name(study / OUT_OF_FOLD, plan), []
    for state in read_states(study / OUT_OF_FOLD):
        if state.record is not None and state.name in rows:
            row = rows[state.name]
            shares, _ = _own(prediction_of(state, study / OUT_OF_FOLD))
            entries.append((state.name, row.patient, plan.classes.index(row.label), shares))
    names, patients, labels, shares_of = zip(*entries, strict=True) if entries else ((), (), (), ())
    shape = (len(names), len(plan.classes))
    return Judged(
        names, patients, plan.classes, np.array(labels, np.int64), np.array(shares_of, np.float64).reshape(shape)
    )


def rows_by_name(results: Path, plan: StudyPlan) -> dict[str, LabelRow]:
    """Return the row of the labels of each slide of a results folder, by its name there."""
    rows = {row.slide: row for row in plan.rows}
    return {name: rows[slide] for slide, name in names_of(read_states(results), rows, plan.table.path).items()}


def names_of(states: Iterable[State], slides: Iterable[str], labels: str) -> dict[str, str]:
    """Return slide of the labels -> its name in a results folder, of those that are there."""
    index = SlideNames(labels)
    for state in states:
        index.add(state.name, (state.name, Path(state.path).name, state.path))
    found = {slide: index.find(slide) for slide in slides}
    return {slide: name for slide, name in found.items() if name is not None}


def check_names(plan: StudyPlan, slides: Mapping[str, SlideFile]) -> None:
    """Raise InputError where two slides would have one name in the results, as they lie in different folds.

    Args:
        plan: of the study.
        slides: slide of the labels -> its file, of those that there are.
    """
    owners: dict[str, str] = {}
    for fold in plan.folds:
        own = [slides[row.slide] for row in plan.held_out(fold) if row.slide in slides]
        for key, name in assign_names([(one.key, one.place) for one in own], {}).items():
            first = owners.setdefault(name.casefold(), key)
            if first != key:
                raise InputError(f"{plan.table.path}: {first} and {key} are both called {name}; rename one of them")


def _held_out(study: Path, plan: StudyPlan) -> dict[str, list[tuple[str, Path, str]]]:
    """Return for each slide's name its (fold, results folder, path of the slide) of each repeat."""
    found: dict[str, list[tuple[str, Path, str]]] = {}
    for fold in plan.folds:
        folder = study / "folds" / fold.name / HELD_OUT
        states = list(read_states(folder)) if (folder / FOLDER).is_dir() else []
        if len(states) != len(fold.slides("test")):
            raise ResultsError(f"{folder} has {len(states)} of {len(fold.slides('test'))} slides; crossvalidate again")
        for state in states:
            found.setdefault(state.name, []).append((fold.name, folder, state.path))
    for name, own in found.items():
        if len({path for _, _, path in own}) > 1:
            raise InputError(
                f"{plan.table.path}: {own[0][2]} and {own[1][2]} are both called {name}; rename one of them"
            )
    return found


def _stated(name: str, own: Sequence[tuple[str, Path, str]], run: RunKey, folder: Path) -> State:
    """Return a slide's state, its exports written under their temporary names."""
    states = [(fold, results, read_state(results / FOLDER / f"{name}.json")) for fold, results, _ in own]
    there = [(fold, results, state) for fold, results, state in states if state is not None]
    predictions = [prediction_of(state, results) for _, results, state in there if state.record]
    if not predictions:
        return replace(there[0][2], run=run, seconds=0.0, exports=(), options={}, traceback=None)
    failed = [f"fold {fold} has no prediction: {state.reason}" for fold, _, state in there if not state.record]
    mean = mean_prediction(predictions)
    mean = replace(mean, notes=(*mean.notes, *failed), counters=replace(mean.counters, seconds=0.0))
    first = next(state for _, _, state in there if state.record)
    return replace(
        first,
        run=run,
        status=mean.status,
        reason="; ".join(mean.shortfalls),
        row=figures(mean) | deciding_figures(mean),
        seconds=0.0,
        exports=tuple(_exported(mean, name, folder)),
        options={},
        traceback=None,
        record=to_record(mean),
    )


def _exported(prediction: Prediction, name: str, folder: Path) -> Iterator[str]:
    for exporter in exporters_of(EXPORTS):
        relative = exporter.suffix.format(slide=name)
        write_unfinished(exporter, prediction, folder / relative, slide_name=lambda: name)
        yield relative


def mean_prediction(predictions: Sequence[Prediction]) -> Prediction:
    """Return several models' predictions of one slide as one: a single one as it is, of more the mean.

    Numbers are merged as `methods.ensemble.merged` does it. A conformal set holds what any of the models' sets holds,
    and is there where each model has one.
    """
    first = predictions[0]
    if len(predictions) == 1:
        return first
    shares = np.stack([one.probabilities for one in predictions])
    unread = [one.unread_mass for one in predictions if one.unread_mass is not None]
    unlike = [one.unlike for one in predictions if one.unlike is not None]
    notes = dict.fromkeys(note for one in predictions for note in one.notes)
    return replace(
        first,
        probabilities=shares.mean(0),
        spread=_mean_error([one.spread for one in predictions]),
        glimpses=merged_glimpses([one.glimpses for one in predictions]),
        maps=merged_maps([one.maps for one in predictions]),
        counters=sum((one.counters for one in predictions), Counters()),
        provenance={**first.provenance, **_origin(predictions)},
        notes=(*disagreement(first.classes, shares), *notes),
        shortfalls=tuple(dict.fromkeys(text for one in predictions for text in one.shortfalls)),
        unread_mass=float(np.mean(unread)) if len(unread) == len(predictions) else None,
        among=_union(first.classes, [one.among for one in predictions]),
        unlike=float(np.mean(unlike)) if len(unlike) == len(predictions) else None,
    )


def _mean_error(spreads: Sequence[float | None]) -> float | None:
    """Return the standard error of a mean of independent probabilities; those that nothing was drawn for have none."""
    known = [spread for spread in spreads if spread is not None]
    return math.hypot(*known) / len(spreads) if known else None


def _union(classes: Sequence[str], sets: Sequence[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    known = [one for one in sets if one is not None]
    return tuple(name for name in classes if any(name in one for one in known)) if len(known) == len(sets) else None


def _origin(predictions: Sequence[Prediction]) -> dict[str, object]:
    """Return which models these are, and what they say without their calibrations where they have some."""
    weights = hashlib.sha256("".join(str(one.provenance["weights_sha256"]) for one in predictions).encode())
    found: dict[str, object] = {"model": "+".join(str(one.provenance["model"]) for one in predictions)}
    found["weights_sha256"] = weights.hexdigest()
    if any(one.calibrated for one in predictions):
        own = [_own(one) for one in predictions]
        mean = np.mean([shares for shares, _ in own], axis=0)
        found["uncalibrated"] = {"probabilities": mean.tolist(), "spread": _mean_error([error for _, error in own])}
    return found


def _own(prediction: Prediction) -> tuple[NDArray[np.float64], float | None]:
    """Return the probabilities of the model itself, and their error, without its calibration."""
    said = prediction.provenance.get("uncalibrated")
    if not isinstance(said, Mapping):
        return prediction.probabilities, prediction.spread
    return np.array(said["probabilities"], np.float64), said["spread"]


def _digest_of(plan: StudyPlan) -> str:
    return hashlib.sha256(json.dumps(plan.digests, sort_keys=True).encode()).hexdigest()
