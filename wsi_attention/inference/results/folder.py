"""The results folder: one run at a time writes it, every file whole, states last; a second run does the rest."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_attention import registry
from wsi_attention.errors import ResultsError
from wsi_attention.export.chosen import exporter_of
from wsi_attention.export.geojson import rewrite_patient
from wsi_attention.export.patients import deciding_figures
from wsi_attention.export.table import columns, row
from wsi_attention.files import publish, remove, remove_unfinished, results_errors, temporary, write_if_new, write_text
from wsi_attention.inference.batch.names import identity
from wsi_attention.inference.results.packed_states import PackedStates
from wsi_attention.inference.results.patients import PATIENTS, meaning_of, patients_table
from wsi_attention.inference.results.state import (
    FOLDER,
    RunKey,
    SlideKey,
    State,
    prediction_of,
    read_state,
    read_states,
    to_text,
)
from wsi_attention.plain_text import in_cell

if TYPE_CHECKING:
    from wsi_attention.inference.results.mirror import Mirror

TABLE = "predictions.csv"
TEXTS = ("slide", "label", "reason", "notes")
"""Columns whose text others chose; a spreadsheet must not take it for a formula."""
LOCK = ".lock"
TABLE_SHARE = 50
"""The table is written again after this many times the seconds that writing it took, which costs 2 % of the time."""
TABLE_LAG = 0.05
"""And after this share of the run's age, so that a row is written about 21 times, however many slides there are."""


class Results:
    """An open results folder, owned by this run alone.

    Attributes:
        folder: where it is.
        run: what all its slides have in common.
        states: name -> state without its record and traceback, for every slide that has one.
        changed: whether this run wrote a slide's result.
        asked: name -> patient of the slides of this run whose patient is known, so that `patients.csv` also knows of
            those that have no state yet.
    """

    def __init__(
        self, folder: Path, run: RunKey, states: PackedStates, mirror: Mirror | None = None, lock: int | None = None
    ) -> None:
        self.folder = folder
        self.run = run
        self.states = states
        self._mirror = mirror
        self._lock = lock
        self._opened = time.monotonic()
        self._table_due = 0.0
        self.changed = False
        self.asked: Mapping[str, str] = {}

    def known(self) -> dict[str, str]:
        """Return the name of each slide with a state by `names.identity`; names of moved slides are free again."""
        return {
            identity(state.path, state.image): name
            for name, state in self.states.items()
            if "://" in state.path or Path(state.path).exists()
        }

    def holds(self, export: str) -> bool:
        """Return whether an export is there, compressed or not."""
        there = (self.folder / export).exists() or (self.folder / twin(export)).exists()
        return there or (self._mirror is not None and self._mirror.holds(export))

    def clean(self, folders: Iterable[str]) -> None:
        """Remove unfinished files of a killed run from `states` and from the given folders below this one."""
        with results_errors(self.folder):
            for name in {FOLDER, *folders}:
                remove_unfinished(self.folder / name)
            for pattern in (TABLE, PATIENTS, "run_*.json"):
                for path in self.folder.glob(temporary(Path(pattern)).name):
                    remove(path)

    def add(self, state: State) -> None:
        """Add a slide: its exports get their names, then its state is written, then the table, now and then.

        What earlier results of the slide left, or `export` made of them, is removed.

        Raises:
            ResultsError: disk full, writing is not permitted, or the folder was removed meanwhile.
        """
        self._check_there()
        self.changed = True
        before = self.states.pop(state.name, None)
        path = self.folder / FOLDER / f"{state.name}.json"
        with results_errors(path):
            path.unlink(missing_ok=True)
            for stale in _obsolete(state, before):
                remove(self.folder / stale)
            remove_earlier(self.folder, state.name)
        for export in state.exports:
            publish(self.folder / export)
        write_text(path, to_text(state))
        if self._mirror:
            self._mirror.add(self.folder, state, before)
        self.states[state.name] = state
        if time.monotonic() >= self._table_due:
            self.write_table()

    def renew(self, name: str, key: SlideKey, path: str) -> None:
        """Take down that a slide was looked at again, and that its result stands as it is.

        Args:
            name: of a slide with a state.
            key: what the slide is like now.
            path: where it lies now.

        Raises:
            ResultsError: disk full, or writing is not permitted.
        """
        light = self.states[name]
        if self._mirror or (light.slide, light.path) == (key, path):  # behind a URL the older times do no harm
            return
        file = self.folder / FOLDER / f"{name}.json"
        state = read_state(file)
        if state is not None:
            write_text(file, to_text(replace(state, slide=key, path=path)))
            self.states[name] = replace(light, slide=key, path=path)

    def assign(self, patient_of: Mapping[str, str]) -> None:
        """Take down whose slides there are; a finished result that named another patient, or none, names this one now.

        No slide is looked at again for it: only its GeoJSON, where it has one, and its state are written anew.

        Args:
            patient_of: name -> patient.

        Raises:
            ResultsError: disk full, writing is not permitted, or a file cannot be fetched from the URL.
        """
        self.asked = patient_of
        for name, patient in patient_of.items():
            light = self.states.get(name)
            if light is not None and light.finished and light.patient != patient:
                self._move(light, patient)

    def _move(self, light: State, patient: str) -> None:
        file = self.folder / FOLDER / f"{light.name}.json"
        state = read_state(file)
        if state is None:
            return
        named = [export for export in state.exports if export.startswith("geojson/")]
        shown = [*named, *map(twin, named)]  # `export` may have replaced one by the other
        self.fetch(shown)
        for path in (self.folder / export for export in shown):
            self._tell_patient(path, patient)
        state = replace(state, patient=patient)
        if state.record is not None:
            row = state.row | deciding_figures(replace(prediction_of(state, self.folder), patient=patient))
            state = replace(state, record=state.record | {"patient": patient}, row=row)
        write_text(file, to_text(state))
        if self._mirror:
            self._mirror.send(self.folder, [*shown, f"{FOLDER}/{state.name}.json"])
        self.states[state.name] = state
        self.changed = True

    def _tell_patient(self, path: Path, patient: str) -> None:
        """Write a GeoJSON file with the patient; a damaged one is removed, so that its slide is done again."""
        if not path.is_file():
            return
        with results_errors(path):
            whole = rewrite_patient(path, temporary(path), patient)
            if not whole:
                remove(path)
        if whole:
            publish(path)

    def write_table(self) -> None:
        """Write predictions.csv anew from the states, sorted by slide, if anything in it is new; and patients.csv.

        Raises:
            ResultsError: disk full, writing is not permitted, or the folder was removed meanwhile.
        """
        self._check_there()
        start, path = time.monotonic(), self.folder / TABLE
        write_if_new(path, table(self.states, self.run.classes, self.run.columns))
        if self.asked or self.states.of_patients:
            write_if_new(self.folder / PATIENTS, patients_table(self.states, meaning_of(self.run), self.asked))
        end = time.monotonic()
        self._table_due = end + max(1.0, TABLE_SHARE * (end - start), TABLE_LAG * (end - self._opened))

    def lost(self, names: Iterable[str]) -> list[str]:
        """Return those of the named finished slides whose files are not all there."""
        states = (self.states[name] for name in names if name in self.states)
        return [state.name for state in states if state.finished and not self._is_whole(state)]

    def _is_whole(self, state: State) -> bool:
        return (self.folder / FOLDER / f"{state.name}.json").is_file() and all(map(self.holds, state.exports))

    def _check_there(self) -> None:
        """Go by while the folder is the one that was opened.

        Raises:
            ResultsError: it was removed or replaced.
        """
        if self._lock is None:
            return
        try:
            same = os.path.samestat(os.fstat(self._lock), (self.folder / LOCK).stat())
        except OSError:
            same = False
        if not same:
            raise ResultsError(
                f"{self.folder}: the results folder was removed or replaced while this run was writing it; what it had"
                " finished is lost, and the same command does it again"
            )

    def write_run(self, facts: Mapping[str, object]) -> Path:
        """Write run_<timestamp>.json beside those of earlier runs and return its path."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        path = self.folder / f"run_{stamp}.json"
        write_text(path, json.dumps({**facts, "host": socket.gethostname()}, indent=2, sort_keys=True) + "\n")
        return path

    def fetch(self, names: Iterable[str]) -> None:
        """Fetch files into the folder that exist behind the URL alone.

        Raises:
            ResultsError: one cannot be read.
        """
        if self._mirror:
            self._mirror.fetch(self.folder, names)

    def finish(self) -> None:
        """End a run after all files are written.

        Raises:
            ResultsError: what is about all slides cannot be sent to the URL.
        """
        if self._mirror:
            self._mirror.finish(self.folder)


@contextmanager
def open_results(
    folder: str | Path, run: RunKey, existing: str = "resume", mirror: Mirror | None = None
) -> Iterator[Results]:
    """Open a results folder for writing, creating it if need be, and lock it until the end.

    Args:
        folder: where results go.
        run: model and settings; results of others are not mixed with them.
        existing: "resume" keeps finished slides, "overwrite" removes the results of earlier runs first.
        mirror: where the results really lie; the folder is then empty at first.

    Raises:
        ResultsError: the folder cannot be written, another run writes it now, or it holds results of another model or
            configuration.
    """
    root = Path(folder)
    with locked(root) as lock:
        with results_errors(root):
            if mirror:
                mirror.open(root)
            states = PackedStates(read_states(root))
            if existing == "overwrite":
                _remove_all(root, states)
                if mirror:
                    mirror.remove_all(states, TABLE, PATIENTS)
                states = PackedStates()
            _check_same_run(mirror.url if mirror else root, run, states.runs)
        yield Results(root, run, states, mirror, lock)


def look_into(folder: Path, run: RunKey, existing: str = "resume") -> Results:
    """Return a results folder as `open_results` would find it, to look at and not to write.

    Raises:
        ResultsError: it holds results of another model or configuration.
    """
    states = PackedStates(read_states(folder) if existing == "resume" else ())
    _check_same_run(folder, run, states.runs)
    return Results(folder, run, states)


def table(states: Mapping[str, State], classes: Sequence[str], others: Sequence[str] = ()) -> Iterator[str]:
    """Yield the lines of predictions.csv: a row for each slide, sorted by name."""
    line = io.StringIO()
    writer = csv.DictWriter(line, columns(classes, others), restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    yield line.getvalue()
    for name in sorted(states):
        line.seek(0)
        line.truncate()
        state = states[name]
        cells = row(name, state.status, state.seconds, state.reason, state.row)
        writer.writerow(cells | {column: in_cell(cells.get(column, "")) for column in TEXTS})
        yield line.getvalue()


def _obsolete(state: State, before: State | None) -> set[str]:
    """Return the files of the slide's earlier results that are not written anew now."""
    found = set(map(twin, state.exports))
    if before:
        found |= every_export(state.name) | set(before.exports)
    return found - set(state.exports)


def _check_same_run(root: Path | str, run: RunKey, found: Iterable[RunKey]) -> None:
    for one in found:
        difference = one.difference(run)
        if difference:
            raise ResultsError(
                f"{root} holds results of {difference}; give another folder with -o, or --overwrite to remove them"
            )


def _remove_all(root: Path, states: Mapping[str, State]) -> None:
    for state in states.values():
        remove(root / FOLDER / f"{state.name}.json")
        for export in every_export(state.name) | set(state.exports):
            remove(root / export)
        remove_earlier(root, state.name)
    remove(root / TABLE)
    remove(root / PATIENTS)


@contextmanager
def locked(root: Path) -> Iterator[int]:
    """Yield the lock of a folder, which no other run has until the end; the folder is created if need be.

    Raises:
        ResultsError: another run has it, or the folder cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ResultsError(f"{root}: cannot be written ({error.strerror}); give another folder with -o") from error
    try:
        if not _take(lock):
            holder = os.read(lock, 200).decode(errors="replace") or "another process"
            raise ResultsError(f"{root}: another run is writing it now ({holder}); wait for it, or give another folder")
        with results_errors(root / LOCK):
            os.ftruncate(lock, 0)
            os.write(lock, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield lock
    finally:
        os.close(lock)


def _take(lock: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: no advisory locks of this kind
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems know no locks
        return True
    return True


GZIP = ".gz"
"""What `export --gzip` appends to a name."""


def twin(export: str) -> str:
    """Return the name of the same export in its other form: compressed, or not."""
    return export.removesuffix(GZIP) if export.endswith(GZIP) else f"{export}{GZIP}"


EARLIER = ("report/{slide}.json",)
"""Files that earlier versions wrote and this one writes under another name, as the suffixes of exporters."""


def remove_earlier(folder: Path, slide: str) -> None:
    """Remove what an earlier version left of a slide: files only, for a folder may hold other slides."""
    for path in (folder / suffix.format(slide=slide) for suffix in EARLIER):
        if path.is_file() or path.is_symlink():
            path.unlink()


def every_export(slide: str) -> set[str]:
    """Return all that any installed exporter may have written for a slide, relative to the results folder."""
    plain = {suffix.format(slide=slide) for suffix in _suffixes()}
    return plain | set(map(twin, plain))


@cache
def _suffixes() -> tuple[str, ...]:
    found = []
    for name in registry.names(registry.EXPORTERS):
        try:
            found.append(str(exporter_of(name).suffix))
        except Exception:  # an outside package that cannot be imported has written nothing here
            continue
    return tuple(found)
