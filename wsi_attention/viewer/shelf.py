"""Several results folders as one list of slides, so that two models can be looked at side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsi_attention.errors import InputError
from wsi_attention.inference.results.state import State
from wsi_attention.slide.slide import Slide
from wsi_attention.structures import Prediction
from wsi_attention.viewer.library import Library


class Shelf:
    """Slides by a number that counts on from one folder's to the next's.

    Attributes:
        libraries: the folders; the first is the one that is listed.
        states: of all slides, by number.
    """

    def __init__(self, libraries: Sequence[Library]) -> None:
        self.libraries = tuple(libraries)
        self.states = [state for library in libraries for state in library.states]

    def at(self, number: int) -> tuple[Library, int]:
        """Return a slide's folder and its number there.

        Raises:
            InputError: there is no such slide.
        """
        below = number
        for library in self.libraries:
            if 0 <= below < len(library.states):
                return library, below
            below -= len(library.states)
        raise InputError(f"slide {number} was asked; there are 0 to {len(self.states) - 1}")

    def state(self, number: int) -> State:
        """Return a slide's state."""
        library, own = self.at(number)
        return library.state(own)

    def prediction(self, number: int) -> Prediction | None:
        """Return a slide's prediction; None where it has none."""
        library, own = self.at(number)
        return library.prediction(own)

    def slide(self, number: int) -> Slide:
        """Return the slide itself, open.

        Raises:
            SlideError: it cannot be opened, or has another content than what was classified.
        """
        library, own = self.at(number)
        return library.slide(own)

    def export(self, number: int, suffix: str) -> Path | None:
        """Return a file that classify wrote for a slide; None where there is none."""
        library, own = self.at(number)
        return library.export(own, suffix)

    def twins(self) -> dict[int, int]:
        """Return the first folder's slides -> the same slide in the second: same content, best of all the same name."""
        first = len(self.libraries[0].states)
        named = {(s.slide.fingerprint, s.name): number for number, s in enumerate(self.states) if number >= first}
        found = {fingerprint: number for (fingerprint, _), number in reversed(named.items()) if fingerprint}
        pairs = {
            number: named.get((state.slide.fingerprint, state.name), found.get(state.slide.fingerprint))
            for number, state in enumerate(self.states[:first])
            if state.slide.fingerprint
        }
        return {number: twin for number, twin in pairs.items() if twin is not None}

    def close(self) -> None:
        """Close all slides."""
        for library in self.libraries:
            library.close()
