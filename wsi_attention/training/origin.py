"""Where the encoder's weights of a training come from, and whether training may change them."""

from __future__ import annotations

from collections.abc import Mapping

from wsi_attention.checkpoint import model_folder, read_config
from wsi_attention.config import Recipe
from wsi_attention.encoders.encoder_weights import read_origin
from wsi_attention.encoders.origin import Origin
from wsi_attention.encoders.published import origin_of_path, published
from wsi_attention.methods.method import encoder_options, find_method
from wsi_attention.model_encoder import KEY, EncoderPart, check_permitted, named_encoder
from wsi_attention.training.start import PRETRAINED, start_file


def encoder_origin(recipe: Recipe) -> Origin:
    """Return where the encoder's weights come from; nothing for fresh ones and for those that nobody published.

    Args:
        recipe: settled, so that it says where a published encoder's weights come from.

    Raises:
        InputError: training would change weights whose licence forbids giving on changed ones.
        ModelError: there is no such model to start from.
    """
    named = published(named_encoder(_options(recipe)))
    origin = _of_start(recipe.encoder_start or recipe.start, named)
    check_permitted(origin, is_frozen(recipe))
    return origin


def is_frozen(recipe: Recipe) -> bool:
    """Return whether training leaves the encoder as it is."""
    encoder = encoder_options(recipe.method, recipe.model)
    return isinstance(encoder, Mapping) and bool(encoder.get("frozen"))


def _of_start(start: str, named: Origin) -> Origin:
    if start in ("", PRETRAINED):
        return named if start else Origin()
    if file := start_file(start):
        return read_origin(file) or origin_of_path(file) or named
    part = EncoderPart.of(read_config(model_folder(start)).get(KEY))
    return part.origin if part else Origin()


def _options(recipe: Recipe) -> Mapping[str, object]:
    return find_method(recipe.method).complete(recipe.model)
