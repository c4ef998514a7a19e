"""The inventory of public names: a name leaves only after a release of DeprecationWarning."""

from __future__ import annotations

import pytest

import wsi_attention
from wsi_attention import registry

NAMES = [
    "AttentionMap",
    "Classifier",
    "Glimpse",
    "Prediction",
    "Slide",
    "SlideSource",
    "TensorSource",
    "TileSet",
    "TissueMask",
    "View",
    "WsiAttentionError",
    "load_model",
    "open_slide",
    "predict",
]


def test_inventory() -> None:
    assert sorted(wsi_attention.__all__) == NAMES
    for name in NAMES:
        assert getattr(wsi_attention, name).__doc__, f"{name} has no docstring"


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = wsi_attention.nonsense


@pytest.mark.parametrize("group", [registry.READERS, registry.MODELS, registry.EXPORTERS])
def test_built_ins_come_through_entry_points(group: str) -> None:
    assert registry.names(group)
    for name in registry.names(group):
        assert callable(registry.load(group, name)), name


def test_unknown_entry_names_what_there_is() -> None:
    from wsi_attention.errors import InputError

    with pytest.raises(InputError, match=r"no reader named 'nope'; installed: .*openslide"):
        registry.load(registry.READERS, "nope")
