"""A published encoder by its name: the method's options follow from it, and what contradicts it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from wsi_attention.encoders.table import entry_of
from wsi_attention.errors import InputError
from wsi_attention.methods.encoder_facts import entry_in, with_facts
from wsi_attention.methods.method import FunctionMethod, find_method
from wsi_attention.nn.encoders import TileEncoder

NAMES = ("encoder", "tile_size", "tile_mpp", "mean", "std")
READERS = ("ats", "zoom-in", "trt")


@pytest.mark.parametrize("method", READERS)
@pytest.mark.parametrize("name", ["uni2-h", "virchow2", "h-optimus-0", "gigapath"])
def test_tile_size_scale_and_colours_come_from_the_entry(method: str, name: str) -> None:
    entry, options = entry_of(name), find_method(method).complete({"encoder": name})
    assert options["tile_size"] == entry.tile_size and options["tile_mpp"] == 0.5
    assert (options["mean"], options["std"]) == (list(entry.mean), list(entry.std))
    assert isinstance(options["encoder"], dict)
    assert (options["encoder"]["name"], options["encoder"]["frozen"]) == (name, True)


@pytest.mark.parametrize("given", [
    {"encoder": {"name": "uni", "frozen": False}}, {"encoder": "uni", "encoder_frozen": False},
    {"encoder": TileEncoder(name="uni")},
])  # fmt: skip
def test_weights_stay_unless_the_recipe_says_otherwise(given: dict[str, Any]) -> None:
    encoder = find_method("ats").complete(given)["encoder"]
    assert isinstance(encoder, dict) and encoder["frozen"] is False


def test_the_same_field_read_at_the_side_of_the_network_is_as_good() -> None:
    uni = find_method("ats").complete({"encoder": "uni", "tile_size": 224, "tile_mpp": 0.571})
    assert (uni["tile_size"], uni["tile_mpp"]) == (224, 0.571)
    for wrong in ({"tile_size": 256, "tile_mpp": 0.571}, {"tile_size": 224, "tile_mpp": 0.65}):
        with pytest.raises(InputError, match=r"contradicts encoder 'uni', which takes tiles at 0\.5 µm/px"):
            find_method("ats").complete({"encoder": "uni", **wrong})


def test_what_the_recipe_states_and_the_encoder_takes_stays() -> None:
    options = find_method("ats").complete({"encoder": "virchow2", "tile_mpp": 1.02, "mean": [0.4851, 0.456, 0.406]})
    assert options["tile_mpp"] == 1.02 and options["mean"] == [0.4851, 0.456, 0.406]
    assert find_method("ats").complete({"encoder": "uni", "tile_size": 224})["tile_size"] == 224


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tile_mpp": 0.25}, "tile_mpp = 0.25 contradicts encoder 'uni', which takes tiles at 0.5 µm/px; write "
                             "tile_mpp = 0.5, or leave the line out"),
        ({"tile_mpp": 0.53}, "tile_mpp = 0.53 contradicts"),
        ({"tile_size": 512}, "tile_size = 512 contradicts encoder 'uni', which takes tiles of 256 or 224 px; write "
                             "tile_size = 256, or leave the line out"),
        ({"mean": [0.5, 0.5, 0.5]}, r"mean = \[0.5, 0.5, 0.5\] contradicts encoder 'uni', which expects "
                                    r"\[0.485, 0.456, 0.406\]; leave the line out"),
        ({"std": [0.229, 0.224]}, r"std = \[0.229, 0.224\] contradicts"),
    ],
)  # fmt: skip
def test_a_contradiction_is_one_line_with_what_to_write(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        find_method("zoom-in").complete({"encoder": "uni", **given})
    assert "\n" not in str(caught.value)


def test_tnet_calls_the_side_of_a_tile_base() -> None:
    tnet = find_method("tnet")
    assert tnet.complete({"encoder": "lunit-vits16"})["base"] == 224
    with pytest.raises(
        InputError, match=r"^base = 128 contradicts encoder 'lunit-vits16', .*; write base = 224, or leave"
    ):
        tnet.complete({"encoder": "lunit-vits16", "base": 128})
    assert tnet.complete({})["base"] == 128


def test_colours_that_nobody_established_are_asked_for() -> None:
    with pytest.raises(
        InputError, match=r"'tinypath' expects is not established; add mean = .* and std = .* \[model\]"
    ):
        find_method("ats").complete({"encoder": "tinypath"})
    stated = {"mean": [0.5] * 3, "std": [0.5] * 3}
    assert find_method("ats").complete({"encoder": "tinypath", **stated})["mean"] == [0.5] * 3


def test_other_encoders_and_methods_of_others_stay_as_they_are() -> None:
    for options in ({"encoder": "small"}, {"encoder": "timm:resnet50", "tile_size": 99}, {"tile_size": 99}):
        assert with_facts(options, NAMES) == options
        assert entry_in(options) is None

    def theirs(classes: int, encoder: str = "uni", tile_size: int = 999) -> Any:
        return classes, encoder, tile_size

    assert FunctionMethod(theirs)(2) == (2, "uni", 999)


def test_a_method_without_one_of_the_options_gets_only_those_it_has() -> None:
    assert "tile_size" not in with_facts({"encoder": "uni"}, ("encoder", "tile_mpp"))
    assert with_facts({"encoder": "uni", "tile_size": 7}, ("encoder",))["tile_size"] == 7
