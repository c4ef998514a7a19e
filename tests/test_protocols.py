"""What a model must have before the rest of the package uses it."""

from __future__ import annotations

import pytest
from torch import nn

from wsi_attention.errors import ModelError
from wsi_attention.geometry import OVERVIEW_PIXELS
from wsi_attention.methods.method import build_model
from wsi_attention.protocols import ATTRIBUTES, AttentionModel, contract_of


def test_a_model_that_lacks_attributes_is_refused_with_their_names() -> None:
    model = nn.Linear(1, 1)
    model.tile_mpp, model.encoder = 0.5, nn.Identity()
    with pytest.raises(ModelError, match=r"class Linear lacks overview_mpp, overview_pixels, map_stride, preprocess;"):
        contract_of(model)


def test_every_declared_attribute_is_asked_for() -> None:
    assert set(ATTRIBUTES) == {
        name for name in vars(AttentionModel) if isinstance(vars(AttentionModel)[name], property)
    }


@pytest.mark.parametrize(
    ("method", "stride", "encodes"), [("oaa", 8, False), ("oaa-plus", 8, False), ("tnet", 1, True), ("ats", 1, True)]
)
def test_what_methods_say_of_themselves(method: str, stride: int, encodes: bool) -> None:
    model = contract_of(build_model(method, 2))
    assert (model.map_stride, model.encoder is not None) == (stride, encodes)
    assert model.overview_pixels == OVERVIEW_PIXELS
