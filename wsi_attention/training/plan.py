"""What a run is about, settled before anything is computed: recipe, split, slides, and whether the folder fits them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsi_attention import registry
from wsi_attention.checkpoint import CONFIG
from wsi_attention.config import Recipe
from wsi_attention.encoders.origin import NOBODY, Origin
from wsi_attention.errors import InputError
from wsi_attention.inference.batch.matching import file_name
from wsi_attention.json_values import parse
from wsi_attention.learnt_from import LearntFrom
from wsi_attention.methods.method import encoder_options, find_method
from wsi_attention.nn.known_features import PREFIX
from wsi_attention.targets.find import wanted_of
from wsi_attention.targets.one_label import KIND, OneLabel
from wsi_attention.targets.target import Asked, Target
from wsi_attention.tiles.images import Images
from wsi_attention.training.bags import Facts, Given, facts_of, find_bags, given, survey_bags, without_changes
from wsi_attention.training.curriculum import Lessons
from wsi_attention.training.data import Survey, data_fingerprint, survey
from wsi_attention.training.images import find_images, survey_images, without_traits
from wsi_attention.training.labels import LabelRow, Split, find_slides, read_labels, split_rows, with_series
from wsi_attention.training.listener import Listener
from wsi_attention.training.loop import too_many_failed
from wsi_attention.training.map_store import maps_fingerprint
from wsi_attention.training.negative import negative_arguments
from wsi_attention.training.open_slides import OpenSlides
from wsi_attention.training.origin import encoder_origin
from wsi_attention.training.patients import PATIENT, check_bags, check_scales, key_of, seen_of
from wsi_attention.training.start import encoder_fingerprint
from wsi_attention.training.state import STATE, EpochRecord, plan_of

FOLDER = "training"
"""Subfolder of the model folder for everything that classifying does not need."""
FINISHED = "finished.json"


@dataclass(frozen=True)
class Plan:
    """All that decides a run.

    Attributes:
        recipe: the numbers.
        split: which rows train and which validate.
        slides: slide name -> file or URL.
        surveyed: fingerprints of the usable slides, and why others are not.
        encoder: fingerprint of the weights that the encoder starts from; empty without such.
        maps: fingerprint of the accumulated maps that are learnt; empty without such.
        negative: class that means that nothing was found, None where there is none or nobody says.
        told: options that tell the method which one it is.
        features: files with features of the slides' tiles, None where all tiles are read.
        origin: where the encoder's weights come from; empty where nobody published them.
        images: what is learnt from where there are no slides, None where there are.

    `target` is what the model is asked for.
    """

    recipe: Recipe
    split: Split
    slides: Mapping[str, str | Path]
    surveyed: Survey
    encoder: str = ""
    maps: str = ""
    negative: str | None = None
    told: Mapping[str, object] = field(default_factory=dict)
    features: Given | None = None
    origin: Origin = NOBODY
    images: Images | None = None

    @property
    def target(self) -> Target:
        """What the model is asked for, fitted to the rows that train."""
        return self.split.target or OneLabel(self.split.classes)

    @property
    def arguments(self) -> dict[str, object]:
        """Options of the method: those of the recipe, and what slides, labels and features tell of it."""
        stored = self.features.told(self.recipe) if self.features else {}
        return {**self.recipe.model, **stored, **self.told}

    @property
    def training_slides(self) -> tuple[tuple[str, Mapping[str, str]], ...]:
        """Fingerprint of each usable slide, or bag of a patient's, to train on; what readers see besides pixels."""
        known = self.surveyed
        rows = [row for row in self.split.train if row.slide in known.fingerprints]
        if self.recipe.bag != PATIENT:
            return tuple((known.fingerprints[row.slide], known.seen[row.slide]) for row in rows)
        own: dict[str, list[str]] = {}
        for name, patient in sorted((row.slide, row.patient) for row in rows):
            own.setdefault(patient, []).append(name)
        return tuple(
            (key_of([known.fingerprints[name] for name in names]), seen_of([known.seen[name] for name in names]))
            for names in own.values()
        )

    def name_of(self, row: LabelRow) -> str:
        """Return what the training calls the bag of a row: its slide, or its patient."""
        return row.patient if self.recipe.bag == PATIENT else row.slide

    @property
    def curriculum(self) -> Lessons | None:
        """Which training slides, or bags of a patient's, take part when; None where all do, in every epoch."""
        curriculum = self.recipe.curriculum
        numbers = [(self.name_of(row), row.order) for row in self.split.train if row.order is not None]
        return Lessons.of(curriculum, numbers) if curriculum.column else None

    @property
    def rows(self) -> tuple[LabelRow, ...]:
        """Training rows, then validation rows."""
        return (*self.split.train, *self.split.validation)

    @property
    def digests(self) -> dict[str, str]:
        """A digest of each part, to tell one run from another."""
        labels = {row.slide: _decisive(row) for row in self.rows}
        recipe = {name: value for name, value in self.recipe.as_dict().items() if (name, value) != ("bag", "slide")}
        parts = {"recipe": recipe, "labels": labels, "slides": self._slides}
        extra = {"encoder_start": self.encoder, "maps": self.maps}
        extra |= {"features": self.features.digest if self.features else ""}
        return plan_of(**parts, **{name: value for name, value in extra.items() if value})

    @property
    def _slides(self) -> dict[str, object]:
        known = self.surveyed
        return {name: [text, dict(known.seen.get(name, {}))] for name, text in known.fingerprints.items()}

    @property
    def fingerprint(self) -> str:
        """sha256 over slides and labels, whatever the slides' names."""
        return data_fingerprint(self.surveyed.fingerprints, {row.slide: row.label for row in self.rows})

    @property
    def seen(self) -> LearntFrom:
        """What the model's folder remembers of the slides that are used."""
        known = self.surveyed.fingerprints
        parts = {"train": self.split.train, "val": self.split.validation}
        used = {part: [row for row in rows if row.slide in known] for part, rows in parts.items()}
        return LearntFrom.of(
            {
                "slides": {part: [known[row.slide] for row in rows] for part, rows in used.items()},
                "hashed_names": {part: [file_name(row.slide) for row in rows] for part, rows in used.items()},
                "patients": {part: [row.patient for row in rows if row.has_patient] for part, rows in used.items()},
            }
        )

    @property
    def copies(self) -> tuple[str, ...]:
        """A sentence on slides with the same content, and whether they are in both splits; empty without such."""
        names: dict[str, list[str]] = {}
        for name, fingerprint in self.surveyed.fingerprints.items():
            names.setdefault(fingerprint, []).append(name)
        twins = [same for same in names.values() if len(same) > 1]
        held = {row.slide for row in self.split.validation}
        across = sum(0 < len(held.intersection(same)) < len(same) for same in twins)
        if not twins:
            return ()
        kind = f"; {across} of them lie on both sides of the split: the AUROC is too kind" if across else ""
        return (f"{len(twins)} slides stand there under several names: {', '.join(map(' = '.join, twins[:3]))}{kind}",)


@dataclass(frozen=True)
class Finished:
    """What the folder of a finished training says: the best epoch, the number of epochs, and slides left out, with
    reasons.
    """

    best: EpochRecord
    epochs: int
    failed: Mapping[str, str]

    def as_dict(self) -> dict[str, object]:
        """Return plain JSON values; NaN is None."""
        return {"best": _finite(self.best.as_dict()), "epochs": self.epochs, "failed": dict(self.failed)}


def _decisive(row: LabelRow) -> tuple[object, ...]:
    """Return what decides a run of a row of the labels; its number in the curriculum only where there is one."""
    return (row.label, row.patient, row.mpp, row.part, *([] if row.order is None else [row.order]))


def _finite(value: object) -> object:
    """Return plain values with None for NaN."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def make_plan(
    labels: Path,
    slides: Sequence[str | Path],
    recipe: Recipe,
    listener: Listener,
    series: str | None = None,
    doors: OpenSlides | None = None,
    features: str | Path | None = None,
    images: Images | None = None,
) -> Plan:
    """Read the labels, split them, and open every slide once, with `doors` where given, and every file of features.

    With `images` there are neither slides nor features, and every image is read once.

    Raises:
        InputError: recipe, encoder or labels are wrong, slides are missing, or more than half of them cannot be used.
    """
    recipe = recipe if features is None else without_changes(recipe)
    recipe = recipe if images is None else without_traits(recipe)
    check_options(recipe)
    wanted = wanted_by(recipe)
    origin = encoder_origin(recipe)
    encoder = encoder_fingerprint(recipe.encoder_start)
    maps = maps_fingerprint(recipe.maps)
    read = with_series(read_labels(labels, wanted, recipe.curriculum.column), series)
    split = split_rows(read, recipe.validation_share, recipe.seed, labels, wanted)
    check_bags(recipe, split, labels, features)
    negative, told = (
        negative_arguments(recipe.method, recipe.model, split.classes, recipe.negative)
        if wanted.kind == KIND
        else (None, {})
    )
    rows = (*split.train, *split.validation)
    if images is None:
        found, surveyed, stored = _looked_at(rows, slides, features, recipe, labels, listener, doors)
    else:
        listener.line(f"looking at {len(rows)} images")
        named = find_images([row.slide for row in rows], images, labels)
        found, surveyed, stored = {}, survey_images(rows, named, images), None
    for name, reason in surveyed.failed.items():
        listener.line(f"left out: {name}: {reason}")
    too_many_failed(surveyed.failed, len(rows))
    if recipe.bag == PATIENT:
        check_scales(rows, surveyed, labels)
    plan = Plan(recipe, split, found, surveyed, encoder, maps, negative, told, stored, origin, images)
    notes = (*split.notes, *plan.copies, *_encoder_notes(plan), *_feature_notes(plan), *_negative_notes(plan))
    for note in notes:
        listener.line(f"note: {note}")
    for label in split.classes if plan.target.weighed > 1 else ():
        counts = [sum(row.label == label for row in part) for part in (split.train, split.validation)]
        listener.line(f"class {label}: {counts[0]} slides to train, {counts[1]} to validate")
    return plan


def wanted_by(recipe: Recipe) -> Asked:
    """Return what a recipe asks for.

    Raises:
        InputError: it does not go together, or the method or another key of the recipe is for one label alone.
    """
    try:
        wanted = wanted_of(recipe.target, recipe.order, recipe.columns, recipe.intervals)
    except InputError as error:
        raise InputError(f"recipe: {error}") from error
    if wanted.kind == KIND:
        return wanted
    if not find_method(recipe.method).any_target:
        able = [name for name in registry.names(registry.MODELS) if find_method(name).any_target]
        raise InputError(
            f"method {recipe.method} learns one label a slide, not target = {recipe.target!r}; methods that do: "
            f"{', '.join(able)}"
        )
    of_classes = {"negative": recipe.negative, "maps": recipe.maps, "accumulate": recipe.accumulate.replace("none", "")}
    asked = [key for key, value in of_classes.items() if value]
    asked += ["background"] if "background" in recipe.model else []
    if asked:
        raise InputError(f"{asked[0]} is about the classes of target = 'label'; leave it out with {recipe.target!r}")
    return wanted


def _looked_at(
    rows: Sequence[LabelRow],
    slides: Sequence[str | Path],
    features: str | Path | None,
    recipe: Recipe,
    labels: Path,
    listener: Listener,
    doors: OpenSlides | None,
) -> tuple[Mapping[str, str | Path], Survey, Given | None]:
    """Return slide name -> slide, or its feature file where there are no slides; what a look at each found; features.

    Raises:
        InputError: a slide is missing, or no feature file can be used.
    """
    found: Mapping[str, str | Path] = find_slides([row.slide for row in rows], slides, labels) if slides else {}
    files = {} if features is None else find_bags(features, rows, labels)
    listener.line(f"looking at {len(rows)} slides" if slides else f"looking at {len(files)} files of features")
    surveyed = survey(found, rows, doors) if slides else Survey()
    if features is None:
        return found, surveyed, None
    scales = {row.slide: row.mpp if row.mpp is not None else surveyed.scale(row.slide) for row in rows}
    facts = facts_of(files, scales)
    stored = given(features, files, facts, not slides)
    if not slides:
        return files, survey_bags(rows, facts), stored
    broken = {name: one for name, one in facts.items() if not isinstance(one, Facts)}
    if not stored.reads(recipe):
        broken |= {row.slide: f"{row.slide}: no feature file of it" for row in rows if row.slide not in files}
    return found, surveyed.without(broken), stored


def _feature_notes(plan: Plan) -> tuple[str, ...]:
    return plan.features.notes(plan.recipe, len(plan.rows)) if plan.features else ()


def _encoder_notes(plan: Plan) -> tuple[str, ...]:
    recipe = plan.recipe
    encoder = encoder_options(recipe.method, plan.arguments)
    frozen = isinstance(encoder, Mapping) and encoder.get("frozen") and not str(encoder.get("name")).startswith(PREFIX)
    if frozen and not (recipe.start or recipe.encoder_start):
        return ("the encoder is frozen with random weights; encoder_start or start give it better ones",)
    origin = plan.origin
    if origin and not origin.contained:
        kept = "points to them" if frozen else "contains what training makes of them: do not give it on"
        return (f"the weights of encoder {origin.name}: {origin.rights}; the model folder {kept}",)
    return ()


def _negative_notes(plan: Plan) -> tuple[str, ...]:
    """Say which class is taken for the one without a finding, where training depends on it."""
    if "background" in plan.told or isinstance(plan.recipe.model.get("background"), int):
        return (f"tissue without a finding counts as {plan.negative!r}; if it is not, say which with --negative",)
    if plan.told:
        return ("no class means that nothing was found: nothing is learnt from tissue that attention passes over",)
    return ()


def check_options(recipe: Recipe) -> None:
    """Raise InputError unless the method exists and takes the options under [model]; a mistake is named."""
    try:
        find_method(recipe.method).complete(recipe.model)
    except InputError as error:
        raise InputError(f"recipe [model] of method {recipe.method}: {error}") from error


def finished_before(folder: Path, plan: Plan) -> Finished | None:
    """Return what a finished run of the same plan left, None where the run is unfinished or its model is gone.

    Raises:
        InputError: the folder holds another run, or a model from elsewhere.
    """
    path, model = folder / FOLDER / FINISHED, folder / CONFIG
    if not path.is_file():
        if model.is_file() and not (folder / FOLDER / STATE).is_file():
            raise InputError(f"{folder} holds a model that was not trained there; choose another output folder")
        return None
    if not model.is_file():
        return None
    try:
        content = parse(path.read_text(encoding="utf-8"))
        best = EpochRecord.from_dict(content["best"])
        stored, found = content["plan"], Finished(best, content["epochs"], content["failed"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); train with --overwrite to begin anew") from error
    check_same_plan(folder, stored, plan)
    return found


def check_same_plan(folder: Path, stored: Mapping[str, str], plan: Plan) -> None:
    """Raise InputError unless the digests in a folder are those of the plan.

    Raises:
        InputError: they are not; the text names the parts that differ.
    """
    other = [name for name, digest in plan.digests.items() if stored.get(name) != digest]
    if other:
        raise InputError(
            f"{folder} holds a training with a different {' and '.join(other)}; "
            "choose another output folder, or --overwrite to begin anew"
        )
