"""What a results folder remembers of a slide: its status, its row, what it depends on, and the prediction itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath

from wsi_attention.errors import ResultsError
from wsi_attention.export.record import from_record
from wsi_attention.json_values import parse
from wsi_attention.slide.fingerprint import seen_otherwise
from wsi_attention.structures import Prediction

FORMAT = 2
"""Format 1 did not say what the slide's files were like; it can be read, and its slides are done again."""
FOLDER = "states"
CERTAINTY, CERTAINTY_DIGEST = "certainty", "certainty_sha256"
"""Settings of a run: sentences on what is fitted to the model's predictions, and what tells one such fit from another;
there are none where nothing is."""
FINISHED = ("done", "partial", "no_tissue")
OTHER_BAG = "another slide of the patient has changed, come or gone, or the patient has another name"
"""Why the result of a slide that was looked at with the others of its patient does not stand."""


@dataclass(frozen=True)
class RunKey:
    """What all slides of one results folder have in common.

    Attributes:
        model: the model's name, for messages only.
        weights_sha256: of the weights.
        settings: everything else that changes results: method, arguments, classes, scale, precision.
    """

    model: str
    weights_sha256: str
    settings: dict[str, object]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the model's classes."""
        names = self.settings.get("classes")
        return tuple(map(str, names)) if isinstance(names, list | tuple) else ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of predictions.csv in place of the classes' probabilities, for a target beyond one label."""
        names = self.settings.get("columns")
        return tuple(map(str, names)) if isinstance(names, list | tuple) else ()

    @property
    def counted(self) -> bool:
        """Whether several slides may have the same label; False where the label is a number."""
        target = self.settings.get("target")
        return not isinstance(target, dict) or target.get("kind") not in ("regression", "survival")

    @property
    def purpose(self) -> str:
        """What the model is for, where that is not to label slides."""
        return str(self.settings.get("purpose", ""))

    def difference(self, other: RunKey) -> str | None:
        """Return how this key differs from another, in a few words; None where results may lie in one folder.

        A purpose alone changes no number: slides whose results do not tell it are done again. Nor do sentences on what
        is fitted to the model's predictions, which releases may word anew: the digest tells one fit from another.
        """
        if self.weights_sha256 != other.weights_sha256:
            mine, theirs = self.weights_sha256[:12], other.weights_sha256[:12]
            return f"model {self.model} (weights {mine}), asked for {other.model} (weights {theirs})"
        for name in sorted((self.settings.keys() | other.settings.keys()) - {"purpose", CERTAINTY}):
            here, there = _told(self.settings.get(name)), _told(other.settings.get(name))
            if here != there:
                return f"{name} {here:.200}, asked for {there:.200}"
        return None


@dataclass(frozen=True)
class SlideKey:
    """What one slide's result depends on besides the run.

    Attributes:
        fingerprint: of samples of its content; the seed of what is drawn comes from it.
        mpp: what the caller gave.
        mask_sha256: of the caller's own mask.
        series: the image that the caller asked for.
        seen: what the reader saw of it: scale, levels, bounds, tags (`slide.fingerprint.seen_in`).
        written: sizes and times of its files (`slide.own_files.written`).
        changed: the same with the times of any change.
        content: sha256 of all bytes, where it was taken.
        features: size and time of the file that features of its tiles came from; empty where all were read.
        beside: of whose other slides, and what they were, where the model looked at all of a patient together.
        beside_changed: the same without opening them: whose, times of any change of their files, and what was asked.
    """

    fingerprint: str = ""
    mpp: float | None = None
    mask_sha256: str | None = None
    series: str | None = None
    seen: Mapping[str, str] = field(default_factory=dict)
    written: str = ""
    changed: str = ""
    content: str | None = None
    features: str = ""
    beside: str = ""
    beside_changed: str = ""

    def untouched(self, now: SlideKey) -> bool:
        """Return whether the slide's files are untouched since, so that it need not be opened."""
        asked, wanted = ((one.mpp, one.mask_sha256, one.series, one.changed, one.features) for one in (self, now))
        beside = self.beside_changed == now.beside_changed
        return bool(self.seen and self.changed) and asked == wanted and beside

    def difference(self, now: SlideKey) -> str | None:
        """Return why a result with this key is not one of the slide as it is now; None where it is."""
        asked = (
            ("--mpp", now.mpp, self.mpp),
            ("mask", now.mask_sha256, self.mask_sha256),
            ("--series", now.series, self.series),
            ("file of features", now.features or None, self.features or None),
        )
        for name, is_now, was in asked:
            if is_now != was:
                return _given(name, is_now, was)
        if not self.seen:
            return "its result is of an earlier version, which did not record what the file was like"
        if not self._same_content(now):
            return seen_otherwise(self.seen, now.seen) or self._other_content(now)
        other = None if self.beside == now.beside else OTHER_BAG
        return seen_otherwise(self.seen, now.seen) or other

    def _same_content(self, now: SlideKey) -> bool:
        if self.fingerprint != now.fingerprint:
            return False
        if self.content and now.content:
            return self.content == now.content
        return self.written == now.written

    def _other_content(self, now: SlideKey) -> str:
        if self.fingerprint == now.fingerprint and not (self.content and now.content):
            return "the file was written anew, and its whole content is not known from before (--full-hash keeps it)"
        return "the file has other content"


@dataclass(frozen=True)
class State:
    """One slide's file in `states/`; written last, so what it names is really there.

    Attributes:
        name: the slide's name in the results folder.
        path: the slide's absolute path.
        status: done, partial, no_tissue or failed.
        reason: one line: why not done; empty when all is well.
        run: what the whole folder has in common.
        slide: what this slide's result depends on.
        row: label, probabilities and costs for predictions.csv.
        seconds: how long the slide took.
        exports: files and folders made from the prediction, relative to the results folder.
        options: of the exporters that made them (`export.chosen.options_of`), by export, where not the default ones.
        traceback: of a failure.
        record: the prediction (`export.record`), where there is one.
        image: which of the file's images it is, where other images of it have results too.
        patient: whose slide it is, where somebody said so.
    """

    name: str
    path: str
    status: str
    reason: str
    run: RunKey
    slide: SlideKey
    row: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    exports: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    traceback: str | None = None
    record: dict[str, object] | None = None
    image: str | None = None
    patient: str | None = None

    @property
    def finished(self) -> bool:
        """Whether a later run has nothing to do for this slide; failures are tried again."""
        return self.status in FINISHED

    def without_record(self) -> State:
        """Return the same state, light enough to keep thousands in memory."""
        return replace(self, record=None, traceback=None)


def to_text(state: State) -> str:
    """Return the state as JSON; the same state always has the same text."""
    values = {**_shallow(state), "run": asdict(state.run), "slide": asdict(state.slide)}
    if state.patient is None:  # a folder without patients is as it always was
        del values["patient"]
    if not state.slide.beside:
        values["slide"] = {name: value for name, value in asdict(state.slide).items() if not name.startswith("beside")}
    return json.dumps({"format": FORMAT, **values}, sort_keys=True, allow_nan=False) + "\n"


def read_state(path: Path) -> State | None:
    """Return the state in a file; None where the file is damaged, so that the slide is done again.

    Raises:
        ResultsError: a newer version of this package wrote it.
    """
    try:
        values = parse(path.read_text(encoding="utf-8"))
        version = values.pop("format")
        if isinstance(version, int) and version > FORMAT:
            raise ResultsError(f"{path}: format {version}, this version knows {FORMAT}; upgrade wsi-attention")
        run, slide = RunKey(**values.pop("run")), SlideKey(**values.pop("slide"))
        exports = tuple(map(str, values.pop("exports")))
        sound = version in (1, FORMAT) and all(_stays_inside(export) for export in exports)
        values["row"] = _with_empty_spread(values["row"])
        return State(run=run, slide=slide, exports=exports, **values) if sound else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def results_in(folder: str | Path) -> Path:
    """Return the folder as a path.

    Raises:
        ResultsError: it holds no results.
    """
    if not (Path(folder) / FOLDER).is_dir():
        raise ResultsError(f"{folder}: no results here (no folder {FOLDER}); give the folder that classify wrote")
    return Path(folder)


def read_states(results: Path) -> Iterator[State]:
    """Yield all states of a results folder that can be read, sorted by path; one in memory at a time."""
    folder = results / FOLDER
    for path in sorted(folder.rglob("*.json")):
        state = None if path.name.startswith(".") else read_state(path)
        if state is not None and f"{state.name}.json" == path.relative_to(folder).as_posix():
            yield state


def stored_predictions(results: str | Path, names: Iterable[str] = ()) -> Iterator[tuple[str, Prediction]]:
    """Yield (name, prediction) of all slides in a results folder that have one, or of the named ones.

    Raises:
        ResultsError: as `stored_results` says.
    """
    return ((state.name, prediction) for state, prediction in stored_results(results, names))


def stored_results(results: str | Path, names: Iterable[str] = ()) -> Iterator[tuple[State, Prediction]]:
    """Yield (state, prediction) of all slides in a results folder that have one, or of the named ones.

    Raises:
        ResultsError: the folder holds no states, a named slide has no prediction there, or a prediction is damaged.
    """
    folder, wanted = results_in(results), set(names)
    for state in read_states(folder):
        if state.record is not None and (not names or state.name in wanted):
            wanted.discard(state.name)
            yield state, prediction_of(state, folder)
    if wanted:
        raise ResultsError(f"{folder}: no prediction for {', '.join(sorted(wanted))}")


def prediction_of(state: State, results: Path) -> Prediction:
    """Return a state's prediction; a slide that was given by a relative path is found from another folder too."""
    try:
        found = from_record(state.record)
    except ResultsError as error:
        raise ResultsError(f"{results / FOLDER / state.name}.json: {error}") from error
    moved = not Path(found.slide).exists() and Path(state.path).exists()
    return replace(found, slide=state.path) if moved else found


def _told(setting: object) -> str:
    """Return a setting as text; the same value gives the same text."""
    plain = {None: "none", True: "yes", False: "no"}
    return plain[setting] if setting is None or isinstance(setting, bool) else json.dumps(setting, sort_keys=True)


def _given(name: str, now: object, before: object) -> str:
    """Return how a wish differs from before, in the user's words."""
    if isinstance(now, float) or isinstance(before, float):
        shown = ["none" if value is None else f"{value:g}" for value in (now, before)]
        return f"no {name}, was {shown[1]}" if now is None else f"{name} {shown[0]}, was {shown[1]}"
    return f"no {name}, had one" if now is None else f"a {name}, had none" if before is None else f"another {name}"


def _with_empty_spread(row: dict[str, str]) -> dict[str, str]:
    """Return the row, its spread empty where nothing was drawn; before `unread_mass` existed it was 0."""
    old = "unread_mass" not in row and row.get("spread") and float(row["spread"]) == 0
    return {**row, "spread": ""} if old else row


def _stays_inside(relative: str) -> bool:
    path = PurePosixPath(relative)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _shallow(state: State) -> dict[str, object]:
    return {name: getattr(state, name) for name in State.__dataclass_fields__}
