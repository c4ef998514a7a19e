"""Options: frozen dataclasses whose fields say what they mean, what values they take and where a number comes from.

Recipes and methods keep their numbers in them. A mistake is one line that names the nearest right key or the range.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import TypeVar, Union, get_args, get_origin, get_type_hints

from wsi_attention.errors import InputError

__all__ = ["Option", "Options", "listed", "option", "other_default", "parse", "table"]

T = TypeVar("T")
O = TypeVar("O", bound="Options")  # noqa: E741
LARGEST = 1e12
"""No number of an option is larger, whatever it means."""


def option(
    default: T,
    meaning: str,
    source: str = "",
    *,
    low: float = -LARGEST,
    high: float = LARGEST,
    choices: Sequence[str] = (),
) -> T:
    """Return a dataclass field for one option.

    Args:
        default: its value where nobody says anything; an immutable value.
        meaning: what it is, with its unit, as one phrase.
        source: where the default comes from: the paper and its section, or what was measured.
        low: the least that makes sense, for each number of a sequence.
        high: the most.
        choices: all texts it may be; any text where empty.
    """
    return field(default=default, metadata=_metadata(meaning, source, low, high, choices))


def table(meaning: str) -> Mapping[str, object]:
    """Return a dataclass field for a table whose keys others know; it is empty by default."""
    empty: dict[str, object] = {}
    return field(default_factory=empty.copy, metadata=_metadata(meaning, "", -LARGEST, LARGEST, ()))


def other_default(kind: type[Options], name: str, default: T, source: str = "") -> T:
    """Return the field of an option that a parent class has too, with another default."""
    (given,) = (one for one in fields(kind) if one.name == name)
    told = dict(given.metadata) | ({"source": source} if source else {})
    return field(default=default, metadata=told)


@dataclass(frozen=True)
class Option:
    """One option as people read it.

    Attributes:
        name: its key; a dot leads into a table, e.g. "encoder.pool".
        kind: the type in words, e.g. "whole number".
        default: a plain value.
        meaning: what it is.
        source: where the default comes from; "" where that is this project's choice.
        limits: the values that are possible, in words; "" where all of the kind are.
    """

    name: str
    kind: str
    default: object
    meaning: str
    source: str
    limits: str


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of option classes. All fields are checked when a value is made, and lists become tuples.

    Raises:
        InputError: a value of the wrong kind or out of range.
    """

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for one in fields(self):
            value = _converted(hints[one.name], one.name, getattr(self, one.name))
            _check(one, value)
            object.__setattr__(self, one.name, value)
        self.check()

    def check(self) -> None:
        """Raise InputError where options do not go together; a subclass says which."""

    def as_dict(self) -> dict[str, object]:
        """Return all options as plain values, ready for JSON: sequences as lists, tables as dicts."""
        return {one.name: plain(getattr(self, one.name)) for one in fields(self)}


def parse(kind: type[O], table: Mapping[str, object], where: str) -> O:
    """Return options from a parsed table.

    Args:
        kind: the class.
        table: key -> value; what is left out takes its default.
        where: what errors call the table, e.g. the path of a file; nothing where empty.

    Raises:
        InputError: an unknown key (the nearest one is named), or a value of the wrong kind or out of range.
    """
    valid = tuple(one.name for one in fields(kind))
    for key in table:
        if key not in valid:
            raise unknown_key(key, valid, where)
    try:
        return kind(**table)
    except InputError as error:
        raise InputError(f"{where}: {error}" if where else str(error)) from error


def unknown_key(key: str, valid: Sequence[str], where: str) -> InputError:
    """Return the error for a key that does not exist, naming the nearest one that does."""
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(valid)}"
    return InputError(f"{where}{': ' if where else ''}unknown key {key!r}; {hint}")


def listed(kind: type[Options], prefix: str = "") -> Iterator[Option]:
    """Yield every option of a class; those of a table in it follow it, under its name."""
    hints = get_type_hints(kind)
    for one in fields(kind):
        wanted, default = hints[one.name], _default(one)
        name = f"{prefix}{one.name}"
        told, limits = one.metadata, _limits(one)
        if isinstance(default, Options):
            yield from listed(type(default), f"{name}.")
        else:
            yield Option(name, _words(wanted), plain(default), told["meaning"], told["source"], limits)


def plain(value: object) -> object:
    """Return a value as JSON takes it: tuples as lists, option classes as dicts."""
    if isinstance(value, Options):
        return value.as_dict()
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def numbers(value: object) -> Iterator[float]:
    """Yield every number in a value, also inside sequences."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for one in value:
            yield from numbers(one)


def within(name: str, value: object, low: float = -LARGEST, high: float = LARGEST) -> None:
    """Raise InputError unless every number in a value is finite and lies between two limits."""
    for number in numbers(value):
        if not (math.isfinite(number) and low <= number <= high):
            raise InputError(f"{name} is {number:g}; it must lie between {low:g} and {high:g}")


def one_of(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise InputError unless a value is among its choices, which the text lists."""
    if value not in choices:
        raise InputError(f"{name} is {value!r}; possible: {', '.join(choices)}")


def _metadata(meaning: str, source: str, low: float, high: float, choices: Sequence[str]) -> dict[str, object]:
    return {"meaning": meaning, "source": source, "low": low, "high": high, "choices": tuple(choices)}


def _default(one: Field[object]) -> object:
    factory = one.default_factory
    return factory() if callable(factory) else one.default


def _check(one: Field[object], value: object) -> None:
    told = one.metadata
    if told.get("choices"):
        one_of(one.name, value, told["choices"])
    within(one.name, value, told.get("low", -LARGEST), told.get("high", LARGEST))


def _limits(one: Field[object]) -> str:
    told = one.metadata
    if told["choices"]:
        return ", ".join(map(str, told["choices"]))
    low, high = told["low"], told["high"]
    if (low, high) == (-LARGEST, LARGEST):
        return ""
    return f"{low:g} to {high:g}" if high < LARGEST else f"at least {low:g}"


def _converted(wanted: object, name: str, value: object) -> object:
    """Return a value as the field's type has it, or raise InputError where it is of another kind."""
    kinds = get_args(wanted) if get_origin(wanted) in (Union, types.UnionType) else (wanted,)
    if value is None and type(None) in kinds:
        return None
    (kind,) = (one for one in kinds if one is not type(None))
    if get_origin(kind) is tuple:
        return _sequence(get_args(kind)[0], name, value)
    if isinstance(kind, type) and is_dataclass(kind):
        return _table(kind, name, value)
    if get_origin(kind) is not None or kind not in (bool, int, float, str):
        if not isinstance(value, Mapping):
            raise InputError(f"{name} must be a table, such as [{name}], not {value!r}")
        return dict(value)
    return _single(kind, name, value)


def _single(kind: object, name: str, value: object) -> object:
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) <= LARGEST or isinstance(value, float) else value
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):  # type: ignore[arg-type]
        raise InputError(f"{name} must be {_words(kind, article=True)}, not {value!r}")
    return value


def _sequence(kind: object, name: str, value: object) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise InputError(f"{name} must be a list of {_words(kind)}s, not {value!r}")
    return tuple(_single(kind, name, one) for one in value)


def _table(kind: type, name: str, value: object) -> object:
    if isinstance(value, kind):
        return value
    named = getattr(kind, "named", None)
    if isinstance(value, str) and named is not None:
        return named(value)
    if not isinstance(value, Mapping):
        raise InputError(f"{name} must be a table, such as [{name}], not {value!r}")
    return parse(kind, value, f"[{name}]")


def _words(kind: object, article: bool = False) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        return (
            " or nothing".join(_words(one, article) for one in get_args(kind) if one is not type(None)) + " or nothing"
        )
    if get_origin(kind) is tuple:
        return f"list of {_words(get_args(kind)[0])}s"
    word = {bool: "true or false", int: "whole number", float: "number", str: "text in quotes"}.get(kind, "table")  # type: ignore[call-overload]
    return f"a {word}" if article and word.endswith("number") else word
