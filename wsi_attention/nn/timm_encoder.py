"""Any encoder of timm by name, as a tile encoder: "timm:resnet50", "hub:owner/model"; an extra, imported on use.

timm: Wightman, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from wsi_attention.errors import InputError, MissingExtraError
from wsi_attention.json_values import parse
from wsi_attention.nn.blocks import Encoder, UnitNorm
from wsi_attention.nn.encoder_weights import EncoderWeights
from wsi_attention.nn.hub_files import EXTRA, WEIGHTS, hub_config, hub_weights
from wsi_attention.nn.transparent import hide_wrapper

PREFIX = "timm:"
HUB_PREFIXES = ("hub:", "hf-hub:", "hf_hub:")
ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True, "dynamic_img_pad": True}, {})
"""Arguments that make a network take tiles of any size, for those that know them; the best first."""


@dataclass(frozen=True)
class TimmName:
    """What to build.

    Attributes:
        architecture: timm's name, maybe with the tag of its weights.
        arguments: of the network's constructor.
        published: what the hub says of its weights; empty where timm itself knows.
        repository: of the hub; empty where timm itself knows.
    """

    architecture: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, Any] = field(default_factory=dict)
    repository: str = ""

    @property
    def text(self) -> str:
        """A name that builds the same network and needs no hub."""
        more = f" {json.dumps(dict(self.arguments), sort_keys=True)}" if self.arguments else ""
        return f"{PREFIX}{self.architecture}{more}"


class TimmEncoder(Encoder):
    """A network of timm without its classifier; features as its own pooling gives them, of length 1.

    A vision transformer takes tiles of any size: position embeddings are interpolated, and a side that is no multiple
    of the patch is padded with the mean colour.

    Args:
        network: with `num_features` and `pretrained_cfg`, giving (m, d).
        name: how it was asked for.
        channels: of the tiles.

    Attributes:
        name: builds the same network anywhere, without the hub.
        mean: of each channel, of 1, that its published weights were trained with; empty where unknown.
        std: likewise.
        dim: d.
        classifiers: modules of published weights that an encoder has not.
    """

    def __init__(self, network: nn.Module, name: TimmName, channels: int = 3) -> None:
        super().__init__()
        known: dict[str, Any] = dict(network.pretrained_cfg)  # type: ignore[arg-type]
        heads = known.get("classifier") or ()
        self.network, self.unit = network, UnitNorm()
        self.dim = int(getattr(network, "head_hidden_size", None) or network.num_features)  # type: ignore[arg-type]
        self.classifiers = (heads,) if isinstance(heads, str) else tuple(heads)
        self.mean, self.std = (tuple(map(float, known.get(key) or ())) for key in ("mean", "std"))
        self.name, self._asked = name.text, name
        self.channels = channels
        hide_wrapper(self)

    def forward(self, tiles: Tensor) -> Tensor:
        """(m, c, h, w) -> (m, d), rows of length 1.

        Raises:
            InputError: the network takes tiles of one size only, and these are of another.
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
        """The weights that its authors publish, downloaded once; only safetensors are read.

        Raises:
            InputError: none are published so, or they cannot be had or do not fit.
            MissingExtraError: the hub's package is not installed.
        """
        known: dict[str, Any] = dict(self.network.pretrained_cfg)  # type: ignore[arg-type]
        repository = self._asked.repository or str(known.get("hf_hub_id") or "")
        if not repository:
            raise InputError(f"no weights are published for {self.name}; give a .safetensors file as encoder_start")
        tensors = hub_weights(repository, str(known.get("hf_hub_filename") or WEIGHTS))
        with torch.random.fork_rng(devices=[]):
            network = _network(self._asked, self.channels, tensors)
        return EncoderWeights(dict(network.state_dict()), self.mean, self.std)


def timm_encoder(name: str, channels: int = 3) -> TimmEncoder:
    """A fresh encoder by its name; nothing but a hub model's config.json is downloaded.

    Args:
        name: "timm:NAME", "timm:hf-hub:OWNER/MODEL" or "hub:OWNER/MODEL"; the first maybe with constructor arguments
            as JSON, e.g. 'timm:swin_tiny_patch4_window7_224 {"img_size": 256}'.
        channels: of the tiles.

    Raises:
        InputError: no such encoder; the nearest names are given.
        MissingExtraError: timm is not installed, or cannot be loaded.
    """
    asked = _parse(name)
    return TimmEncoder(_network(asked, channels), asked, channels)


def is_timm(name: str) -> bool:
    """Whether a name is one of timm's or the hub's."""
    return name.startswith((PREFIX, *HUB_PREFIXES))


def timm_state() -> str:
    """Whether timm's encoders can be had here, and why not."""
    try:
        return f"timm {_timm().__version__} works"
    except MissingExtraError as error:
        return str(error)


def _parse(name: str) -> TimmName:
    rest = name.removeprefix(PREFIX)
    for prefix in HUB_PREFIXES:
        if rest.startswith(prefix):
            repository = rest.removeprefix(prefix)
            config = hub_config(repository)
            arguments = config.get("model_args") or {}
            return TimmName(config["architecture"], arguments, config["pretrained_cfg"], repository)
    architecture, _, text = rest.partition(" ")
    try:
        arguments = parse(text or "{}")
    except ValueError as error:
        raise InputError(f"encoder {name!r}: what follows the name must be JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise InputError(f'encoder {name!r}: what follows the name must be like {{"img_size": 256}}')
    return TimmName(architecture, arguments)


def _network(asked: TimmName, channels: int, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
    timm = _timm()
    if not timm.is_model(asked.architecture.partition(".")[0]):
        raise InputError(f"timm has no encoder {asked.architecture!r}; {_nearest(timm, asked.architecture)}")
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


def _nearest(timm: Any, name: str) -> str:
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else "timm.list_models() names what there is"


def _timm() -> Any:
    if find_spec("timm") is None:
        raise MissingExtraError(f"encoders of timm and the hub need the package timm; {EXTRA}")
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        raise MissingExtraError(
            f"timm is installed but cannot be loaded ({error}); it needs a torchvision of the same build as torch: "
            "install both from the same index, as on https://pytorch.org"
        ) from error
    return timm
