"""Slide names in a results folder: short, safe on every file system, never two the same."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

SUFFIXES = (
    ".ome.zarr.zip",
    ".zarr.zip",
    ".ome.zarr",
    ".ome.tiff",
    ".ome.tif",
    ".ome.btf",
    ".ome.tf8",
    ".zarr",
    ".ozx",
    ".svs",
    ".tiff",
    ".tif",
    ".gtiff",
    ".qptiff",
    ".btf",
    ".tf2",
    ".tf8",
    ".ndpi",
    ".vms",
    ".vmu",
    ".scn",
    ".mrxs",
    ".svslide",
    ".bif",
    ".czi",
    ".dcm",
    ".dicom",
)
"""File name endings of slides, longest first, so that the first that fits is the whole suffix."""

LONGEST = 180
"""Bytes of one path component; leaves room for suffixes and the prefix of temporary files within 255."""

_UNSAFE = frozenset('<>:"|?*\\')


def suffix_of(name: str) -> str:
    """The slide suffix a file name ends in, as it is written there; empty where it has none."""
    lower = name.lower()
    length = next((len(suffix) for suffix in SUFFIXES if lower.endswith(suffix) and len(lower) > len(suffix)), 0)
    return name[len(name) - length :] if length else ""


def safe_name(relative: str) -> str:
    """A relative path as a name that stays inside its folder and can be written on any file system."""
    parts = [_safe_part(part) for part in PurePosixPath(relative).parts if part not in ("/", ".", "..")]
    return "/".join(parts) or "slide"


def assign_names(slides: Sequence[tuple[str, str]], known: Mapping[str, str]) -> dict[str, str]:
    """A name for each slide path: the relative path without suffix, with it where two share a stem.

    Names are compared without case, because not every file system tells `A` from `a`. Slides that have a name already
    count as the others do, so that a batch that goes on gives the same names as one that was never interrupted.

    Args:
        slides: (path, path relative to the input folder), each path once.
        known: path -> name of slides that already have results here; they keep their name, and no other gets it.
    """
    names = {path: known[path] for path, _ in slides if path in known}
    taken = {_folded(name) for name in known.values()}
    waiting = [(path, relative) for path, relative in slides if path not in names]
    for form in (_without_suffix, _with_suffix):
        count = Counter(_folded(form(relative)) for _, relative in slides)
        names |= _unique(waiting, form, count, taken)
        taken |= {_folded(name) for name in names.values()}
        waiting = [(path, relative) for path, relative in waiting if path not in names]
    return names | {path: _with_digest(path, relative) for path, relative in waiting}


def _unique(
    slides: list[tuple[str, str]], form: Callable[[str], str], count: Mapping[str, int], taken: set[str]
) -> dict[str, str]:
    proposed = {path: form(relative) for path, relative in slides}
    return {path: name for path, name in proposed.items() if count[_folded(name)] == 1 and _folded(name) not in taken}


def _without_suffix(relative: str) -> str:
    return safe_name(relative[: len(relative) - len(suffix_of(relative))])


def _with_suffix(relative: str) -> str:
    return safe_name(relative)


def _with_digest(path: str, relative: str) -> str:
    return f"{safe_name(relative)}-{_digest(path)}"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _safe_part(part: str) -> str:
    clean = "".join("_" if _is_unsafe(character) else character for character in part)
    clean = clean.rstrip(" .") or "_"
    clean = f"_{clean[1:]}" if clean[0] == "." else clean
    if len(clean.encode()) <= LONGEST:
        return clean
    short = clean.encode()[: LONGEST - 9].decode("utf-8", "ignore")
    return f"{short}-{_digest(part)}"


def _is_unsafe(character: str) -> bool:
    return character in _UNSAFE or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
