"""Patterns such as `slides/*.svs` that no shell has expanded: quoted ones, and all of them on Windows."""

from __future__ import annotations

from collections.abc import Iterable
from glob import glob, has_magic
from pathlib import Path

from wsi_attention.errors import InputError
from wsi_attention.slide.urls import is_url


def expanded(given: Iterable[str | Path]) -> tuple[str | Path, ...]:
    """Return what was given, with the sorted matches in place of each pattern; `**` leads through all folders below.

    A path that exists is never a pattern, whatever its name holds.

    Raises:
        InputError: nothing matches a pattern.
    """
    found: list[str | Path] = []
    for one in given:
        text = str(one)
        if is_url(text) or not has_magic(text) or Path(text).exists():
            found.append(one)
            continue
        matches = sorted(glob(text, recursive=True))  # noqa: PTH207  # a Path's own would match hidden files
        if not matches:
            raise InputError(f"{text}: no file or folder matches this pattern; -i takes slides, folders and patterns")
        found += matches
    return tuple(found)
