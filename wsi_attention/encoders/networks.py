"""Published networks with fresh weights, by their entries: what their authors build, and the feature they take."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from types import MappingProxyType
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from wsi_attention.encoders.authors import INSTEAD, PACKAGES, network_by_authors
from wsi_attention.encoders.efficientnet_lite import EfficientNetLite0
from wsi_attention.encoders.entry import Entry
from wsi_attention.encoders.hub_files import CONFIG, hub_file
from wsi_attention.encoders.libraries import check_arguments, timm_package, transformers_class
from wsi_attention.encoders.table import entry_of
from wsi_attention.encoders.torchvision_guard import FAILURES, without_torchvision
from wsi_attention.errors import InputError
from wsi_attention.json_values import JsonObject, parse

CLASSES = ("timm.layers.SwiGLUPacked", "timm.layers.SwiGLU", "torch.nn.SiLU", "torch.nn.GELU", "torch.nn.LayerNorm")
"""Python classes that an entry's arguments may name; nothing else is looked up."""
TRANSFORMERS = {"ViTModel": "ViTConfig", "Dinov2Model": "Dinov2Config"}
"""Networks of transformers that are built here -> the class of their options."""
NOT_OPTIONS = ("architectures", "auto_map", "model_type", "torch_dtype", "dtype", "transformers_version")
OWN_KEYS = ("architecture", "dim", "input")
"""Keys in the JSON behind a name that change the entry; all others are arguments of the network."""
OWN = "wsi-attention"
"""The builder of networks that this package brings; they take tiles of any size."""
NETWORKS = {"efficientnet_lite0": EfficientNetLite0}
TRUSTED = "WSI_ATTENTION_TRUSTED"
"""Environment variable with the repositories whose Python code may be run."""
HEADS = ("", "visual_head")


def asked(name: str) -> Entry:
    """Return the entry of a name, completed by its repository's config.json where it must be; see `stated`.

    Raises:
        InputError: no such encoder, no JSON, or config.json cannot be had.
    """
    entry = stated(name)
    return completed(entry) if entry.config else entry


def stated(name: str) -> Entry:
    """Return the entry of a name, changed by the arguments that may follow it as JSON.

    Args:
        name: "uni2-h", or 'h0-mini {"architecture": "…", "depth": 12}' where config.json is not to be read again.

    Raises:
        InputError: no such encoder, or no JSON.
    """
    plain, _, text = name.strip().partition(" ")
    try:
        given = parse(text or "{}")
    except ValueError as error:
        raise InputError(f"encoder {name!r}: what follows the name must be JSON: {error}") from error
    if not isinstance(given, dict):
        raise InputError(f'encoder {name!r}: what follows the name must be like {{"depth": 12}}')
    return changed(entry_of(plain), given)


def changed(entry: Entry, given: Mapping[str, object]) -> Entry:
    """Return an entry with other arguments of its network, and with other values of `OWN_KEYS`."""
    values: JsonObject = {key: value for key, value in given.items() if key in OWN_KEYS}
    config = entry.config and "architecture" not in values
    arguments = {**entry.arguments, **{key: value for key, value in given.items() if key not in OWN_KEYS}}
    return replace(entry, **values, config=config, arguments=MappingProxyType(arguments))


def text_of(entry: Entry, known: Entry) -> str:
    """Return the name that builds an entry again without the hub.

    Args:
        entry: what was built.
        known: what the table says.
    """
    if entry == known:
        return entry.name
    more = {key: value for key, value in entry.arguments.items() if known.arguments.get(key) != value}
    more |= {key: getattr(entry, key) for key in OWN_KEYS if getattr(entry, key) != getattr(known, key)}
    if known.config:
        more["architecture"] = entry.architecture
    return f"{entry.name} {json.dumps(more, sort_keys=True)}"


def completed(entry: Entry, config: JsonObject | None = None) -> Entry:
    """Return an entry with architecture and arguments of its repository's config.json; its own ones come first.

    Args:
        entry: what the table says.
        config: what config.json says; it is read in the hub's cache, or downloaded, where None.

    Raises:
        InputError: config.json cannot be had, or says no architecture.
        MissingExtraError: the hub's package is not installed.
    """
    where = f"{entry.repository}@{entry.revision}" if entry.revision else entry.repository
    config = _config(where) if config is None else config
    if entry.builder == "timm":
        architecture, said = config.get("architecture"), config.get("model_args")
        told = dict(said) if isinstance(said, Mapping) else {}
        extra = {key: config[key] for key in ("global_pool",) if isinstance(config.get(key), str)}
        told = {**extra, **told}
    else:
        (architecture,) = config.get("architectures") or [entry.architecture]
        told = {key: value for key, value in config.items() if key not in NOT_OPTIONS and not key.startswith("_")}
    if not isinstance(architecture, str):
        raise InputError(f"config.json of hub:{where} names no architecture, so {entry.name} cannot be built")
    arguments = MappingProxyType({**told, **entry.arguments})
    return replace(entry, architecture=entry.architecture or architecture, arguments=arguments, config=False)


def _config(repository: str) -> JsonObject:
    try:
        found = parse(hub_file(repository, CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{CONFIG} of hub:{repository} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{CONFIG} of hub:{repository} is no JSON object")
    return found


def network_of(entry: Entry, channels: int = 3) -> nn.Module:
    """Return the network of an entry, with fresh weights; its tensors have the published names.

    Raises:
        InputError: it cannot be built here, or not with these arguments.
        MissingExtraError: a package is not installed.
    """
    if entry.remote_code:
        return _remote_network(entry)
    builders = {"timm": _timm_network, "transformers": _transformers_network, OWN: _own_network}
    if entry.builder not in builders:
        return network_by_authors(entry)
    network = builders[entry.builder](entry, channels)
    return WithHead(network, entry) if entry.head else network


def features_of(network: nn.Module, tiles: Tensor, entry: Entry) -> Tensor:
    """Return the features (m, d) that an encoder's authors take of tiles (m, c, h, w), of any length."""
    if entry.builder in PACKAGES:
        return PACKAGES[entry.builder].features(network, tiles)
    if entry.head or entry.pooling in ("own", "pooler"):
        out: Tensor = network(tiles) if entry.pooling != "pooler" else network(pixel_values=tiles).pooler_output
        return out
    prefix = entry.prefix_tokens if entry.prefix_tokens is not None else getattr(network, "num_prefix_tokens", None)
    return _pooled(_tokens(network, tiles), entry, prefix)


class HasWidth(Protocol):
    """What is used of a timm network behind which a head stands."""

    num_features: int


class FromRepository(Protocol):
    """What is used of AutoConfig and AutoModel of transformers."""

    def from_pretrained(self, repository: str, **told: object) -> object:
        """Return what a repository describes."""

    def from_config(self, config: object, **told: object) -> nn.Module:
        """Return a network with fresh weights."""


class WithHead(nn.Module):
    """A network and the two layers behind it, under the names that KEEP has: `visual`, `visual_head`.

    Args:
        network: (m, c, h, w) -> tokens.
        entry: says how tokens are pooled, and the length of a feature.
    """

    def __init__(self, network: nn.Module, entry: Entry) -> None:
        super().__init__()
        if entry.head not in HEADS or entry.dim is None:
            raise InputError(f"encoder {entry.name!r}: no head {entry.head!r} is known here")
        width = cast(HasWidth, network).num_features
        self.visual, self.entry = network, replace(entry, head="")
        self.visual_head = nn.Sequential(nn.Linear(width, entry.dim), nn.GELU(), nn.Linear(entry.dim, entry.dim))

    def forward(self, tiles: Tensor) -> Tensor:
        """Map (m, c, h, w) to (m, dim)."""
        features: Tensor = self.visual_head(features_of(self.visual, tiles, self.entry))
        return features


def _tokens(network: nn.Module, tiles: Tensor) -> Tensor:
    """Return the normalised tokens of the last layer (m, n, d)."""
    inside = getattr(network, "forward_features", None)
    tokens: Tensor = network(pixel_values=tiles).last_hidden_state if inside is None else inside(tiles)
    return tokens


def _pooled(tokens: Tensor, entry: Entry, prefix: int | None) -> Tensor:
    if entry.pooling == "cls":
        return tokens[:, 0]
    if prefix is None:
        raise InputError(f"encoder {entry.name!r}: how many tokens come before the patches is not established")
    mean = tokens[:, prefix:].mean(dim=1)
    return mean if entry.pooling == "mean" else torch.cat([tokens[:, 0], mean], dim=-1)


def _timm_network(entry: Entry, channels: int) -> nn.Module:
    timm = timm_package()
    check_arguments(entry.name, entry.architecture, entry.arguments)
    given = {key: _value(entry, value) for key, value in entry.arguments.items()}
    given |= {"num_classes": 0, "in_chans": channels}
    try:
        network: nn.Module = timm.create_model(entry.architecture, **given)
    except (TypeError, RuntimeError, ValueError, AssertionError) as error:
        raise InputError(f"encoder {entry.name!r}: timm {timm.__version__} cannot build it: {error}") from error
    return network


def _transformers_network(entry: Entry, channels: int) -> nn.Module:
    if entry.architecture not in TRANSFORMERS:
        known = ", ".join(TRANSFORMERS)
        raise InputError(
            f"encoder {entry.name!r}: {entry.architecture!r} of transformers is not built here, only {known}"
        )
    options, kind = (transformers_class(name) for name in (TRANSFORMERS[entry.architecture], entry.architecture))
    pooling = {"add_pooling_layer": False} if entry.architecture == "ViTModel" else {}
    try:
        network: nn.Module = kind(options(**{**entry.arguments, "num_channels": channels}), **pooling)
    except (TypeError, RuntimeError, ValueError) as error:
        raise InputError(f"encoder {entry.name!r}: transformers cannot build it: {error}") from error
    return network


def _own_network(entry: Entry, channels: int) -> nn.Module:
    if entry.architecture not in NETWORKS:
        raise InputError(f"encoder {entry.name!r}: no network {entry.architecture!r} here; {', '.join(NETWORKS)}")
    arguments: JsonObject = dict(entry.arguments)
    try:
        return NETWORKS[entry.architecture](channels, **arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"encoder {entry.name!r} cannot be built: {error}") from error


def _remote_network(entry: Entry) -> nn.Module:
    """Return a network that code in the repository builds, where the user asked for that.

    Only the environment says so, never a recipe or a model folder, which may come from somebody else.
    """
    if entry.repository not in re.split(r"[\s,]+", os.environ.get(TRUSTED, "")):
        raise InputError(
            f"encoder {entry.name!r} is built by Python code in its repository, which may do anything; where you trust "
            f"it, set the environment variable {TRUSTED}={entry.repository}, else {INSTEAD}"
        )
    options, kind = (cast(FromRepository, transformers_class(name)) for name in ("AutoConfig", "AutoModel"))
    told = {"trust_remote_code": True, **({"revision": entry.revision} if entry.revision else {})}
    try:
        with without_torchvision():
            config = options.from_pretrained(entry.repository, **told)
            network = kind.from_config(config, trust_remote_code=True)
    except (*FAILURES, ValueError, TypeError) as error:
        raise InputError(f"encoder {entry.name!r}: the code of {entry.repository} cannot be run: {error}") from error
    return network


def _value(entry: Entry, value: object) -> object:
    """Return an argument; the full name of a class in `CLASSES` as that class."""
    if not isinstance(value, str) or "." not in value:
        return value
    if value not in CLASSES:
        possible = ", ".join(CLASSES)
        raise InputError(f"encoder {entry.name!r}: {value!r} is none of the classes that may be named: {possible}")
    module, _, name = value.rpartition(".")
    return getattr(timm_package().layers if module == "timm.layers" else import_module(module), name)
