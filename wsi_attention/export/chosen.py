"""Exporters as values: a registered name stands for its exporter with default options."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from pathlib import PurePath
from typing import cast

from wsi_attention import registry
from wsi_attention.errors import InputError
from wsi_attention.protocols import Exporter


def exporter_of(chosen: str | Exporter) -> Exporter:
    """Return the exporter itself, or the one registered under a name, with its default options.

    Raises:
        InputError: no exporter has that name (the text lists those that exist), a class was given in place of an
            exporter, or its files would lie outside the results folder.
    """
    if isinstance(chosen, type):
        raise InputError(f"{chosen.__name__} is a class; give an exporter, such as {chosen.__name__}()")
    exporter = cast(Exporter, registry.load(registry.EXPORTERS, chosen)()) if isinstance(chosen, str) else chosen
    suffix = getattr(exporter, "suffix", None)
    if not isinstance(suffix, str) or not callable(exporter):
        raise InputError(f"{exporter!r} is no exporter: it needs a suffix, and is called with a prediction and a path")
    parts = PurePath(suffix).parts
    if "{slide}" not in suffix or len(parts) < 2 or ".." in parts or PurePath(suffix).is_absolute():
        raise InputError(f"exporter {chosen!r} writes to {suffix!r}; it must be a path like kind/{{slide}}.json")
    return exporter


def exporters_of(chosen: str | Exporter | Iterable[str | Exporter]) -> tuple[Exporter, ...]:
    """Return the exporters that names and values stand for; a single one may be given by itself.

    Raises:
        InputError: as `exporter_of`, or two exporters would write the same file.
    """
    several = chosen if isinstance(chosen, Iterable) and not isinstance(chosen, str) else [chosen]
    exporters = tuple(map(exporter_of, several))
    seen: set[str] = set()
    for exporter in exporters:
        if exporter.suffix in seen:
            raise InputError(f"two exporters write {exporter.suffix}; give one of them another suffix, or leave it out")
        seen.add(exporter.suffix)
    return exporters


def options_of(exporter: Exporter) -> str:
    """Return the options of an exporter as text; "" where they are the default ones, or not known."""
    if not is_dataclass(type(exporter)):
        return ""
    given: object = exporter
    kind = cast(Callable[[], object], type(exporter))
    try:
        return "" if given == kind() else repr(exporter)
    except TypeError:  # options without a default
        return repr(exporter)


def name_of(exporter: Exporter) -> str:
    """Return the name an exporter is registered under, else the folder that it writes to."""
    registered = registry.name_of(registry.EXPORTERS, type(exporter))
    return registered or PurePath(exporter.suffix).parts[0]
