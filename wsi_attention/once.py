"""A property that is computed on first use and then kept by its object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class once(Generic[T]):  # noqa: N801  # reads like `property`, whose place it takes
    """Decorate a method to make it a property whose value is computed once for each object.

    `functools.cached_property` has one lock for all objects of a class in Python 3.11, so a slide that hangs in it
    would stop every other slide. Here is no lock: two threads that ask one object at the same time may both compute
    the value, and one of the two is kept.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> Self | T:
        if instance is None:
            return self
        value = self._compute(instance)
        kept: T = vars(instance).setdefault(self._name, value)
        return kept
