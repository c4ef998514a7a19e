"""The weights of an encoder alone, as a safetensors file: write, read, load into a network; nothing is unpickled.

The file holds the state dict under the encoder's own names (torchvision's for "resnet18", timm's for "timm:..."). Its
metadata may say with which mean and standard deviation of colours the encoder was trained.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from wsi_attention.encoders.origin import NOBODY, Origin
from wsi_attention.encoders.places import SUFFIX
from wsi_attention.errors import InputError, ModelError
from wsi_attention.json_values import parse

METADATA = "wsi_attention"
"""Key in the metadata of the file; its value is JSON with "mean", "std" and "origin"."""
CONVERT = "a pickle can run any code, so it is not opened; convert it once: wsi-attention encoders convert FILE"
NAMED = 3
"""Most tensors of a kind that an error names."""


@dataclass(frozen=True, eq=False)
class EncoderWeights:
    """The weights of a trained encoder.

    Attributes:
        tensors: its state dict.
        mean: per-channel mean in [0, 1] with which it was trained; empty where unknown.
        std: per-channel standard deviation, likewise.
        origin: who published it; nothing where the file does not say.
    """

    tensors: Mapping[str, Tensor]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    origin: Origin = NOBODY


def save_encoder(path: str | Path, encoder: nn.Module, *, mean: Sequence[float] = (), std: Sequence[float] = ()) -> str:
    """Write the weights of an encoder, for `encoder_start` of a recipe.

    Args:
        path: a file ending in .safetensors; its folder is made.
        encoder: of `TileEncoder.build`, frozen or not.
        mean: per-channel mean in [0, 1] with which it was trained.
        std: per-channel standard deviation, likewise.

    Returns:
        The sha256 of the file.

    Raises:
        ModelError: the file cannot be written.
    """
    path = Path(path)
    tensors = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
    content = save(tensors, {METADATA: json.dumps({"mean": list(mean), "std": list(std)})})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_name(f".{path.name}.tmp")
        made.write_bytes(content)
        made.replace(path)
    except OSError as error:
        raise ModelError(f"encoder {path} cannot be written: {error.strerror or error}") from error
    return hashlib.sha256(content).hexdigest()


def read_encoder(path: str | Path) -> EncoderWeights:
    """Return the weights in a safetensors file.

    Raises:
        InputError: no such file, or no safetensors file; for a pickle the text says how to convert it.
    """
    path = Path(path)
    if path.is_file() and path.suffix != SUFFIX:
        raise InputError(
            f"encoder weights must be a {SUFFIX} file, not {path}: {CONVERT.replace('FILE', shlex.quote(str(path)))}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            said = parse((file.metadata() or {}).get(METADATA, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return EncoderWeights(
            tensors, tuple(said.get("mean", ())), tuple(said.get("std", ())), Origin.of(said.get("origin"))
        )
    except (OSError, SafetensorError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"encoder weights {path} cannot be read: {error}") from error


def read_origin(path: str | Path) -> Origin:
    """Return where the weights in a safetensors file come from; nothing where the file does not say, or is none."""
    try:
        with safe_open(path, framework="pt") as file:
            said = parse((file.metadata() or {}).get(METADATA, "{}"))
    except (OSError, SafetensorError, ValueError):
        return Origin()
    return Origin.of(said.get("origin")) if isinstance(said, dict) else Origin()


def fill_encoder(encoder: nn.Module, weights: Mapping[str, Tensor], origin: str) -> None:
    """Copy weights into an encoder; a classifier among them (`encoder.classifiers`) is left out.

    Names that its authors' file has otherwise (`encoder.renamed`) become those of the network.

    Args:
        encoder: of `TileEncoder.build`.
        weights: its state dict, in any float type.
        origin: where the weights come from, for the error.

    Raises:
        InputError: tensors are missing, unexpected, of another shape, or not finite; the text names them.
    """
    wanted = encoder.state_dict()
    heads: tuple[str, ...] = getattr(encoder, "classifiers", ())
    given = {_renamed(encoder, name): value for name, value in weights.items()}
    kept = {name: value for name, value in given.items() if name in wanted or not _is_below(name, heads)}
    problems = _misfits(kept, wanted)
    if problems:
        raise InputError(f"the weights of {origin} do not fit the encoder: {'; '.join(problems)}")
    encoder.load_state_dict(dict(kept))


def _renamed(encoder: nn.Module, name: str) -> str:
    for pattern, replacement in getattr(encoder, "renamed", ()):
        name = re.sub(pattern, replacement, name)
    return name


def _is_below(name: str, modules: Sequence[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _misfits(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    both = [name for name in wanted if name in weights]
    shapes = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in both
        if weights[name].shape != wanted[name].shape
    ]
    kinds = {
        "missing": [name for name in wanted if name not in weights],
        "unexpected": [name for name in weights if name not in wanted],
        "of another shape": shapes,
        "not finite": [name for name in both if not bool(torch.isfinite(weights[name]).all())],
    }
    return [f"{len(names)} {kind}: {_listed(names)}" for kind, names in kinds.items() if names]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
