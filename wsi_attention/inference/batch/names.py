"""Slide names in a results folder: short, safe on every file system, never the same name twice."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from wsi_attention.plain_text import HARMFUL

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

_DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"
}
"""Names that Windows takes for a device, whatever follows the first dot."""

_EXPORTED = (".json", ".geojson", ".gz", ".csv", ".png", ".zarr", ".html", ".dcm")
"""Endings of files in a results folder: a folder of slides must not have the name of another slide's file."""


def suffix_of(name: str) -> str:
    """Return the slide suffix a file name ends in, as it is written there; empty where it has none."""
    lower = name.lower()
    length = next((len(suffix) for suffix in SUFFIXES if lower.endswith(suffix) and len(lower) > len(suffix)), 0)
    return name[len(name) - length :] if length else ""


def safe_name(relative: str) -> str:
    """Return a relative path as a name that stays inside its folder and can be written on any file system."""
    *folders, name = [part for part in PurePosixPath(relative).parts if part not in ("/", ".", "..")] or ["slide"]
    return "/".join([*map(_safe_folder, folders), _safe_part(name)])


def of_image(relative: str, series: str) -> str:
    """Return a file's relative path as that of one image among several of it: `a/x.tif` becomes `a/x.series-2.tif`."""
    suffix = suffix_of(relative)
    return f"{relative.removesuffix(suffix)}.series-{series.replace('/', '_')}{suffix}"


def identity(path: str, image: str | None) -> str:
    """Return what tells a slide from all others: its path, and its image where several of the file are slides."""
    return path if image is None else f"{path}, series {image}"


def assign_names(slides: Sequence[tuple[str, str]], known: Mapping[str, str]) -> dict[str, str]:
    """Return a name for each slide path: the relative path without suffix, with suffix where two would be equal.

    Names are compared without case, because not every file system tells `A` from `a`. Slides that have a name already
    count as the others do, so that a batch that goes on gives the same names as one that was never interrupted.

    Args:
        slides: (path or `identity`, path relative to the input folder), each once.
        known: the same -> name of slides that already have results here; they keep their name, and no other gets it.
    """
    names = {path: known[path] for path, _ in slides if path in known}
    taken = {_folded(name) for name in known.values()}
    waiting = [(path, relative) for path, relative in slides if path not in names]
    for form in (_without_suffix, _with_suffix):
        count = Counter(_folded(form(relative)) for _, relative in slides)
        names |= _unique(waiting, form, count, taken)
        taken |= {_folded(name) for name in names.values()}
        waiting = [(path, relative) for path, relative in waiting if path not in names]
    for path, relative in waiting:
        tried = (f"{safe_name(relative)}-{_digest(path, length)}" for length in (8, 16, 64))
        names[path] = next(name for name in tried if _folded(name) not in taken)
        taken.add(_folded(names[path]))
    return names


def _unique(
    slides: list[tuple[str, str]], form: Callable[[str], str], count: Mapping[str, int], taken: set[str]
) -> dict[str, str]:
    proposed = {path: form(relative) for path, relative in slides}
    return {path: name for path, name in proposed.items() if count[_folded(name)] == 1 and _folded(name) not in taken}


def _without_suffix(relative: str) -> str:
    return safe_name(relative[: len(relative) - len(suffix_of(relative))])


def _with_suffix(relative: str) -> str:
    return safe_name(relative)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _digest(text: str, length: int = 8) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def _safe_folder(part: str) -> str:
    clean = _safe_part(part)
    stem, dot, ending = clean.rpartition(".")
    return f"{stem}_{ending}" if f"{dot}{ending}".lower() in _EXPORTED else clean


def _safe_part(part: str) -> str:
    clean = "".join("_" if _is_unsafe(character) else character for character in part)
    clean = clean.rstrip(" .") or "_"
    clean = f"_{clean[1:]}" if clean[0] == "." else clean
    clean = f"_{clean}" if clean.partition(".")[0].rstrip(" ").upper() in _DEVICES else clean
    if len(clean.encode()) <= LONGEST:
        return clean
    short = clean.encode()[: LONGEST - 9].decode("utf-8", "ignore")
    return f"{short}-{_digest(part)}"


def _is_unsafe(character: str) -> bool:
    return character in _UNSAFE or HARMFUL.match(character) is not None
