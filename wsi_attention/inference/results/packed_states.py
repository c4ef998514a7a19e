"""The states of a results folder, without their records: on disk but for the last few, so that memory does not grow."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import fields, replace

from wsi_attention.errors import ResultsError
from wsi_attention.inference.results.state import RunKey, SlideKey, State


class PackedStates(MutableMapping[str, State]):
    """State by slide name, without record and traceback; what does not fit into SQLite's cache is in a temporary file.

    The system removes that file with the process, however it ends. Names come in the order in which they were added.

    Attributes:
        runs: the keys that the states have or had, each once.
        of_patients: whether one of them says, or said, whose slide it is.
    """

    def __init__(self, states: Iterable[State] = ()) -> None:
        self.runs: list[RunKey] = []
        self.of_patients = False
        self._rows = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._rows.execute("PRAGMA cache_size = -256")  # kB
        self._rows.execute("CREATE TABLE states (place INTEGER PRIMARY KEY, name TEXT UNIQUE, state TEXT)")
        for state in states:
            self[state.name] = state

    def __setitem__(self, name: str, state: State) -> None:
        slide = [getattr(state.slide, one.name) for one in fields(SlideKey)]
        told = state.path, state.status, state.reason, self._number_of(state.run), slide
        self.of_patients |= state.patient is not None
        rest = state.exports, dict(state.options), state.image, state.patient
        text = json.dumps((*told, state.row, state.seconds, *rest))
        add = "INSERT INTO states (name, state) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET state = excluded.state"
        with _told_plainly():
            self._rows.execute(add, (_key(name), text))

    def __getitem__(self, name: str) -> State:
        with _told_plainly():
            found = self._rows.execute("SELECT state FROM states WHERE name = ?", (_key(name),)).fetchone()
        if found is None:
            raise KeyError(name)
        path, status, reason, run, slide, row, seconds, *rest = json.loads(found[0])
        exports, options, image, patient = rest
        known = State(name, path, status, reason, self.runs[run], SlideKey(*slide), row, seconds, tuple(exports))
        return replace(known, options=options, image=image, patient=patient)

    def __delitem__(self, name: str) -> None:
        with _told_plainly():
            if not self._rows.execute("DELETE FROM states WHERE name = ?", (_key(name),)).rowcount:
                raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        with _told_plainly():
            names = self._rows.execute("SELECT name FROM states ORDER BY place").fetchall()
        return (str(json.loads(name)) for (name,) in names)

    def __len__(self) -> int:
        return int(self._rows.execute("SELECT count(*) FROM states").fetchone()[0])

    def _number_of(self, run: RunKey) -> int:
        if run not in self.runs:
            self.runs.append(run)
        return self.runs.index(run)


def _key(name: str) -> str:
    """Return a name as text that SQLite can hold: names of files need not be Unicode."""
    return json.dumps(name)


@contextmanager
def _told_plainly() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise ResultsError(
            f"{tempfile.gettempdir()}: what is known of the slides cannot be kept there ({error}); make room, or name"
            " another temporary folder in TMPDIR"
        ) from error
