"""The colours of overviews, where they are normalised by others than those that the tile encoder expects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wsi_attention.errors import InputError
from wsi_attention.nn.preprocess import PixelOptions
from wsi_attention.options import option

Colours = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of each channel."""
NAMES = ("overview_mean", "overview_std")


class OwnColours(nn.Module):
    """Brings pixels from the colours that the tile encoder expects to those of the overview; nothing in it is learnt.

    A published encoder is given the colours that it was trained with, those of photographs for most; tissue then lies
    far from 0 and differs little, and a small network that starts from nothing learns late to see it.

    Args:
        given: mean and deviation of each channel by which pixels come normalised.
        own: those of the overview's tissue.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, given: Colours, own: Colours) -> None:
        super().__init__()
        mean, std, own_mean, own_std = (torch.tensor(one).view(-1, 1, 1) for one in (*given, *own))
        self.register_buffer("scale", std / own_std, persistent=False)
        self.register_buffer("shift", (mean - own_mean) / own_std, persistent=False)

    def forward(self, view: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same pixels in other colours."""
        return view * self.scale + self.shift


@dataclass(frozen=True, kw_only=True)
class OverviewPixelOptions(PixelOptions):
    """How pixels become what networks take, for a method with a published tile encoder beside a network of its own."""

    overview_mean: tuple[float, ...] = option(
        (),
        "mean of each channel of the overview's tissue, between 0 and 1; empty: `mean`. Training takes it from its "
        'slides where statistics = "encoder"',
        low=-10,
        high=10,
    )
    overview_std: tuple[float, ...] = option(
        (), "standard deviation of each channel of the overview's tissue; empty: `std`", low=1e-6, high=1e6
    )

    def colours(self) -> OwnColours | None:
        """Return what brings pixels to the overview's own colours; None where they are those of the tiles.

        Raises:
            InputError: not one number a channel, or one of the two options alone.
        """
        own = self.overview_mean, self.overview_std
        if not any(own):
            return None
        for name, given in zip(NAMES, own, strict=True):
            if len(given) != self.channels:
                raise InputError(f"{name} has {len(given)} numbers for {self.channels} channels; give one a channel")
        return OwnColours((self.mean, self.std), own)
