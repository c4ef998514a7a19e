"""Encoders of timm by name, as tile encoders: "timm:resnet50", "hub:owner/model"; an extra, imported on use.

timm: Wightman, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from wsi_attention.encoders.encoder_weights import EncoderWeights
from wsi_attention.encoders.hub_files import hub_config, hub_weights
from wsi_attention.encoders.libraries import check_arguments, timm_package
from wsi_attention.encoders.places import WEIGHTS
from wsi_attention.encoders.torchvision_guard import torchvision_problem
from wsi_attention.errors import InputError, MissingExtraError
from wsi_attention.json_values import parse
from wsi_attention.nn.blocks import Encoder, UnitNorm
from wsi_attention.nn.transparent import hide_wrapper

PREFIX = "timm:"
HUB_PREFIXES = ("hub:", "hf-hub:", "hf_hub:")
ANY_SIZE: tuple[dict[str, object], ...] = ({"dynamic_img_size": True, "dynamic_img_pad": True}, {})
"""Arguments with which a network takes tiles of any size, if it knows them; tried in this order."""


class TimmNetwork(Protocol):
    """What is used of a timm network beside its being a module."""

    pretrained_cfg: Mapping[str, object]
    num_features: int


@dataclass(frozen=True)
class TimmName:
    """What to build.

    Attributes:
        architecture: timm's name, with or without the tag of its weights.
        arguments: arguments of the network's constructor.
        published: the hub's description of its weights; empty for weights that timm knows.
        repository: its repository on the hub; empty for a network that timm knows.
    """

    architecture: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    published: Mapping[str, object] = field(default_factory=dict)
    repository: str = ""

    @property
    def text(self) -> str:
        """The name that builds the same network without the hub."""
        more = f" {json.dumps(dict(self.arguments), sort_keys=True)}" if self.arguments else ""
        return f"{PREFIX}{self.architecture}{more}"


class TimmEncoder(Encoder):
    """A network of timm without its classifier: features from its own pooling, scaled to length 1.

    A vision transformer takes tiles of any size: position embeddings are interpolated, and a side that is no multiple
    of the patch is padded with the mean colour.

    Args:
        network: a `TimmNetwork`, (m, c, h, w) -> (m, d).
        name: how it was asked for.
        channels: channels of the tiles.

    Attributes:
        name: builds the same network anywhere, without the hub.
        mean: per-channel mean in [0, 1] with which its published weights were trained; empty where unknown.
        std: per-channel standard deviation, likewise.
        dim: d.
        classifiers: names of modules that published weights hold and the encoder does not have.
    """

    def __init__(self, network: nn.Module, name: TimmName, channels: int = 3) -> None:
        super().__init__()
        told = cast(TimmNetwork, network)
        heads = told.pretrained_cfg.get("classifier") or ()
        self.network, self.unit = network, UnitNorm()
        self.dim = int(getattr(network, "head_hidden_size", None) or told.num_features)
        self.classifiers = (heads,) if isinstance(heads, str) else tuple(map(str, _sequence(heads)))
        self.mean, self.std = (
            tuple(float(str(value)) for value in _sequence(told.pretrained_cfg.get(key))) for key in ("mean", "std")
        )
        self.name, self._asked = name.text, name
        self.channels = channels
        hide_wrapper(self)

    def forward(self, tiles: Tensor) -> Tensor:
        """Return the features (m, d) of tiles (m, c, h, w), rows of length 1.

        Raises:
            InputError: the network takes tiles of one size only, and these have another.
        """
        try:
            features: Tensor = self.unit(self.network(tiles))
        except AssertionError as error:
            height, width = tiles.shape[-2:]
            raise InputError(
                f"encoder {self.name} does not take tiles of {width} x {height} px ({error}); choose another "
                f"tile_size, or name the size as in 'timm:NAME {{\"img_size\": {width}}}'"
            ) from error
        return features

    def published_weights(self) -> EncoderWeights:
        """Return the weights that its authors publish, downloaded once; only safetensors are read.

        Raises:
            InputError: none are published as safetensors, or they cannot be downloaded or do not fit.
            MissingExtraError: the hub's package is not installed.
        """
        known = cast(TimmNetwork, self.network).pretrained_cfg
        repository = self._asked.repository or str(known.get("hf_hub_id") or "")
        if not repository:
            raise InputError(f"no weights are published for {self.name}; give a .safetensors file as encoder_start")
        tensors = hub_weights(repository, str(known.get("hf_hub_filename") or WEIGHTS))
        return EncoderWeights(self.translated(tensors), self.mean, self.std)

    def translated(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return published weights under the names and in the shapes of the network, as timm itself turns them.

        Raises:
            InputError: they do not fit.
        """
        with torch.random.fork_rng(devices=[]):
            network = _network(self._asked, self.channels, tensors)
        return dict(network.state_dict())


def timm_encoder(name: str, channels: int = 3) -> TimmEncoder:
    """Return a fresh encoder by its name; of a hub model, config.json is downloaded and nothing else.

    Args:
        name: "timm:NAME", "timm:hf-hub:OWNER/MODEL" or "hub:OWNER/MODEL"; the first one may be followed by constructor
            arguments as JSON, e.g. 'timm:swin_tiny_patch4_window7_224 {"img_size": 256}'.
        channels: channels of the tiles.

    Raises:
        InputError: there is no such encoder; the text names the nearest ones.
        MissingExtraError: timm is not installed, or cannot be loaded.
    """
    asked = _parse(name)
    return TimmEncoder(_network(asked, channels), asked, channels)


def is_timm(name: str) -> bool:
    """Return whether a name is one of timm's or the hub's."""
    return name.startswith((PREFIX, *HUB_PREFIXES))


def timm_state() -> str:
    """Return a sentence on whether timm's encoders work here, or why not."""
    try:
        version = timm_package().__version__
    except MissingExtraError as error:
        return str(error)
    problem = torchvision_problem()
    without = f", without torchvision, which cannot be imported ({problem})" if problem else ""
    return f"timm {version} works{without}"


def _parse(name: str) -> TimmName:
    rest = name.removeprefix(PREFIX)
    for prefix in HUB_PREFIXES:
        if rest.startswith(prefix):
            repository = rest.removeprefix(prefix)
            config = hub_config(repository)
            arguments, published = config.get("model_args") or {}, config["pretrained_cfg"]
            return TimmName(str(config["architecture"]), _table(arguments), _table(published), repository)
    architecture, _, text = rest.partition(" ")
    try:
        arguments = parse(text or "{}")
    except ValueError as error:
        raise InputError(f"encoder {name!r}: what follows the name must be JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise InputError(f'encoder {name!r}: what follows the name must be like {{"img_size": 256}}')
    return TimmName(architecture, arguments)


def _network(asked: TimmName, channels: int, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
    timm = timm_package()
    if not timm.is_model(asked.architecture.partition(".")[0]):
        raise InputError(f"timm has no encoder {asked.architecture!r}; {_nearest(timm, asked.architecture)}")
    check_arguments(asked.text, asked.architecture, asked.arguments)
    given = {**asked.arguments, "num_classes": 0, "in_chans": channels}
    if asked.published:
        given["pretrained_cfg"] = dict(asked.published)
    if weights is not None:
        given |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": dict(weights), "source": ""}}
    for more in ANY_SIZE:
        try:
            network: nn.Module = timm.create_model(asked.architecture, **{**more, **given})
            return network
        except TypeError as error:
            problem: Exception = error
        except (RuntimeError, ValueError, AssertionError) as error:
            problem = error
            break
    raise InputError(f"timm cannot build {asked.text.removeprefix(PREFIX)}: {problem}")


def _nearest(timm: ModuleType, name: str) -> str:
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else "timm.list_models() names what there is"


def _sequence(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []


def _table(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, Mapping) else {}
