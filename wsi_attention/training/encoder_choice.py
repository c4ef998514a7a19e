"""What a published encoder means for a whole recipe: where its weights come from, in which precision it computes."""

from __future__ import annotations

from collections.abc import Mapping

from wsi_attention.config import Recipe, changed
from wsi_attention.encoders.entry import Entry
from wsi_attention.encoders.local_files import is_folder
from wsi_attention.errors import InputError
from wsi_attention.methods.encoder_facts import ENCODER, entry_in, name_in
from wsi_attention.methods.method import Method, find_method
from wsi_attention.training.start import PRETRAINED

EXACT = "32"


def with_encoder(recipe: Recipe, name: str | None) -> Recipe:
    """Return the recipe with another tile encoder; its other options of the encoder stay. None changes nothing."""
    if name is None:
        return recipe
    given = recipe.model.get(ENCODER)
    told: object = {**given, "name": name} if isinstance(given, Mapping) else name
    return changed(recipe, model={**recipe.model, ENCODER: told})


def settled(recipe: Recipe) -> Recipe:
    """Return the recipe with what its published encoder decides where it says nothing.

    Its published weights are where training starts unless `encoder_start` or `start` names others, and the precision
    is the one with which it is used. A recipe with any other encoder, or a method that knows none, stays as it is.

    Raises:
        InputError: the recipe contradicts what is known of the encoder; the text says which line to change.
    """
    folder = folder_of_recipe(recipe)
    entry = entry_of_recipe(recipe)
    if entry is None:
        return _from_folder(recipe, folder) if folder else recipe
    if recipe.statistics == "tissue":
        raise InputError(
            f'statistics = "tissue" contradicts encoder {entry.name!r}, which expects the colours that it was trained '
            "with; leave the line out"
        )
    if entry.precision == EXACT and recipe.precision == "bf16":
        raise InputError(
            f'precision = "bf16" contradicts encoder {entry.name!r}, which is used in float32; write precision = "32"'
        )
    start = recipe.encoder_start or ("" if recipe.start else folder or PRETRAINED)
    precision = EXACT if entry.precision == EXACT else recipe.precision
    return changed(recipe, encoder_start=start, precision=precision)


def _from_folder(recipe: Recipe, folder: str) -> Recipe:
    """Return the recipe of a network of timm in a folder, which starts from the weights and colours beside it."""
    stated = {"mean", "std"} & set(recipe.model) or recipe.statistics != "builder" or recipe.start
    start = recipe.encoder_start or ("" if recipe.start else folder)
    return changed(recipe, encoder_start=start, statistics=recipe.statistics if stated else "encoder")


def folder_of_recipe(recipe: Recipe) -> str:
    """Return the path of the folder that a recipe names as its encoder, "" where it names none."""
    name = name_in(recipe.model)
    return name if is_folder(name) else ""


def entry_of_recipe(recipe: Recipe) -> Entry | None:
    """Return the published encoder of a recipe, None where it has another, or its method knows none."""
    method = find_method(recipe.method)
    return entry_in(recipe.model) if isinstance(method, Method) and method.has_encoder else None
