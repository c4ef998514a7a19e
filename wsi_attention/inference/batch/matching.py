"""Find the slide that a written name means: the same name first, then with or without suffix, then without folders.

A name that could mean two slides is refused. Only suffixes of slides (`names.SUFFIXES`) are ever cut: "S12.2" is
another slide than "S12", and the time in "2021-11-11_09.59.06" is part of the name.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from wsi_attention.errors import InputError
from wsi_attention.inference.batch.names import suffix_of
from wsi_attention.safe_names import safe_name

DICOM = (".dcm", ".dicom")
"""Suffixes of files that are often only a part of a slide: a series has the name of its folder."""


def plain(name: str) -> str:
    """Return a written path with forward slashes, composed (Unicode NFC), without "./", its suffix in small letters."""
    written = unicodedata.normalize("NFC", name).replace("\\", "/")
    path = "/".join(part for part in written.split("/") if part not in ("", "."))
    suffix = suffix_of(path)
    return path[: len(path) - len(suffix)] + suffix.lower()


def bare_name(name: str) -> str:
    """Return `plain` without a slide's suffix: "a/b.ome.zarr" and "./a/b.SVS" are both "a/b"."""
    path = plain(name)
    return path[: len(path) - len(suffix_of(path))]


def file_name(name: str) -> str:
    """Return `bare_name` without the folders."""
    return bare_name(name).rpartition("/")[2]


@dataclass(frozen=True)
class _Form:
    path: str
    bare: tuple[str, ...]
    suffix: str

    @classmethod
    def of(cls, name: str) -> _Form:
        path = plain(name)
        return cls(path, tuple(bare_name(path).split("/")), suffix_of(path))

    def shares_tail(self, other: _Form, parts: int) -> bool:
        """Return whether the shorter path, of at least so many parts, is the end of the longer one."""
        length = min(len(self.bare), len(other.bare))
        return length >= parts and self.bare[-length:] == other.bare[-length:]


class SlideNames:
    """The slides that are there, to be found by what people call them.

    Args:
        asked_by: the file whose names are looked up, for messages.
        advice: how to tell slides apart that share a name, for messages.
    """

    def __init__(self, asked_by: object, advice: str = "write the one that is meant") -> None:
        self._asked_by, self._advice = asked_by, advice
        self._forms: dict[str, tuple[_Form, ...]] = {}
        self._exact: dict[str, list[str]] = {}
        self._files: dict[str, list[str]] = {}

    def add(self, slide: str, names: Iterable[str]) -> None:
        """Take in a slide and all that it may be called: its path below the slides folder, its whole path."""
        forms = tuple(dict.fromkeys(map(_Form.of, names)))
        self._forms[slide] = forms
        for index, keys in (
            (self._exact, {form.path for form in forms}),
            (self._files, {form.bare[-1] for form in forms}),
        ):
            for key in keys:
                index.setdefault(key, []).append(slide)

    def find(self, name: str) -> str | None:
        """Return the slide that a name means, None where there is none.

        Raises:
            InputError: it could be one of several.
        """
        for written in dict.fromkeys((name, safe_name(plain(name)))):
            found = self._found(_Form.of(written), name)
            if found is not None:
                return found
        form = _Form.of(name)
        if form.suffix in DICOM and len(form.bare) > 1:  # an instance of a series that is called by its folder
            return self._found(_Form.of("/".join(form.bare[:-1])), name)
        return None

    def near(self, name: str) -> str | None:
        """Return a slide with nearly that name, in other letters or with another suffix, for a message."""
        file = _Form.of(name).bare[-1].casefold()
        return next((one for key, slides in self._files.items() if key.casefold() == file for one in slides), None)

    def _found(self, form: _Form, name: str) -> str | None:
        exact = self._exact.get(form.path, [])
        alike = [slide for slide in self._files.get(form.bare[-1], []) if self._suffix_fits(slide, form)]
        same_path = [slide for slide in alike if any(own.bare == form.bare for own in self._forms[slide])]
        for slides in (exact, same_path, self._ending(alike, form, 2), alike):
            if len(slides) > 1:
                raise InputError(f"{self._asked_by}: slide {name!r} could be {', '.join(slides[:3])}; {self._advice}")
            if slides:
                return next(iter(self._ending(slides, form, 1)), None)
        return None

    def _ending(self, slides: list[str], form: _Form, parts: int) -> list[str]:
        return [slide for slide in slides if any(own.shares_tail(form, parts) for own in self._forms[slide])]

    def _suffix_fits(self, slide: str, form: _Form) -> bool:
        own = {known.suffix for known in self._forms[slide] if known.bare[-1] == form.bare[-1]} - {""}
        return not form.suffix or not own or form.suffix in own
