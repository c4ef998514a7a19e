"""What a published encoder decides of a recipe: start, precision, and which lines contradict it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from wsi_attention.config import Recipe, parse_recipe
from wsi_attention.errors import InputError
from wsi_attention.training.encoder_choice import settled, with_encoder


def recipe(**given: object) -> Recipe:
    return parse_recipe({"method": "ats", "model": {"encoder": "phikon"}, **given}, "recipe")


def test_published_weights_and_float32_are_where_nothing_is_said() -> None:
    found = settled(recipe())
    assert (found.encoder_start, found.precision) == ("pretrained", "32")
    assert settled(recipe(encoder_start="mine.safetensors")).encoder_start == "mine.safetensors"
    assert settled(recipe(start="demo")).encoder_start == ""
    assert settled(recipe(model={"encoder": "uni2-h"})).precision == "auto"
    assert settled(recipe(model={"encoder": "uni2-h"}, precision="bf16")).precision == "bf16"


@pytest.mark.parametrize("model", [{}, {"encoder": "small"}, {"encoder": "timm:resnet50"}])
def test_other_recipes_stay_as_they_are(model: Mapping[str, object]) -> None:
    assert settled(recipe(model=model)) == recipe(model=model)
    assert settled(Recipe(method="oaa")) == Recipe(method="oaa")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"precision": "bf16"}, 'precision = "bf16" contradicts encoder .phikon., .* write precision = "32"'),
        ({"statistics": "tissue"}, 'statistics = "tissue" contradicts encoder .phikon., .*; leave the line out'),
    ],
)
def test_a_contradiction_names_the_line(given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        settled(recipe(**given))


def test_another_encoder_by_name_keeps_the_rest_of_its_table() -> None:
    assert with_encoder(recipe(), None) == recipe()
    assert with_encoder(recipe(), "uni").model == {"encoder": "uni"}
    table = recipe(model={"encoder": {"name": "small", "frozen": False}, "draws": 3})
    assert with_encoder(table, "uni").model == {"encoder": {"name": "uni", "frozen": False}, "draws": 3}
