"""Overviews in their own colours beside tiles in those of a published encoder."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from wsi_attention.errors import InputError
from wsi_attention.methods.method import build_model
from wsi_attention.nn.attention_nets import TissueAttentionNet
from wsi_attention.nn.overview_colours import OwnColours
from wsi_attention.nn.preprocess import Normalise

PHOTOGRAPHS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TISSUE = (0.70, 0.55, 0.70), (0.07, 0.08, 0.09)
SMALL = {"tile_size": 32, "tile_mpp": 1.0, "attention_widths": (8, 8), "context": 3}
SMALL |= {"encoder_widths": (8, 8), "features": 8, "mean": PHOTOGRAPHS[0], "std": PHOTOGRAPHS[1]}
OWN = {"overview_mean": TISSUE[0], "overview_std": TISSUE[1]}


def test_a_network_sees_what_it_would_see_if_pixels_were_normalised_by_its_own_colours() -> None:
    torch.manual_seed(0)
    network = TissueAttentionNet(3, (8, 8), 3)
    pixels = torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8, generator=Generator().manual_seed(1))
    bare = TissueAttentionNet(3, (8, 8), 3, colours=OwnColours(PHOTOGRAPHS, TISSUE))
    bare.load_state_dict(network.state_dict())
    shown = bare(Normalise(*PHOTOGRAPHS)(pixels))
    wanted = network(Normalise(*TISSUE)(pixels))
    for found, right in zip(shown, wanted, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
    other = network(Normalise(*PHOTOGRAPHS)(pixels))
    assert (other[0] - wanted[0]).abs().max() > 1e-3


@pytest.mark.parametrize("method", ["ats", "grow"])
def test_colours_are_options_and_no_weights(method: str) -> None:
    torch.manual_seed(0)
    model = build_model(method, 2, **SMALL, **OWN)
    ratio = torch.tensor(PHOTOGRAPHS[1]) / torch.tensor(TISSUE[1])
    torch.testing.assert_close(model.attention.colours.scale.flatten(), ratio)
    assert model.state_dict().keys() == build_model(method, 2, **SMALL).state_dict().keys()


def test_every_step_of_zoom_in_sees_them() -> None:
    model = build_model("zoom-in", 2, mean=PHOTOGRAPHS[0], std=PHOTOGRAPHS[1], **OWN)
    assert [isinstance(one.network.colours, OwnColours) for one in model.attentions] == [True, True]


def test_without_them_pixels_stay_as_they_are_and_half_of_them_is_refused() -> None:
    assert build_model("ats", 2, **SMALL).attention.colours is None
    with pytest.raises(InputError, match="overview_std has 0 numbers for 3 channels; give one a channel"):
        build_model("ats", 2, **SMALL, overview_mean=TISSUE[0])
    with pytest.raises(InputError, match="overview_mean has 2 numbers for 3 channels"):
        build_model("ats", 2, **SMALL, overview_mean=(0.5, 0.5), overview_std=TISSUE[1])
