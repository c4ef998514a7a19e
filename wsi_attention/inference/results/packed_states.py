"""The states of a results folder in memory: without their records, a few hundred bytes a slide."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import fields

from wsi_attention.inference.results.state import RunKey, SlideKey, State


class PackedStates(MutableMapping[str, State]):
    """State by slide name: each is kept as a line of JSON, without record and traceback, and made anew when asked for.

    Attributes:
        runs: the keys that the states have or had, each once.
    """

    def __init__(self, states: Iterable[State] = ()) -> None:
        self.runs: list[RunKey] = []
        self._packed: dict[str, str] = {}
        for state in states:
            self[state.name] = state

    def __setitem__(self, name: str, state: State) -> None:
        slide = [getattr(state.slide, one.name) for one in fields(SlideKey)]
        told = state.path, state.status, state.reason, self._number_of(state.run), slide
        self._packed[name] = json.dumps(
            (*told, state.row, state.seconds, state.exports, dict(state.options), state.image)
        )

    def __getitem__(self, name: str) -> State:
        path, status, reason, run, slide, row, seconds, exports, options, image = json.loads(self._packed[name])
        key = SlideKey(*slide)
        run_key = self.runs[run]
        return State(name, path, status, reason, run_key, key, row, seconds, tuple(exports), options, image=image)

    def __delitem__(self, name: str) -> None:
        del self._packed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def _number_of(self, run: RunKey) -> int:
        if run not in self.runs:
            self.runs.append(run)
        return self.runs.index(run)
