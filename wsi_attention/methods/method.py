"""A method as the rest of the package sees it: its options, its builder, its paper. The registry holds one a name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Generic, TypeVar

from torch import nn

from wsi_attention import registry
from wsi_attention.errors import InputError
from wsi_attention.methods.encoder_facts import ENCODER, with_facts
from wsi_attention.nn.encoders import TileEncoder
from wsi_attention.options import Option, Options, listed, numbers, parse, plain, unknown_key, within

O = TypeVar("O", bound=Options)  # noqa: E741
MOST_CLASSES = 10_000
FLAT = {"encoder_widths": "widths", "features": "features", "pool": "pool", "encoder_frozen": "frozen"}
FLAT |= {"encoder_turns": "turns"}
"""Options of the tile encoder under the names that they have beside `encoder` instead of in its table."""


@dataclass(frozen=True)
class Method(Generic[O]):
    """A method of this package's kind; what an entry point of the group `wsi_attention.models` names.

    Attributes:
        options: class of its options.
        build: (number of classes, options) -> a model with fresh weights.
        summary: what it does, in a sentence.
        paper: authors, title, venue, address.
        any_target: whether its models are `protocols.AnyTarget`.
    """

    options: type[O]
    build: Callable[[int, O], nn.Module]
    summary: str
    paper: str = ""
    any_target: bool = False

    def __call__(self, classes: int, /, **arguments: object) -> nn.Module:
        """Return a model with fresh weights; errors as in `complete`."""
        return self.build(classes, self._parsed(arguments))

    def complete(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """Return all options as plain values, defaults for those left out.

        Args:
            arguments: option -> value; the encoder's options as a table, or under the names of `FLAT`.

        Raises:
            InputError: an unknown option (the nearest one is named), a value of the wrong kind or out of range.
        """
        return self._parsed(arguments).as_dict()

    def names(self) -> tuple[str, ...]:
        """Return the names of all options."""
        return tuple(one.name for one in fields(self.options))

    def listed(self) -> Iterator[Option]:
        """Yield each option as people read it."""
        return listed(self.options)

    def _parsed(self, arguments: Mapping[str, object]) -> O:
        table = self._in_a_table(arguments)
        return parse(self.options, with_facts(table, self.names()) if self.has_encoder else table, "")

    def _in_a_table(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """Return the arguments with the encoder's options in one table."""
        table = dict(arguments)
        flat = {key: table.pop(key) for key in FLAT if key in table} if self.has_encoder else {}
        if not flat:
            return table
        given = table.get(ENCODER, {})
        told = plain(given) if isinstance(given, Mapping | TileEncoder) else {"name": given}
        assert isinstance(told, dict)
        return {**table, ENCODER: {**told, **{FLAT[key]: value for key, value in flat.items()}}}

    @property
    def has_encoder(self) -> bool:
        """Whether its options hold a tile encoder."""
        return any(one.name == ENCODER and isinstance(one.default, TileEncoder) for one in fields(self.options))


@dataclass(frozen=True)
class FunctionMethod:
    """A method that another package registers as a plain function of the number of classes and keyword arguments.

    Attributes:
        function: the builder.
    """

    function: Callable[..., nn.Module]
    paper: str = ""
    any_target: ClassVar[bool] = False

    def __call__(self, classes: int, /, **arguments: object) -> nn.Module:
        """Return what the function builds."""
        return self.function(classes, **self.complete(arguments))

    @property
    def summary(self) -> str:
        """The first paragraph of the function's docstring."""
        return (inspect.getdoc(self.function) or "").split("\n\n")[0].replace("\n", " ")

    def complete(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """Return the arguments with the function's defaults for those left out; errors as in `Method.complete`."""
        accepted = self._parameters
        names = self.names()
        for key in arguments:
            if key not in names and len(names) == len(accepted):
                raise unknown_key(key, names, "")
        for key, value in arguments.items():
            within(key, value)
        defaults = {one.name: one.default for one in accepted if one.default is not inspect.Parameter.empty}
        return {**defaults, **arguments}

    def names(self) -> tuple[str, ...]:
        """Return the names of all arguments but the number of classes."""
        return tuple(one.name for one in self._parameters if one.kind is not inspect.Parameter.VAR_KEYWORD)

    def listed(self) -> Iterator[Option]:
        """Yield each argument; what it means stands in the function's own documentation."""
        for name, default in self.complete({}).items():
            kind = "number" if [*numbers(default)] == [default] else type(default).__name__
            yield Option(name, kind, default, "see the documentation of its package", "", "")

    @property
    def _parameters(self) -> list[inspect.Parameter]:
        return list(inspect.signature(self.function).parameters.values())[1:]


def find_method(name: str) -> Method[Options] | FunctionMethod:
    """Return the method that is registered under a name.

    Raises:
        InputError: there is none; the text lists what there is.
    """
    found = registry.load(registry.MODELS, name)
    return found if isinstance(found, Method) else FunctionMethod(found)


def encoder_options(method: str, arguments: Mapping[str, object]) -> object:
    """Return the options of a method's tile encoder as plain values, defaults included; None where it has no such.

    Raises:
        InputError: no such method, or an option that it does not have or refuses.
    """
    return find_method(method).complete(arguments).get(ENCODER)


def build_model(method: str, classes: int, /, **arguments: object) -> nn.Module:
    """Return a new model with fresh weights, by the registered name of its method.

    Args:
        method: e.g. "ats".
        classes: number of classes.
        **arguments: options of the method; what is left out takes its default.

    Raises:
        InputError: no such method, or an option that it does not have or refuses.
    """
    found = find_method(method)
    if not 1 <= classes <= MOST_CLASSES:
        raise InputError(f"method {method}: {classes} classes; 1 to {MOST_CLASSES} are possible")
    try:
        return found(classes, **arguments)
    except InputError as error:
        raise InputError(f"method {method}: {error}") from error
    except (TypeError, ValueError, RuntimeError, LookupError, ArithmeticError, MemoryError) as error:
        raise InputError(f"method {method} cannot be built with {brief(arguments)}: {error}") from error


def brief(value: object) -> str:
    """Return a value as messages show it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
