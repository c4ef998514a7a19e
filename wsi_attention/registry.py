"""name -> factory. Built-ins and outsiders come through the same entry points, imported only when used."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from threading import RLock
from typing import Any

from wsi_attention.errors import InputError

READERS = "wsi_attention.readers"
MODELS = "wsi_attention.models"
EXPORTERS = "wsi_attention.exporters"

IMPORTING = RLock()
"""Held while a large package is imported. Python takes a lock a module, and lets a second thread have a half-imported
one where two threads come from two sides; zarr and tiffslide then look damaged."""


@cache
def _table(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda p: (p.name, p.value))}


def names(group: str) -> tuple[str, ...]:
    """Return the registered names of a group, sorted."""
    return tuple(_table(group))


def name_of(group: str, kind: type) -> str | None:
    """Return the name a class is registered under, None where it is not registered; nothing is imported."""
    value = f"{kind.__module__}:{kind.__qualname__}"
    return next((name for name, point in _table(group).items() if point.value == value), None)


def origin(group: str, name: str) -> str:
    """Return the package that registered a name, such as "wsi-attention"."""
    dist = _table(group)[name].dist
    return dist.name if dist else "unknown"


def load(group: str, name: str) -> Any:
    """Return the object registered under a name.

    Raises:
        InputError: no package registers that name; the text lists what there is.
    """
    table = _table(group)
    if name not in table:
        kind = group.rpartition(".")[2].removesuffix("s")
        raise InputError(f"no {kind} named {name!r}; installed: {', '.join(table) or 'none'}")
    with IMPORTING:
        return table[name].load()
