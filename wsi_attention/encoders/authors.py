"""Networks that a package of their authors builds: CONCH and MUSK; the packages are theirs and stay outside."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

from torch import Tensor, nn

from wsi_attention.encoders.entry import Entry
from wsi_attention.encoders.libraries import timm_package
from wsi_attention.encoders.torchvision_guard import FAILURES, without_torchvision
from wsi_attention.errors import InputError, MissingExtraError

INSTEAD = "write its features with the tool of your choice and train on them with --features"


@dataclass(frozen=True)
class Package:
    """How a package is used.

    Attributes:
        build: entry -> its network with fresh weights.
        features: network, tiles (m, c, h, w) -> features (m, d).
    """

    build: Callable[[Entry], nn.Module]
    features: Callable[[nn.Module, Tensor], Tensor]


def network_by_authors(entry: Entry) -> nn.Module:
    """Return the network of an entry, built by the package of its authors, with fresh weights.

    Raises:
        MissingExtraError: the package is not installed, or cannot be loaded.
        InputError: there is no such package, or it cannot be driven from here.
    """
    if entry.extra and find_spec(entry.builder) is None:
        raise MissingExtraError(
            f"encoder {entry.name!r} needs the package {entry.builder} of its authors, which is not installed; install "
            f"it with: pip install {entry.extra}"
        )
    if entry.builder not in PACKAGES:
        raise InputError(
            f"encoder {entry.name!r} is built by code of its authors that cannot be driven from here; {INSTEAD}"
        )
    try:
        with without_torchvision():
            return PACKAGES[entry.builder].build(entry)
    except FAILURES as error:
        raise MissingExtraError(
            f"encoder {entry.name!r}: the package {entry.builder} of its authors cannot build it ({error}); install it "
            f"again with: pip install {entry.extra}"
        ) from error


def _conch(entry: Entry) -> nn.Module:
    """Build CONCH as the package's own factory does, but without a checkpoint, which that insists on."""
    factory = import_module("conch.open_clip_custom.factory")
    numbers = json.loads((Path(factory.CFG_DIR) / f"{entry.architecture}.json").read_text(encoding="utf-8"))
    numbers.pop("custom_text", None)
    network: nn.Module = factory.CoCa(**{**numbers, **entry.arguments})
    return network


def _musk(entry: Entry) -> nn.Module:
    """Build MUSK, which the package adds to timm's models."""
    import_module("musk.modeling")
    network: nn.Module = timm_package().create_model(entry.architecture, **entry.arguments)
    return network


class EncodesImages(Protocol):
    """What is used of CONCH."""

    def encode_image(self, images: Tensor, normalize: bool, proj_contrast: bool) -> Tensor:
        """Return the features of tiles (m, c, h, w): (m, d)."""


def _conch_features(network: nn.Module, tiles: Tensor) -> Tensor:
    return cast(EncodesImages, network).encode_image(tiles, normalize=False, proj_contrast=False)


def _musk_features(network: nn.Module, tiles: Tensor) -> Tensor:
    features: Tensor = network(image=tiles, with_head=False, out_norm=False, ms_aug=False, return_global=True)[0]
    return features


PACKAGES = {"conch": Package(_conch, _conch_features), "musk": Package(_musk, _musk_features)}
"""What is called of which package, as the pages of their authors document it."""
