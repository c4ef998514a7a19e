"""`crossvalidate`: labels and slides in; folds, predictions of unseen slides, and an ensemble out."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from wsi_attention.checkpoint import CONFIG, README, WEIGHTS
from wsi_attention.config import Recipe, as_recipe
from wsi_attention.defaults import FEATURE_STORE_GB
from wsi_attention.devices import device_of
from wsi_attention.errors import InputError
from wsi_attention.evaluation.evaluation import Evaluation, evaluate
from wsi_attention.evaluation.overlap import OUT_OF_FOLD
from wsi_attention.files import given_path, given_paths, results_errors, write_if_new, write_text
from wsi_attention.inference.predict import versions
from wsi_attention.inference.results.folder import locked
from wsi_attention.inference.results.state import State
from wsi_attention.json_values import parse
from wsi_attention.slide.urls import masked
from wsi_attention.study.certainty import Sight, known_before, study_certainty
from wsi_attention.study.ensemble import joined, save_ensemble
from wsi_attention.study.fold import LABELS, FoldJob, HeldOut
from wsi_attention.study.folds import Division
from wsi_attention.study.out_of_fold import check_names, gather, judged, rows_by_name, write_run
from wsi_attention.study.plan import StudyPlan, make_plan
from wsi_attention.study.record import FOLDS, MARKDOWN, PAGE, STUDY, write_record
from wsi_attention.study.side_by_side import do_folds
from wsi_attention.training.bags import find_bags
from wsi_attention.training.data import data_fingerprint
from wsi_attention.training.encoder_choice import settled
from wsi_attention.training.labels import Split
from wsi_attention.training.listener import Listener, Silent
from wsi_attention.training.patients import check_bags
from wsi_attention.training.plan import check_options

TABLE = "folds.csv"


@dataclass(frozen=True)
class StudyResult:
    """What a call of `crossvalidate` led to.

    Attributes:
        folder: of the study, which is the ensemble's model folder too.
        predictions: results folder of the slides, each predicted by models that have not seen its patient.
        evaluation: of these predictions.
        folds: names of the folds.
    """

    folder: Path
    predictions: Path
    evaluation: Evaluation
    folds: tuple[str, ...]


def crossvalidate(
    labels: str | Path,
    slides: str | Path | Iterable[str | Path] | None,
    output: str | Path,
    recipe: Recipe | str | Path | None = None,
    *,
    folds: int = 5,
    repeats: int = 1,
    site: str | None = None,
    earlier: Literal["continue", "replace"] = "continue",
    device: str = "auto",
    processes: int = 1,
    series: str | None = None,
    feature_store: str | Path | None = None,
    feature_store_gb: float = FEATURE_STORE_GB,
    features: str | Path | None = None,
    command: str = "",
    listener: Listener | None = None,
) -> StudyResult:
    """Train a model for each fold of the patients, predict the slides it has not seen, join the models to an ensemble.

    An interrupted call, repeated, goes on where it was and ends with the same files.

    Args:
        labels: CSV `slide,label[,patient][,mpp][,split][,series]`; patients with a slide of
            split "test" take no part.
        slides: as in `training.train`.
        output: the study's folder. It is a model folder, of the ensemble; `out_of_fold/` in it is a results folder,
            `folds/1-2/` the model of fold 2 in repeat 1.
        recipe: as in `training.train`; all folds have the same, with the same seed.
        folds: how many parts the patients are divided into, by label; a patient is in one part.
        repeats: how often they are divided anew.
        site: column of the labels whose slides of one value stay in one part.
        earlier: "continue" a study in the folder, or "replace" it.
        device: as in `training.train`; several, such as "cuda:0,cuda:1", each do one fold at a time.
        processes: how many folds are done at a time, each by a process of its own where it is more than one.
        series, feature_store, feature_store_gb, features, command: as in `training.train`. All folds share one store.
        listener: told how it goes.

    Raises:
        InputError: labels, slides, recipe or device are wrong, the patients cannot be divided so, or the folder holds
            something else.
        WsiAttentionError: a fold failed; what is finished is kept.
    """
    table, folder = (
        Path(given_path(labels, "labels", "a CSV")),
        Path(given_path(output, "output", "the study's folder")),
    )
    places = () if slides is None else tuple(map(str, given_paths(slides, "slides", "a folder or a slide")))
    if features is None and not places:
        raise InputError("no slides are given (-i), and no features of them (--features): give one, or both")
    listener, command = listener or Silent(), masked(command)
    plan = make_plan(table, settled(as_recipe(recipe)), Division(folds, repeats, as_recipe(recipe).seed, site))
    _announce(plan, listener)
    _check(plan, folder, places, features, device)
    with locked(folder):
        _begin(folder, plan, earlier, command)
        jobs = [
            FoldJob(
                folder=str(folder / FOLDS / fold.name),
                recipe=plan.recipe.as_dict(),
                slides=places,
                device=device,
                series=series,
                feature_store=None if feature_store is None else str(feature_store),
                feature_store_gb=float(feature_store_gb),
                features=None if features is None else str(features),
                command=command,
            )
            for fold in plan.folds
        ]
        do_folds(jobs, processes, listener)
        return _finish(folder, plan, command, Sight(places, device, series), listener)


def _check(plan: StudyPlan, folder: Path, places: Sequence[str], features: str | Path | None, device: str) -> None:
    """Raise InputError where no fold could be done, before the folder is touched."""
    check_options(plan.recipe)
    for one in device.split(","):
        device_of(one)
    check_bags(plan.recipe, Split(plan.classes, plan.rows, ()), plan.table.path, features)
    rows = plan.rows
    if features is not None:
        known = find_bags(features, rows, plan.table.path)
        rows = rows if places else tuple(row for row in rows if row.slide in known)
    order = HeldOut(tuple(places), rows=rows, labels=plan.table.path)
    found = order.found(folder / FOLDS) if places else order.bags(str(features))
    check_names(plan, {row.slide: slide for row, slide in zip(rows, found.slides, strict=True)})


def _announce(plan: StudyPlan, listener: Listener) -> None:
    whose = f"of {plan.patients} patients" if plan.patients_given else "(no patients given: each slide counts as one)"
    repeats = f" in each of {plan.wanted.repeats} repeats" if plan.wanted.repeats > 1 else ""
    site = f", {len(set(plan.sites.values()))} values of {plan.wanted.site} kept apart" if plan.wanted.site else ""
    listener.line(f"{len(plan.rows)} slides {whose} in {plan.wanted.folds} folds{repeats}{site}")
    if plan.left_out:
        listener.line(f"note: {len(plan.left_out)} slides take no part, as their split is test")
    if plan.related:
        patients = sorted({row.patient for row in plan.related})
        names = ", ".join(patients[:10]) + (", …" if len(patients) > 10 else "")
        listener.line(
            f"note: {len(plan.related)} more slides take no part, as other slides of their patients are kept for the"
            f" test: {names}"
        )


def _begin(folder: Path, plan: StudyPlan, earlier: str, command: str) -> None:
    """Make the folder ready for the plan: what is there must be the same study, or be replaced."""
    path = folder / STUDY
    if path.is_file() and earlier == "replace":
        _forget(folder, [LABELS] if _others_labels(folder, plan) else [])
    elif path.is_file():
        stored = _stored(path)
        other = [name for name, digest in plan.digests.items() if stored.get(name) != digest]
        if other:
            raise InputError(
                f"{folder} holds a study with different {' and '.join(other)}; choose another output folder, or"
                " --overwrite to begin anew"
            )
    elif any((folder / name).exists() for name in (CONFIG, FOLDS)) or _others_labels(folder, plan):
        raise InputError(f"{folder} holds something that is no study; choose another output folder")
    about = {
        "plan": plan.digests,
        "command": command,
        "labels": plan.table.path,
        "wanted": asdict(plan.wanted),
        "folds": [fold.name for fold in plan.folds],
        "left_out": list(plan.left_out),
        "related": [row.slide for row in plan.related],
        "patients_given": plan.patients_given,
        "versions": {**versions(), "Python": platform.python_version()},
    }
    write_text(path, json.dumps(about, indent=2, sort_keys=True) + "\n")
    write_if_new(folder / TABLE, [plan.table_of_folds()])
    if _others_labels(folder, plan) or not (folder / LABELS).exists():
        write_if_new(folder / LABELS, [plan.labels()])
    for fold in plan.folds:
        own = folder / FOLDS / fold.name
        with results_errors(own):
            own.mkdir(parents=True, exist_ok=True)
        write_if_new(own / LABELS, [plan.labels_of(fold)])


def _others_labels(folder: Path, plan: StudyPlan) -> bool:
    """Tell whether the folder has labels that are not the very file that was given."""
    own = folder / LABELS
    return own.exists() and not own.samefile(plan.table.path)


def _stored(path: Path) -> Mapping[str, str]:
    try:
        return dict(parse(path.read_text(encoding="utf-8"))["plan"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); --overwrite begins anew") from error


def _forget(folder: Path, more: Sequence[str]) -> None:
    """Remove an earlier study from its folder, `more` files of it too; what it is known by goes last."""
    for name in (FOLDS, OUT_OF_FOLD):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (*more, MARKDOWN, PAGE, README, WEIGHTS, CONFIG, TABLE, STUDY):
        (folder / name).unlink(missing_ok=True)


def _finish(folder: Path, plan: StudyPlan, command: str, sight: Sight, listener: Listener) -> StudyResult:
    """Gather what the folds found, judge it, and write the ensemble."""
    states = gather(folder, plan)
    write_run(folder, plan)
    found = evaluate(folder / OUT_OF_FOLD, folder / LABELS, split="all" if any(row.part for row in plan.rows) else None)
    ensemble = joined([folder / FOLDS / fold.name for fold in plan.folds])
    seen = judged(folder, plan)
    certainty = known_before(folder, ensemble.weights, seen.sha256) or study_certainty(
        ensemble.model, seen, plan, sight, listener
    )
    for sentence in certainty.sentences:
        listener.line(f"note: {sentence}")
    weights = save_ensemble(
        folder,
        ensemble,
        recipe=plan.recipe.as_dict(),
        metrics=_metrics(found),
        fingerprint=_fingerprint(folder, states, plan),
        command=command,
        certainty=certainty,
        judged_sha256=seen.sha256,
    )
    write_run(folder, plan, weights, found.overlap.remarks)
    write_record(folder)
    return StudyResult(folder, folder / OUT_OF_FOLD, found, tuple(fold.name for fold in plan.folds))


def _metrics(found: Evaluation) -> dict[str, object]:
    scores = found.scores
    return {
        "out-of-fold AUROC": scores.auroc,
        "out-of-fold AUROC, 95 %": list(scores.auroc_interval),
        "out-of-fold accuracy": scores.accuracy,
        "out-of-fold accuracy, 95 %": list(scores.accuracy_interval),
        "out-of-fold slides": scores.n,
        "out-of-fold patients": scores.patients,
    }


def _fingerprint(folder: Path, states: Sequence[State], plan: StudyPlan) -> str:
    """Return the sha256 over slides and labels."""
    rows = rows_by_name(folder / OUT_OF_FOLD, plan)
    known = {state.name: state.slide.fingerprint for state in states if state.slide.fingerprint and state.name in rows}
    return data_fingerprint(known, {name: rows[name].label for name in known})
