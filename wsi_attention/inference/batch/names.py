"""Slide names in a results folder: short, safe on every file system, never the same name twice."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from wsi_attention.safe_names import digest_of, safe_name

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


def suffix_of(name: str) -> str:
    """Return the slide suffix a file name ends in, as it is written there; empty where it has none."""
    lower = name.lower()
    length = next((len(suffix) for suffix in SUFFIXES if lower.endswith(suffix) and len(lower) > len(suffix)), 0)
    return name[len(name) - length :] if length else ""


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
        tried = (f"{safe_name(relative)}-{digest_of(path, length)}" for length in (8, 16, 64))
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
