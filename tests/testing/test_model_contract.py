"""The contract of models finds what it is there to find."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wsi_attention.methods.ats import ats
from wsi_attention.structures import Output
from wsi_attention.testing.models import ModelContract

SMALL = {"tile_size": 16, "tile_mpp": 1.0, "overview_mpp": 8.0, "draws": 4}
WIDTHS = {"encoder_widths": (8, 8), "features": 8, "attention_widths": (8, 8)}


class Leaky(ModelContract):
    """A model with a parameter whose gradient is zero, and with half of a protocol."""

    unreached: tuple[str, ...] = ()
    numbers = 2

    def build(self) -> nn.Module:
        model = ats(self.classes, **SMALL, **WIDTHS)  # type: ignore[arg-type]
        model.unused = nn.Parameter(torch.ones(self.numbers))
        plain = model.loss

        def loss(output: Output, target: torch.Tensor) -> torch.Tensor:
            return plain(output, target) + 0.0 * model.unused.sum()

        model.loss = loss  # type: ignore[method-assign]
        return model


def test_a_gradient_of_zeros_is_no_gradient() -> None:
    with pytest.raises(AssertionError, match="the loss does not reach unused"):
        Leaky().test_loss_reaches_every_parameter()


def test_a_single_number_only_has_to_take_part() -> None:
    single = Leaky()
    single.numbers = 1
    single.test_loss_reaches_every_parameter()


def test_what_is_excused_must_need_it() -> None:
    excused = Leaky()
    excused.unreached = ("unus*",)
    excused.test_loss_reaches_every_parameter()
    excused.unreached = ("unus*", "attention.*")
    with pytest.raises(AssertionError, match="reached after all, or no such parameter"):
        excused.test_loss_reaches_every_parameter()
