"""The colours of overviews, where they are normalised by others than those that the tile encoder expects."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_attention.errors import InputError
from wsi_attention.nn.attention_nets import OwnColours
from wsi_attention.nn.preprocess import PixelOptions
from wsi_attention.options import option

NAMES = ("overview_mean", "overview_std")


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
