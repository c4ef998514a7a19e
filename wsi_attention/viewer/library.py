"""The slides of a results folder by number, found where they are now; a request never contains a path."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock

from wsi_attention.errors import InputError, SlideError
from wsi_attention.inference.batch.discovery import find_slides
from wsi_attention.inference.results.state import FOLDER, State, prediction_of, read_state, read_states, results_in
from wsi_attention.once import once
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.structures import Prediction

KEPT = 8
"""Slides that stay open."""


class Library:
    """What may be looked at: the slides that a results folder names, and nothing else.

    A slide is shown only where its content is what was classified (its fingerprint).

    Attributes:
        results: the results folder.
        states: the slides by number, without their predictions.
    """

    def __init__(self, results: str | Path, folders: Sequence[str | Path] = ()) -> None:
        """Read the states.

        Args:
            results: the folder that classify wrote.
            folders: where slides lie now; none but those inside are opened then, not even by a link. If empty, slides
                are looked for where they were classified.

        Raises:
            ResultsError: no results there.
            InputError: a folder of slides does not exist.
        """
        self.results = results_in(results)
        self._folders = tuple(Path(folder) for folder in folders)
        for folder in self._folders:
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder; --slides takes the folder that the slides lie in now")
        self.states = [s.without_record() for s in read_states(self.results) if self._is_ours(self._state_path(s.name))]
        self._open: OrderedDict[int, Slide] = OrderedDict()
        self._missing: dict[int, str] = {}
        self._known: dict[tuple[Path, str | None], str] = {}
        self._lock = Lock()

    def state(self, number: int) -> State:
        """Return a slide's state.

        Raises:
            InputError: there is no such slide.
        """
        if not 0 <= number < len(self.states):
            raise InputError(f"slide {number} was asked; there are 0 to {len(self.states) - 1}")
        return self.states[number]

    def prediction(self, number: int) -> Prediction | None:
        """Return a slide's prediction; None where it has none."""
        path = self._state_path(self.state(number).name)
        state = read_state(path) if self._is_ours(path) else None
        return prediction_of(state, self.results) if state and state.record else None

    def slide(self, number: int) -> Slide:
        """Return the slide itself, open.

        Raises:
            SlideError: it cannot be found, cannot be opened, or has another content than what was classified.
        """
        with self._lock:
            if number in self._open:
                self._open.move_to_end(number)
                return self._open[number]
            if number in self._missing:
                raise SlideError(self._missing[number])
            try:
                slide = self._found(self.state(number))
            except SlideError as error:
                self._missing[number] = str(error)
                raise
            self._open[number] = slide
            while len(self._open) > KEPT:
                self._open.popitem(last=False)[1].close()
            return slide

    def export(self, number: int, suffix: str) -> Path | None:
        """Return a file that classify wrote for a slide; None where there is none, or where a link leads elsewhere."""
        path = self.results / suffix.format(slide=self.state(number).name)
        return path if path.is_file() and self._is_ours(path) else None

    def close(self) -> None:
        """Close all slides."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()

    def _state_path(self, name: str) -> Path:
        return self.results / FOLDER / f"{name}.json"

    def _is_ours(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.results.resolve())

    def _found(self, state: State) -> Slide:
        tried = False
        for path in self._candidates(state):
            image = path, state.slide.series
            if self._known.get(image, state.slide.fingerprint) != state.slide.fingerprint:
                tried = True
                continue
            try:
                slide = open_slide(path, mpp=state.slide.mpp, options={"series": state.slide.series})
            except (SlideError, InputError, OSError):
                continue
            tried, self._known[image] = True, slide.fingerprint
            if slide.fingerprint == state.slide.fingerprint:
                return slide
            slide.close()
        where = ", ".join(map(str, self._folders)) or state.path
        what = "another content than the slide that was classified" if tried else "not found, or not readable"
        raise SlideError(f"{where}: {state.name}: {what}; give the folder that holds it now with --slides")

    def _candidates(self, state: State) -> Iterator[Path]:
        """Yield the files that the slide may be: those with its file name, then all other slides of the folders."""
        if not self._folders:
            if "://" not in state.path and Path(state.path).exists():
                yield Path(state.path)
            return
        name = Path(state.path).name
        yield from sorted(self._inside, key=lambda path: path.name != name)

    @once
    def _inside(self) -> list[Path]:
        """All slides in the folders that really lie there."""
        try:
            found = [Path(slide.path) for slide in find_slides(self._folders, outside=self.results).slides]
        except InputError:
            return []
        roots = [folder.resolve() for folder in self._folders]
        return [path for path in found if any(path.resolve().is_relative_to(root) for root in roots)]
