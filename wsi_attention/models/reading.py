"""A model folder read and checked: its configuration, its weights, and whether they fit a network."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from wsi_attention import __version__
from wsi_attention.errors import ModelError
from wsi_attention.json_values import parse

FORMAT = 1
"""Version of the folder's layout; raised when an older version of the package could not read a folder."""
CONFIG, WEIGHTS, README = "config.json", "model.safetensors", "README.md"
PURPOSE = re.compile(r"[A-Za-z0-9 -]{0,40}")
FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
"""Kinds of numbers that stand for each other in weights."""
REQUIRED: dict[str, Any] = {
    "method": str,
    "arguments": dict,
    "classes": list,
    "mpp": (int, float),
    "weights_sha256": str,
}


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's configuration, checked.

    Raises:
        ModelError: it cannot be read, is of another package or version, or lacks something.
    """
    file = folder / CONFIG
    try:
        config = parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"{file} is no JSON: {error}") from error
    if not isinstance(config, dict) or "format" not in config:
        raise ModelError(f"{file} is no configuration of this package: it names no format; expected format {FORMAT}")
    if config["format"] != FORMAT:
        made = config.get("package_version", "an unknown version")
        raise ModelError(
            f"{file} has format {config['format']!r}, written by wsi-attention {made}; version {__version__} reads "
            f"format {FORMAT}: install the version that wrote it, or train again"
        )
    for key, kind in REQUIRED.items():
        if not isinstance(config.get(key), kind):
            raise ModelError(f"{file}: {key!r} is missing or of the wrong kind, found {brief(config.get(key))}")
    classes = config["classes"]
    if not classes or len(set(map(str, classes))) < len(classes) or not all(isinstance(one, str) for one in classes):
        raise ModelError(f"{file}: 'classes' must be different names, found {brief(classes)}")
    purpose = config.get("purpose", "")
    if not isinstance(purpose, str) or not PURPOSE.fullmatch(purpose):
        raise ModelError(f"{file}: 'purpose' must be a few plain words such as demonstration, found {brief(purpose)}")
    return config


def read_weights(folder: Path, config: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """A folder's weights, and the sha256 of their file.

    Raises:
        ModelError: they cannot be read, or are not those that the configuration names.
    """
    file = folder / WEIGHTS
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}") from error
    sha256 = hashlib.sha256(raw).hexdigest()
    if sha256 != config["weights_sha256"]:
        raise ModelError(
            f"{file} has sha256 {sha256[:12]}…, {CONFIG} expects {config['weights_sha256'][:12]}…: damaged, cut short, "
            "or of another model; copy the whole folder again"
        )
    try:
        return load_tensors(raw), sha256
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"{file} is no safetensors file: {error}") from error


def check_fit(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], folder: Path) -> None:
    """Refuses weights that are not those of a network.

    Raises:
        ModelError: a name, shape or kind of number differs, or a value is not finite.
    """
    problem = _misfit(weights, wanted)
    if problem:
        raise ModelError(
            f"{folder / WEIGHTS} does not fit {CONFIG}: {problem}; copy the whole folder again, or train again"
        )
    for name, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise ModelError(f"{folder / WEIGHTS} cannot be used: {name} holds values that are not finite; train again")


def _misfit(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    for name, value in wanted.items():
        if name not in weights:
            return f"it lacks {name}, shape {tuple(value.shape)}"
        if weights[name].shape != value.shape:
            return f"{name} has shape {tuple(weights[name].shape)}, the model has {tuple(value.shape)}"
        if not _same_kind(weights[name].dtype, value.dtype):
            return f"{name} holds {_plain(weights[name].dtype)}, the model has {_plain(value.dtype)}"
    return next((f"it has {name}, the model has not" for name in sorted(weights) if name not in wanted), None)


def _same_kind(stored: torch.dtype, wanted: torch.dtype) -> bool:
    return stored == wanted or {stored, wanted} <= FLOATS


def _plain(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def brief(value: Any) -> str:
    """A value as messages show it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
