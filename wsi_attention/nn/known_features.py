"""An encoder as feature files know it: a name and the length of a feature, without weights."""

from __future__ import annotations

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


def can_read(encoder: nn.Module) -> bool:
    """Return whether an encoder takes pixels."""
    return not isinstance(encoder, KnownFeatures)
