"""What tells the features of one encoder from those of another: its weights, how it is built, what it is shown."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from wsi_attention.nn.encoders import bare, innermost, turns_of
from wsi_attention.nn.turned import ALL, ONE

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
"""Where an object lies in memory, which the text of a module may tell: another in each process."""
WITHOUT_EFFECT = ("frozen", "turns")
"""Options of an encoder that change nothing of what its network says; in how many turns it sees a tile, layers tell."""


@dataclass(frozen=True)
class Kind:
    """One kind of features.

    Attributes:
        key: sha256 (hex) over all that the features depend on besides the tile.
        about: the same for people, as plain JSON values.
        any_turn: whether a tile has the same feature however it is turned and mirrored.
    """

    key: str
    about: Mapping[str, object] = field(default_factory=dict, compare=False)
    any_turn: bool = field(default=False, compare=False)


def kind_of(
    encoder: nn.Module, preprocess: nn.Module, options: object, precision: str, device: torch.device | str
) -> Kind:
    """Return what an encoder's features depend on: weights, layers and options, colours, precision, kind of device.

    A frozen encoder is of the same kind as one that learns, as long as the weights are the same; so methods, folds and
    runs share features.

    Args:
        encoder: (m, c, h, w) -> (m, d).
        preprocess: pixels -> what the encoder takes; its buffers are the colours that are normalised by.
        options: of the encoder, plain values; layers alone do not tell all, such as how a library pools.
        precision: such as "32" or "bf16".
        device: where it computes; processors of one kind differ in the last bits at most.
    """
    turns = turns_of(encoder)
    encoder = innermost(encoder) if turns == ONE else bare(encoder)
    about: dict[str, object] = {
        "encoder_sha256": weights_sha256(encoder),
        "preprocess": {name: value.flatten().tolist() for name, value in preprocess.state_dict().items()},
        "options": with_effect(options),
        "precision": precision,
        "device": torch.device(device).type,
    }
    if turns > ONE:
        about["turns"] = turns
    layers = [ADDRESS.sub("", repr(module)) for module in (encoder, preprocess)]
    text = json.dumps([about, layers], sort_keys=True, default=str)
    return Kind(hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest(), about, turns == ALL)


def with_effect(options: object) -> object:
    """Return an encoder's options without those that change nothing of what it says."""
    if isinstance(options, Mapping):
        return {name: value for name, value in options.items() if name not in WITHOUT_EFFECT}
    return options


_KNOWN: WeakKeyDictionary[nn.Module, tuple[object, str]] = WeakKeyDictionary()


def weights_sha256(network: nn.Module) -> str:
    """Return the sha256 (hex) of a network's tensors with their names, computed again where one has changed."""
    state = network.state_dict()
    stamp = tuple((name, value.data_ptr(), _version(value)) for name, value in state.items())
    known = _KNOWN.get(network)
    if known is None or known[0] != stamp:
        known = _KNOWN[network] = (stamp, _sha256(state))
    return known[1]


def _version(value: Tensor) -> int:
    return -1 if value.is_inference() else value._version


def _sha256(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@lru_cache(1024)
def slide_folder(identity: str) -> str:
    """Return the name of a slide's folder, which does not tell what the slide is."""
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]
