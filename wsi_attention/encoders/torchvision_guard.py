"""Import timm or transformers where torchvision is missing or built for another torch.

Both import torchvision, but their networks hardly use it. Where it cannot be imported, modules that are empty but for
placeholders stand in for it while the library is imported, in this process alone, and are removed afterwards.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn

from wsi_attention.errors import MissingExtraError
from wsi_attention.registry import IMPORTING

NAME = "torchvision"
FAILURES = (ImportError, RuntimeError, OSError, AttributeError)
"""What importing a torchvision of another build raises, by its version."""


@contextmanager
def without_torchvision() -> Iterator[None]:
    """Let the body import a library that wants torchvision, whether that can be imported or not.

    The real torchvision is used where it works. Otherwise placeholders stand in until the body ends.
    """
    with IMPORTING:
        if not torchvision_problem():
            yield
            return
        finder = _StandIn()
        sys.meta_path.insert(0, finder)
        try:
            yield
        finally:
            sys.meta_path.remove(finder)
            _forget()


@cache
def torchvision_problem() -> str:
    """Return why torchvision cannot be imported, nothing where it can; it is tried once."""
    try:
        __import__(NAME)
    except FAILURES as error:
        _forget()
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def matching_pair() -> str:
    """Return the command that installs a torchvision for the torch that is here."""
    import torch

    release, _, build = torch.__version__.partition("+")
    index = f" --index-url https://download.pytorch.org/whl/{build}" if build else ""
    return f"pip install --force-reinstall torch=={release} torchvision{index}"


class _Placeholders(type):
    """Classes whose unknown attributes are texts, such as `InterpolationMode.BICUBIC`."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"


def _refuse(self: object, *_: object, **__: object) -> NoReturn:
    raise MissingExtraError(
        f"{type(self).__name__} needs {NAME}, which cannot be imported here ({torchvision_problem()}); "
        f"install the pair: {matching_pair()}"
    )


class _StandInModule(ModuleType):
    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _Placeholders(name, (), {"__init__": _refuse, "__module__": self.__name__})
        setattr(self, name, made)
        return made


class _StandIn(MetaPathFinder, Loader):
    """Finds every module of torchvision."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for torchvision and all below it."""
        if fullname.partition(".")[0] != NAME:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return a module with placeholders."""
        return _StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Fill in nothing but a version, which libraries ask for."""
        module.__dict__["__version__"] = "0"


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]
