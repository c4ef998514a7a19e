"""Fill an encoder with weights that others published, under the names that the network or its library gives them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from wsi_attention.encoders.encoder_weights import fill_encoder
from wsi_attention.errors import InputError
from wsi_attention.nn.encoders import innermost
from wsi_attention.nn.timm_encoder import TimmEncoder


def fill(encoder: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Copy weights into an encoder; names and shapes that timm itself translates are translated by timm.

    Args:
        encoder: of `TileEncoder.build`, frozen or not.
        weights: as they were published, or as this package wrote them.
        where: their file, for the error.

    Raises:
        InputError: they do not fit; the text names what is missing, unexpected or of another shape.
    """
    try:
        fill_encoder(encoder, weights, where)
    except InputError as misfit:
        network = innermost(encoder)
        if not isinstance(network, TimmEncoder):
            raise
        try:
            translated = network.translated(weights)
        except InputError:
            raise misfit from None
        fill_encoder(encoder, translated, where)
