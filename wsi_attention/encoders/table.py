"""All published encoders that are known here by name: those of `known.toml`, then what other packages register."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import MappingProxyType

from wsi_attention import registry
from wsi_attention.encoders.entry import INTERPOLATIONS, POOLINGS, Entry
from wsi_attention.errors import InputError
from wsi_attention.json_values import JsonObject

GROUP = "wsi_attention.encoders"
"""Entry points of other packages: each names an `Entry`, or a mapping name -> `Entry`."""
KNOWN = Path(__file__).with_name("known.toml")
NUMBERS = {"mpps", "mean", "std"}
NEAREST = 3


@cache
def entries() -> Mapping[str, Entry]:
    """Return every known encoder by its name, sorted; a name of this package cannot be taken by another.

    Raises:
        InputError: what another package registers is no entry.
    """
    known = {one.name: one for one in _of_file(KNOWN)}
    others = {one.name: one for point in registry.names(GROUP) for one in _registered(point)}
    return MappingProxyType(dict(sorted({**others, **known}.items())))


def entry_of(name: str) -> Entry:
    """Return an encoder by its name; case, "_" for "-" and arguments that follow as JSON do not matter.

    Raises:
        InputError: there is none of that name; the text gives the nearest ones.
    """
    found = entries().get(_plain(name))
    if found is None:
        near = difflib.get_close_matches(_plain(name), entries(), n=NEAREST, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise InputError(f"encoder {name!r} is not known; {hint}`wsi-attention encoders` lists them")
    return found


def is_known(name: str) -> bool:
    """Return whether `entry_of` finds an encoder of that name."""
    return _plain(name) in entries()


def entry_from(name: str, table: Mapping[str, object], where: str) -> Entry:
    """Return an entry from a parsed table.

    Args:
        name: how recipes call it.
        table: attribute of `Entry` -> value.
        where: what errors call the table.

    Raises:
        InputError: a key or a value that an entry cannot have.
    """
    unknown = [key for key in table if key not in {one.name for one in fields(Entry)} - {"name"}]
    if unknown:
        raise InputError(f"{where}: encoder {name!r}: unknown key {unknown[0]!r}")
    values: JsonObject = {key: _value(key, value) for key, value in table.items()}
    entry = Entry(name=name, **values)
    _check(entry, where)
    return entry


def _value(key: str, value: object) -> object:
    if key == "arguments" and isinstance(value, Mapping):
        return MappingProxyType(dict(value))
    if isinstance(value, list):
        return tuple(tuple(one) if isinstance(one, list) else float(one) if key in NUMBERS else one for one in value)
    return value


def _check(entry: Entry, where: str) -> None:
    told = {"pooling": (entry.pooling, ("", *POOLINGS)), "interpolation": (entry.interpolation, INTERPOLATIONS)}
    for key, (value, choices) in told.items():
        if value not in choices:
            possible = ", ".join(one for one in choices if one)
            raise InputError(f"{where}: encoder {entry.name!r}: {key} is {value!r}; possible: {possible}")
    if len(entry.mean) != len(entry.std):
        raise InputError(f"{where}: encoder {entry.name!r}: mean and std need one value a channel, both of them")


def _of_file(path: Path) -> Iterator[Entry]:
    for name, table in tomllib.loads(path.read_text(encoding="utf-8")).items():
        yield entry_from(name, table, path.name)


def _registered(point: str) -> Iterator[Entry]:
    found = registry.load(GROUP, point)
    for one in found.values() if isinstance(found, Mapping) else [found]:
        if not isinstance(one, Entry):
            origin = registry.origin(GROUP, point)
            raise InputError(f"{origin} registers {point!r} in {GROUP}, which is no Entry but {type(one).__name__}")
        yield one


def _plain(name: str) -> str:
    return name.strip().partition(" ")[0].lower().replace("_", "-")
