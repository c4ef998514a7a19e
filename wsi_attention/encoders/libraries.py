"""timm and transformers, imported on use, or one sentence on what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from wsi_attention.encoders.torchvision_guard import FAILURES, matching_pair, torchvision_problem, without_torchvision
from wsi_attention.errors import InputError, MissingExtraError
from wsi_attention.extras import how_to_install


def timm_package() -> ModuleType:
    """Return timm, also where torchvision is missing or of another build.

    Raises:
        MissingExtraError: timm is not installed, or cannot be loaded.
    """
    if find_spec("timm") is None:
        raise MissingExtraError(f"encoders of timm and the hub need the package timm; {how_to_install('encoders')}")
    return _imported("timm")


def check_arguments(name: str, architecture: str, arguments: Mapping[str, object]) -> None:
    """Raise InputError unless timm knows an architecture, and no argument makes it read weights by itself.

    Names may stand in a model folder that comes from somebody else; timm would open a pickle that an argument names.
    """
    if not timm_package().is_model(architecture.partition(".")[0]):
        raise InputError(f"encoder {name!r}: timm has no network {architecture!r}")
    for key in arguments:
        if key.startswith(("pretrained", "checkpoint")):
            raise InputError(f"encoder {name!r}: {key} is no argument of the network; weights come by encoder_start")


def transformers_class(name: str) -> type:
    """Return a class of transformers by its name.

    Raises:
        MissingExtraError: transformers is not installed, or cannot be loaded, or has no such class.
    """
    if find_spec("transformers") is None:
        raise MissingExtraError(f"this encoder needs the package transformers; {how_to_install('transformers')}")
    module = _imported("transformers")
    try:
        with without_torchvision():
            found: type = getattr(module, name)
    except FAILURES as error:
        raise _unusable("transformers", error) from error
    return found


def _imported(name: str) -> ModuleType:
    try:
        with without_torchvision():
            return import_module(name)
    except FAILURES as error:
        raise _unusable(name, error) from error


def _unusable(name: str, error: Exception) -> MissingExtraError:
    problem = torchvision_problem()
    if problem:
        return MissingExtraError(
            f"{name} is installed but cannot be loaded ({error}), nor can torchvision ({problem}), which must be of "
            f"the same build as torch: {matching_pair()}"
        )
    return MissingExtraError(f"{name} is installed but cannot be loaded ({error}); install it again")
