"""Encoders as feature files know them: by a name alone, without weights, or by a digest of weights and colours."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from wsi_attention.errors import InputError
from wsi_attention.nn.blocks import Encoder
from wsi_attention.nn.encoders import TileEncoder

PREFIX = "features:"
"""Begins the `encoder.name` of a model that has learnt from feature files and has no encoder of its own."""


class KnownFeatures(Encoder):
    """Stands where the encoder would: the model takes features from files and cannot look at pixels.

    Args:
        name: what the files say of the encoder they come from.
        dim: length of a feature.
    """

    def __init__(self, name: str, dim: int) -> None:
        super().__init__()
        self.name, self.dim = name, dim

    def train(self, mode: bool = True) -> KnownFeatures:
        """Stay in eval mode: there is nothing to learn."""
        return super().train(False)

    def forward(self, tiles: Tensor) -> Tensor:
        """Refuse pixels.

        Raises:
            InputError: always; the text says what to do.
        """
        raise InputError(
            f"this model has learnt from features of {self.name or 'an unnamed encoder'} and has no encoder of its own:"
            " give features of the slide with --features, or train with the encoder's weights (encoder_start)"
        )


def tile_encoder(options: TileEncoder, channels: int) -> Encoder:
    """Return the encoder that the options name, without weights where they name features of files.

    Raises:
        InputError: as `TileEncoder.build`.
        MissingExtraError: as `TileEncoder.build`.
    """
    if options.name.startswith(PREFIX):
        return KnownFeatures(options.name.removeprefix(PREFIX), options.features).train(False)
    return options.build(channels)


def digest_of(encoder: nn.Module, preprocess: nn.Module) -> str:
    """Return the sha256 of an encoder's weights and of the colours it normalises by; empty where it has no weights.

    Names, kinds of numbers and shapes count as well. The same encoder has the same digest in every model.
    """
    weights = encoder.state_dict()
    if not weights:
        return ""
    digest = hashlib.sha256()
    for part in (weights, preprocess.state_dict()):
        for name, value in sorted(part.items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def can_read(encoder: nn.Module) -> bool:
    """Return whether an encoder takes pixels."""
    return not isinstance(encoder, KnownFeatures)
