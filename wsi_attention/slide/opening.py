"""From a path to an open reader: which one, and every way it can go wrong told in one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from inspect import Parameter, signature
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from wsi_attention.errors import InputError, SlideOpenError
from wsi_attention.protocols import SlideReader
from wsi_attention.registry import READERS, load, names
from wsi_attention.slide.failures import opening
from wsi_attention.slide.images import Series
from wsi_attention.slide.metadata import check_metadata
from wsi_attention.slide.plain_files import check_plain_files
from wsi_attention.slide.readers.tiff.tag_sizes import notes_on_file
from wsi_attention.slide.urls import is_url, masked

FIRST = ("zarr", "tiff", "openslide")
FIRST_OF_FILES = ("tiff", "openslide", "zarr")
LAST = ("tiffslide",)
NEVER = ("array",)
"""What `auto` tries first and last; readers of other packages come between; `array` is only used when asked for. A file
is hardly ever a zipped store, and importing zarr takes a third of a second."""


def opener(
    origin: object, path: str, name: str, options: Mapping[str, str | int] = MappingProxyType({})
) -> Callable[[], SlideReader]:
    """Return a function that opens a slide afresh with the named reader.

    Args:
        origin: what the reader is given: the path, or levels in memory.
        path: what stands for it in messages.
        name: the reader's.
        options: what else the reader is given.
    """

    def open_fresh() -> SlideReader:
        with opening(path, name):
            if isinstance(origin, str) and not is_url(origin):
                check_plain_files(origin)
                notes_on_file(origin)
            made = load(READERS, name)
            if missing := _not_taken(made, options):
                raise _refusal(path, name, missing)
            reader: SlideReader = made(origin, **options)
            try:
                check_metadata(path, reader.properties)
            except BaseException:
                reader.close()
                raise
            return reader

    return open_fresh


def check_options(options: Mapping[str, object]) -> dict[str, str | int]:
    """Return what a reader is to be given, without what is None or empty.

    Raises:
        InputError: a value that is neither text nor a whole number from 0 on.
    """
    found: dict[str, str | int] = {}
    for name, value in options.items():
        if value is None or value == "":
            continue
        if isinstance(value, bool) or not isinstance(value, str | int) or (isinstance(value, int) and value < 0):
            raise InputError(f"{name} must be a name or a number (from 0), got {value!r}")
        found[name] = value
    return found


def options_of(reader: Callable[..., SlideReader]) -> tuple[str, ...]:
    """Return the names of a reader's options: what its class takes by name besides the path."""
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return tuple(name for name, parameter in signature(reader).parameters.items() if parameter.kind in named)[1:]


def _not_taken(reader: Callable[..., SlideReader], options: Mapping[str, object]) -> str:
    """Return the first option that a reader does not have; empty where it has all."""
    return next((option for option in options if option not in options_of(reader)), "") if options else ""


def _refusal(path: str, reader: str, option: str) -> InputError | SlideOpenError:
    """Say that a reader lacks an option, and who has it; or that no reader has it, and what is closest."""
    taken: dict[str, tuple[str, ...]] = {}
    for name in names(READERS):
        with suppress(ImportError):  # of a package whose parts are missing, which is not what was asked
            taken[name] = options_of(load(READERS, name))
    able = [name for name, has in taken.items() if option in has]
    if able:
        return SlideOpenError(
            f"{masked(path)}: the reader {reader} has no option {option!r}; those that have: {', '.join(able)}"
        )
    possible = sorted({known for has in taken.values() for known in has})
    near = get_close_matches(option, possible, 1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return InputError(f"no option {option!r} for opening a slide; {meant}possible: {', '.join(possible) or 'none'}")


class Choice(NamedTuple):
    """A reader's name, and why it was taken."""

    reader: str
    reason: str


def choose(path: str, options: Mapping[str, str | int] = MappingProxyType({})) -> Choice:
    """Return the reader that `auto` takes for a path, which has all options that are asked for.

    `tiff` gets the tiled TIFFs that it decodes exactly as OpenSlide does, which is tried on a tissue tile. OpenSlide
    gets what else it knows, unless it takes another image of the file for the slide, or cannot decode its compression.
    tiffslide gets what is left, URLs, and OME-TIFF whose smaller levels OpenSlide does not see.

    Raises:
        SlideOpenError: there is no such file, or no reader knows it or has such an option.
        InputError: no reader at all has an option of that name.
    """
    if not is_url(path):
        _check_exists(path)
    first = FIRST_OF_FILES if not is_url(path) and Path(path).is_file() else FIRST
    order = [name for name in (*first, *_of_other_packages(), *LAST) if name in names(READERS)]
    reasons: list[str] = []
    lacking: list[tuple[str, str]] = []
    for name in order:
        with opening(path, name):
            reader = load(READERS, name)
            recognised = bool(reader.recognises(path))
            if recognised and (missing := _not_taken(reader, options)):
                lacking.append((name, missing))
                reasons.append(f"not {name}: it has no option {missing!r}")
                continue
            taken, reason = _judged(name, path, options) if recognised else (False, "")
        if taken:
            return _chosen(name, path, reason, reasons, options)
        reasons += [f"not {name}: {reason}"] if reason else []
    if lacking:
        raise _refusal(path, *lacking[0])
    raise SlideOpenError(f"{masked(path)}: {_impression(path)}; tried {', '.join(order)}")


def _judged(name: str, path: str, options: Mapping[str, str | int]) -> tuple[bool, str]:
    """Tell whether a reader that recognises a file is to be used, and why, or why not."""
    series = options.get("series")
    if name == "tiff":
        from wsi_attention.slide.readers.tiff.choice import judge

        return judge(path, series)
    if name == "openslide":
        from wsi_attention.slide.readers.tiff.choice import why_not_openslide

        why_not = why_not_openslide(path, series)
        return why_not is None, why_not or ""
    return True, ""


def _chosen(name: str, path: str, reason: str, before: list[str], options: Mapping[str, str | int]) -> Choice:
    if name == "openslide":
        name = _more_levels(path, options.get("series"))
    return Choice(name, reason or "; ".join(before) or "the first that knows the format")


def _of_other_packages() -> tuple[str, ...]:
    return tuple(name for name in names(READERS) if name not in FIRST + LAST + NEVER)


def known_elsewhere(path: str) -> bool:
    """Tell whether a reader of another package recognises a file, whose suffix need not be one of ours."""
    return any(bool(load(READERS, name).recognises(path)) for name in _of_other_packages())


def check_name(name: str) -> str:
    """Return a reader's name.

    Raises:
        InputError: no reader has that name.
    """
    if name != "auto" and name not in names(READERS):
        raise InputError(f"no reader named {name!r}; possible: auto, {', '.join(names(READERS))}")
    return name


def _more_levels(path: str, series: Series) -> str:
    """Return "tiffslide" where it sees levels that OpenSlide does not and the pixels agree, else "openslide"."""
    from wsi_attention.slide.readers.subifds import levels_hidden_from_openslide

    return "tiffslide" if levels_hidden_from_openslide(path, series) else "openslide"


def _check_exists(path: str) -> None:
    """Raise SlideOpenError unless a path leads to a file or folder that can be read."""
    file = Path(path)
    if not file.exists():
        found = "a link to something that is not there" if file.is_symlink() else "no such file or folder"
        raise SlideOpenError(f"{path}: {found}; check the path")
    check_plain_files(path)
    if file.is_file() and file.stat().st_size == 0:
        raise SlideOpenError(f"{path}: the file is empty (0 bytes); copy or download it again")
    if file.is_file():
        try:
            notes_on_file(path)
        except SlideOpenError:
            raise
        except OSError as error:
            raise SlideOpenError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _impression(path: str) -> str:
    """Say what a file that no reader recognises looks like, and what to do about it."""
    if is_url(path):
        return "no reader can open this URL"
    file = Path(path)
    if file.is_dir():
        return "a folder that is neither an OME-Zarr store nor a DICOM series; give a slide file inside it"
    with file.open("rb") as stream:
        head = stream.read(512).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "a web page or XML text, not a slide (a failed download?); download it again"
    if file.suffix.lower() == ".mrxs" and not file.with_suffix("").is_dir():
        return f"a MIRAX index without its folder {file.stem!r}; copy the folder beside it"
    return "in no format that a reader knows; copy it again if it should be a slide, else leave it out"
