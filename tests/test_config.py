"""Recipes: what a file says is what training gets, and a slip is one line naming the right key."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from wsi_attention.config import Optimiser, Recipe, changed, default_recipe, load_recipe, parse_recipe, shipped_recipes
from wsi_attention.errors import InputError


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_overrides_only_what_it_names(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, "epochs = 3\n[model]\ndraws = 8\n[optimiser]\nlearning_rate = 1\n"))
    assert recipe.epochs == 3
    assert recipe.model == {"draws": 8}
    assert recipe.optimiser == Optimiser(learning_rate=1.0)
    assert isinstance(recipe.optimiser.learning_rate, float)
    assert recipe.batch == Recipe().batch


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, "\ufeffepochs = 3\n")).epochs == 3


def test_recipes_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Recipe().epochs = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", r"unknown key 'epoch'; did you mean 'epochs'\?"),
        ("[optimiser]\nlearnrate = 3", r"\[optimiser\]: unknown key 'learnrate'; did you mean 'learning_rate'\?"),
        ("[optimizer]\n", r"did you mean 'optimiser'\?"),
        ("zzz = 3", "valid keys: method, model, start, encoder_start"),
        ('epochs = "3"', "epochs must be a whole number, not '3'"),
        ("epochs = 3.5", "epochs must be a whole number"),
        ("epochs = true", "epochs must be a whole number"),
        ("epochs = 0", "epochs is 0; it must lie between 1 and"),
        ("seed = -1", "seed is -1"),
        ("validation_share = nan", "validation_share is nan"),
        ('precision = "half"', "precision is 'half'; possible: auto, 32, bf16"),
        ("model = 3", "model must be a table"),
        ("optimiser = 3", "optimiser must be a table"),
        ("epochs = ", "cannot be read as TOML"),
    ],
)
def test_slips_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_recipe(written(tmp_path, text))
    assert "recipe.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_lists_what_is_shipped(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"nowhere.toml does not exist; shipped recipes: ats, ats-mnist, ats-mnist-fast, demo-1, "
    ):
        load_recipe(tmp_path / "nowhere.toml")


def test_shipped_recipes_load_and_name_every_method_they_are_for() -> None:
    assert {"ats", "demo-1", "demo-2", "demo-3"} <= set(shipped_recipes())
    assert all(default_recipe(name).method for name in shipped_recipes())
    assert default_recipe("ats").method == "ats"
    assert default_recipe("an-outside-method") == Recipe(method="an-outside-method")


def test_changes_are_checked_and_none_is_no_change() -> None:
    recipe = changed(Recipe(model={"draws": 8}), epochs=2, seed=None)
    assert (recipe.epochs, recipe.seed, recipe.model) == (2, 0, {"draws": 8})
    with pytest.raises(InputError, match="the command line: epochs is 0"):
        changed(recipe, epochs=0)


def test_there_and_back() -> None:
    recipe = default_recipe("ats")
    assert parse_recipe(recipe.as_dict(), "copy") == recipe


def test_snap_is_true_or_false() -> None:
    assert Recipe().snap
    assert not parse_recipe({"snap": False}, "here").snap
    with pytest.raises(InputError, match="here: snap must be true or false, not 0"):
        parse_recipe({"snap": 0}, "here")
