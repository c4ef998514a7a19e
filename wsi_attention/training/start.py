"""What a training starts from: weights of a model or encoder, the colours it normalises by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import nn

from wsi_attention.checkpoint import load_model
from wsi_attention.encoders.conversion import sha256_of
from wsi_attention.encoders.encoder_weights import EncoderWeights, read_encoder
from wsi_attention.encoders.local_files import colours_beside, is_encoder_folder, weights_of_folder
from wsi_attention.encoders.places import SUFFIX
from wsi_attention.errors import InputError, SlideError
from wsi_attention.geometry import Grid
from wsi_attention.nn.encoders import innermost
from wsi_attention.nn.filling import fill
from wsi_attention.nn.known_encoder import KnownEncoder
from wsi_attention.nn.overview_colours import NAMES
from wsi_attention.nn.timm_encoder import TimmEncoder
from wsi_attention.options import numbers
from wsi_attention.protocols import contract_of
from wsi_attention.training.data import Example, ahead

NOTHING: Mapping[str, object] = MappingProxyType({})
PRETRAINED = "pretrained"
"""`encoder_start` for the weights that the encoder's library publishes."""


def take_weights(model: nn.Module, start: str) -> None:
    """Copy the weights of an earlier model of the same shape, to go on from easier slides or another laboratory's.

    Colours to normalise by are arguments, not weights: the new model keeps its own.

    Raises:
        InputError: the weights do not fit.
    """
    weights = load_model(start).model.state_dict()
    weights |= {name: value for name, value in model.state_dict().items() if name.startswith("preprocess.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the weights of {start} do not fit this recipe: {reason}") from error


def take_encoder(model: nn.Module, start: str) -> None:
    """Copy an encoder's weights into the encoder of a model.

    Args:
        model: with its encoder as `encoder`.
        start: a model folder, a shipped model's name, a .safetensors file, an encoder's folder, or "pretrained".

    Raises:
        InputError: the model has no encoder, or the weights cannot be had or do not fit.
        MissingExtraError: a package is needed for them.
    """
    encoder = encoder_of(model, "this method")
    fill(encoder, encoder_weights(encoder, start).tensors, start)


def encoder_weights(encoder: nn.Module, start: str) -> EncoderWeights:
    """Return weights for an encoder, with the colours they were trained with where that is known.

    Raises:
        InputError: nothing is there, or it cannot be used.
    """
    if start == PRETRAINED:
        return _published(encoder).published_weights()
    if file := start_file(start):
        return _with_colours(read_encoder(file), file)
    earlier = load_model(start)
    options = earlier.config["options"]
    weights = encoder_of(earlier.model, f"the model {start}").state_dict()
    return EncoderWeights(weights, tuple(options.get("mean", ())), tuple(options.get("std", ())))


def encoder_colours(model: nn.Module, start: str, stated: Mapping[str, object] = NOTHING) -> dict[str, object]:
    """Return the arguments "mean" and "std" that the encoder was trained with.

    An architecture has colours by default, but they are those of its library's weights: they never pass for the
    colours of a file or a model from elsewhere. A published encoder's are those of its weights, whoever brings them.

    Args:
        model: with its encoder as `encoder`.
        start: where the encoder's weights come from; empty for fresh ones.
        stated: options of the recipe; their "mean" and "std" count where the weights say nothing.

    Raises:
        InputError: neither the weights nor the options say, or they contradict each other.
    """
    encoder = innermost(encoder_of(model, "this method"))
    own = start in ("", PRETRAINED) or isinstance(encoder, KnownEncoder)
    said: nn.Module | EncoderWeights = encoder if own else encoder_weights(encoder, start)
    given = {name: list(getattr(said, name, ())) for name in ("mean", "std")}
    told: dict[str, object] = {name: stated[name] for name in given if name in stated}
    if all(given.values()):
        other = [name for name, value in told.items() if list(numbers(value)) != given[name]]
        if other:
            raise InputError(
                f"{other[0]} = {told[other[0]]} under [model] is not what the weights of {start or 'the encoder'} say, "
                f'{given[other[0]]}; leave the line out, or write statistics = "builder"'
            )
        return dict(given)
    if len(told) == len(given):
        return told
    raise InputError(
        f"nothing says which colours the weights of {start or 'this encoder'} were trained with; add mean = [...] and "
        "std = [...] under [model], as their authors state them"
    )


def colours_of_start(start: str) -> dict[str, object]:
    """Return the colours in which an earlier model's network sees overviews, as options; none where it has none.

    Its weights know no others.
    """
    options = load_model(start).config["options"]
    return {name: options[name] for name in NAMES if options.get(name)}


def without_hub(model: nn.Module, arguments: Mapping[str, object]) -> dict[str, object]:
    """Return a method's options with an encoder's name that builds it again without the hub."""
    encoder = contract_of(model).encoder
    found = None if encoder is None else innermost(encoder)
    if not isinstance(found, TimmEncoder | KnownEncoder):
        return dict(arguments)
    given = arguments.get("encoder")
    return {**arguments, "encoder": {**given, "name": found.name} if isinstance(given, Mapping) else found.name}


def encoder_of(model: nn.Module, name: str) -> nn.Module:
    """Return the tile encoder of a model.

    Raises:
        InputError: it has none.
    """
    encoder = contract_of(model).encoder
    if encoder is None:
        raise InputError(f"{name} has no tile encoder; leave out encoder_start")
    return encoder


def encoder_fingerprint(start: str) -> str:
    """Return the sha256 of the weights that `encoder_start` names, so that another file of the same name is noticed.

    Published weights are known by their name alone: they are not downloaded again to be compared.

    Raises:
        InputError: the file cannot be read.
        ModelError: there is no such model.
    """
    if start in ("", PRETRAINED):
        return start
    try:
        file = start_file(start)
        return sha256_of(file) if file else load_model(start).weights_sha256
    except OSError as error:
        raise InputError(f"encoder weights {start} cannot be read: {error.strerror or error}") from error


def _published(encoder: nn.Module) -> TimmEncoder | KnownEncoder:
    encoder = innermost(encoder)
    if not isinstance(encoder, TimmEncoder | KnownEncoder):
        raise InputError(
            f"{PRETRAINED!r} weights exist for encoders of timm or the hub and for published ones only; give a "
            ".safetensors file, or a model folder"
        )
    return encoder


def start_file(start: str) -> Path | None:
    """Return the file of weights that `encoder_start` names: itself, or in an encoder's folder; None for a model.

    Raises:
        InputError: the encoder's folder holds none that can be read.
    """
    path = Path(start).expanduser()
    if path.is_file() or path.suffix == SUFFIX:
        return path
    return weights_of_folder(path) if is_encoder_folder(path) else None


def _with_colours(weights: EncoderWeights, file: Path) -> EncoderWeights:
    """Return weights with the colours of a config.json beside their file, where the file itself states none."""
    if weights.mean and weights.std:
        return weights
    mean, std = colours_beside(file)
    return replace(weights, mean=mean, std=std)


SLIDES = 32
"""Slides looked at; more change the third decimal."""

Colour = tuple[float, ...]


def tissue_colours(examples: Sequence[Example], overview_mpp: float) -> tuple[Colour, Colour]:
    """Return the per-channel mean and standard deviation, in [0, 1], of the tissue of up to `SLIDES` examples.

    The examples are evenly spaced. Each slide counts the same, whatever its size.

    Raises:
        InputError: none of the slides can be used.
    """
    spaced = np.unique(np.linspace(0, len(examples) - 1, min(SLIDES, len(examples))).astype(int))
    moments = []
    with closing(ahead([examples[i] for i in spaced])) as opened:
        for _, source in opened:
            if isinstance(source, SlideError):
                continue
            downsample = source.overview_downsample(overview_mpp)
            view = source.overview(downsample)[0].float() / 255
            grid = Grid(view.shape[-2], view.shape[-1], (downsample, downsample))
            pixels = view[:, source.tissue(grid)[0]].double()
            moments.append(torch.stack([pixels.mean(1), (pixels**2).mean(1)]))
    if not moments:
        raise InputError("no training slide can be used; the lines above say why")
    mean, square = torch.stack(moments).mean(0)
    deviation = (square - mean**2).clamp_min(1e-6).sqrt()
    return _rounded(mean), _rounded(deviation)


def _rounded(values: torch.Tensor) -> Colour:
    return tuple(round(float(value), 4) for value in values)
