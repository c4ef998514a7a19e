"""From a path to an open reader: which one, and every way it can go wrong told in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from wsi_attention.errors import InputError, SlideOpenError
from wsi_attention.protocols import SlideReader
from wsi_attention.registry import READERS, load, names
from wsi_attention.slide.brightfield import check_metadata
from wsi_attention.slide.failures import opening
from wsi_attention.slide.plain_files import check_plain_files
from wsi_attention.slide.readers.tiff.tag_sizes import check_tag_sizes
from wsi_attention.slide.urls import is_url, masked

FIRST = ("zarr", "tiff", "openslide")
LAST = ("tiffslide",)
NEVER = ("array",)
"""What `auto` tries first and last; readers of other packages come between; `array` is only used when asked for."""


def opener(origin: object, path: str, name: str) -> Callable[[], SlideReader]:
    """A function that opens a slide afresh with the named reader.

    Args:
        origin: what the reader is given: the path, or levels in memory.
        path: what stands for it in messages.
        name: the reader's.
    """

    def open_fresh() -> SlideReader:
        with opening(path, name):
            if isinstance(origin, str) and not is_url(origin):
                check_plain_files(origin)
            reader: SlideReader = load(READERS, name)(origin)
            try:
                check_metadata(path, reader.properties)
            except BaseException:
                reader.close()
                raise
            return reader

    return open_fresh


class Choice(NamedTuple):
    """A reader's name, and why it was taken."""

    reader: str
    reason: str


def choose(path: str) -> Choice:
    """The reader that `auto` takes for a path.

    `tiff` gets the tiled TIFFs that it decodes exactly as OpenSlide does, which is tried on a tissue tile. Otherwise
    OpenSlide's word counts where it knows the vendor: should it then fail to open the file, nothing else is tried.
    tiffslide gets what OpenSlide does not know, URLs, and OME-TIFF whose smaller levels OpenSlide does not see.

    Raises:
        SlideOpenError: there is no such file, or no reader knows it.
    """
    if not is_url(path):
        _check_exists(path)
    order = [name for name in (*FIRST, *_of_other_packages(), *LAST) if name in names(READERS)]
    reason = "the first that knows the format"
    for name in order:
        with opening(path, name):
            recognised = bool(load(READERS, name).recognises(path))
            refused = _why_not_tiff(path) if recognised and name == "tiff" else None
        if refused is not None:
            reason = f"not tiff: {refused}"
        elif recognised:
            return _chosen(name, path, reason)
    raise SlideOpenError(f"{masked(path)}: {_impression(path)}; tried {', '.join(order)}")


def _of_other_packages() -> tuple[str, ...]:
    return tuple(name for name in names(READERS) if name not in FIRST + LAST + NEVER)


def known_elsewhere(path: str) -> bool:
    """Whether a reader of another package recognises a file, whose suffix need not be one of ours."""
    return any(bool(load(READERS, name).recognises(path)) for name in _of_other_packages())


def _why_not_tiff(path: str) -> str | None:
    from wsi_attention.slide.readers.tiff.choice import why_not

    return why_not(path)


def _chosen(name: str, path: str, reason: str) -> Choice:
    if name == "tiff":
        return Choice(
            name, f"a tiled TIFF{' at a URL' if is_url(path) else '; a tissue tile is the same in OpenSlide'}"
        )
    return Choice(_more_levels(path) if name == "openslide" else name, reason)


def check_name(name: str) -> str:
    """A reader's name, checked.

    Raises:
        InputError: no reader has that name.
    """
    if name != "auto" and name not in names(READERS):
        raise InputError(f"no reader named {name!r}; possible: auto, {', '.join(names(READERS))}")
    return name


def _more_levels(path: str) -> str:
    """ "tiffslide" where it sees levels that OpenSlide does not and both give the same pixels, else "openslide"."""
    from wsi_attention.slide.readers.subifds import levels_hidden_from_openslide

    return "tiffslide" if levels_hidden_from_openslide(path) else "openslide"


def _check_exists(path: str) -> None:
    file = Path(path)
    if not file.exists():
        found = "a link to something that is not there" if file.is_symlink() else "no such file or folder"
        raise SlideOpenError(f"{path}: {found}; check the path")
    check_plain_files(path)
    if file.is_file() and file.stat().st_size == 0:
        raise SlideOpenError(f"{path}: the file is empty (0 bytes); copy or download it again")
    if file.is_file():
        try:
            check_tag_sizes(path)
        except SlideOpenError:
            raise
        except OSError as error:
            raise SlideOpenError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _impression(path: str) -> str:
    """What a file that nobody recognises looks like, and what to do about it."""
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
