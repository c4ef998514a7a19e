"""Encoders in folders, as on an offline cluster: config.json and weights, or a snapshot of the hub's cache."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wsi_attention.encoders.entry import Entry
from wsi_attention.encoders.networks import completed, text_of
from wsi_attention.encoders.origin import NOBODY, Origin
from wsi_attention.encoders.places import SUFFIX, pickle_in, snapshot, weights_in
from wsi_attention.encoders.published import entry_of_repository, origin_of_path
from wsi_attention.errors import InputError
from wsi_attention.json_values import parse

CONFIG = "config.json"
CACHED = "models--"
"""How a repository's folder in the hub's cache begins."""


@dataclass(frozen=True)
class LocalEncoder:
    """What a folder says of the encoder in it.

    Attributes:
        folder: with config.json and the weights.
        entry: the published encoder that it is a copy of; None where the folder does not say, or of an unknown one.
        architecture: timm's name of the network; empty where the folder is not timm's.
        arguments: of the network's constructor.
        published: timm's description of the weights.
        config: all that config.json says.
        origin: where the weights come from.
    """

    folder: Path
    entry: Entry | None = None
    architecture: str = ""
    arguments: Mapping[str, object] = field(default_factory=dict)
    published: Mapping[str, object] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    origin: Origin = NOBODY

    @property
    def colours(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation with which the weights were trained; empty where the folder does not say."""
        return _colours(self.published) or ((self.entry.mean, self.entry.std) if self.entry else ((), ()))


def is_folder(name: str) -> bool:
    """Return whether the name of an encoder is the path of a folder: it has a slash, and no library before it."""
    return not re.match(r"\w+(-\w+)?:[^/\\]|[^/]*{", name) and any(mark in name for mark in ("/", "\\", "~"))


def name_of_folder(name: str) -> str:
    """Return the name that builds the network of a folder on any machine.

    Args:
        name: a folder with config.json, or a repository's folder in a hub's cache.

    Raises:
        InputError: no such folder, or nothing in it says how the network is built.
    """
    found = local_encoder(name)
    if found.entry is None:
        return f"timm:{found.architecture} {json.dumps(dict(found.arguments), sort_keys=True)}".removesuffix(" {}")
    entry = completed(found.entry, dict(found.config)) if found.entry.config else found.entry
    return text_of(entry, found.entry)


def is_encoder_folder(path: Path) -> bool:
    """Return whether a folder holds the files of an encoder: it is no model of this package, and not just anything."""
    if not path.is_dir():
        return False
    folder = _snapshot_in(path)
    try:
        config = parse((folder / CONFIG).read_text(encoding="utf-8")) if (folder / CONFIG).is_file() else None
    except (OSError, ValueError):
        config = None
    model = isinstance(config, dict) and "format" in config and "method" in config
    return not model and (isinstance(config, dict) or bool(weights_in(folder) or pickle_in(folder)))


def local_encoder(name: str) -> LocalEncoder:
    """Return what a folder says of the encoder in it.

    Args:
        name: a folder with config.json, or a repository's folder in a hub's cache (models--owner--name).

    Raises:
        InputError: no such folder, or nothing in it says how the network is built.
    """
    folder = _snapshot_in(Path(name).expanduser())
    config = _config(folder)
    origin = origin_of_path(folder)
    repository = origin.repository or str(config.get("_name_or_path") or "")
    entry = entry_of_repository(repository) if repository else None
    if "format" in config and "method" in config:
        raise InputError(f"{folder} is the folder of a model, not of an encoder; give it as start or encoder_start")
    architecture = config.get("architecture")
    if entry is None and not isinstance(architecture, str):
        kind = config.get("model_type") or "unknown"
        raise InputError(
            f"{folder / CONFIG} (model_type {kind}) does not say which timm network it is, nor which repository it was "
            'copied from; name the encoder, e.g. encoder = "phikon", and give the folder as encoder_start'
        )
    published = config.get("pretrained_cfg", config)
    return LocalEncoder(
        folder,
        entry,
        architecture if isinstance(architecture, str) else "",
        _table(config.get("model_args")),
        _table(published) if isinstance(architecture, str) else {},
        config,
        origin,
    )


def weights_of_folder(folder: Path) -> Path:
    """Return the safetensors file of a folder.

    Raises:
        InputError: there is none; the text names the command that makes one of what is there.
    """
    folder = _snapshot_in(folder.expanduser())
    found = weights_in(folder)
    if found is not None:
        return found
    pickled = pickle_in(folder)
    if pickled:
        raise InputError(
            f"{folder} holds its weights as {pickled.name}, which is not opened; convert it once: "
            f"wsi-attention encoders convert {pickled}"
        )
    several = sorted(path.name for path in folder.glob(f"*{SUFFIX}"))
    held = f"several: {', '.join(several[:3])}; give one of them" if several else "no file of weights"
    raise InputError(f"{folder} holds {held} as encoder_start")


def colours_beside(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation that a config.json of timm beside a file of weights states; empty without."""
    try:
        config = parse((path.parent / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return (), ()
    table = _table(config)
    return _colours(_table(table.get("pretrained_cfg", table))) or ((), ())


def _snapshot_in(folder: Path) -> Path:
    """Return the newest snapshot where a folder is that of a repository in a hub's cache, else the folder itself."""
    if (folder / "snapshots").is_dir() and folder.name.startswith(CACHED):
        repository = folder.name.removeprefix(CACHED).replace("--", "/", 1)
        found = snapshot(repository, cache=folder.parent)
        only = sorted((folder / "snapshots").iterdir())
        return found or (only[-1] if only else folder)
    return folder


def _config(folder: Path) -> Mapping[str, object]:
    try:
        config = parse((folder / CONFIG).read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"encoder {folder} has no {CONFIG} that can be read ({reason}); give the folder of an encoder"
        ) from error
    except ValueError as error:
        raise InputError(f"{folder / CONFIG} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"{folder / CONFIG} is no description of an encoder")
    return config


def _colours(told: Mapping[str, object]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    mean, std = told.get("mean"), told.get("std")
    if not isinstance(mean, list | tuple) or not isinstance(std, list | tuple) or not mean or len(mean) != len(std):
        return None
    return tuple(float(str(one)) for one in mean), tuple(float(str(one)) for one in std)


def _table(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, Mapping) else {}
