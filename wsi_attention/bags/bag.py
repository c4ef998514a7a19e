"""A bag: the tiles of one slide as other pipelines keep them, coordinates with or without features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import InputError


@dataclass(frozen=True, eq=False)
class Bag:
    """Square tiles of one slide, and what an encoder saw in them.

    Attributes:
        name: the slide's name, without suffix; of a file that was read, its own name, whatever it says inside.
        locations: (n, 2) int64, (x, y) of each top left corner in level-0 pixels.
        side: of every tile in level-0 pixels.
        pixels: side of a tile as the encoder saw it; None where nobody says.
        extent: (w, h) of the slide in level-0 pixels; None where nobody says.
        mpp: µm per level-0 pixel; None where nobody says.
        features: (n, d) floating point; None for coordinates alone.
        weights: (n,) what each tile counted for in the slide's label; None where unknown.
        encoder: what the features come from; empty where unknown.
        dialect: the layout it was read from; empty where it came from elsewhere.
        downsample: level-0 pixels per pixel of a tile before `side` was rounded; None for side / pixels.
        spacing: µm per pixel of a tile as the file says, in TRIDENT's as a magnification; None where it does not.
        own_pixels: whether places are in pixels as fine as the tiles', because nobody says the slide's µm per pixel.
    """

    name: str
    locations: NDArray[np.int64]
    side: int
    pixels: int | None = None
    extent: tuple[int, int] | None = None
    mpp: float | None = None
    features: NDArray[np.floating] | None = None
    weights: NDArray[np.float64] | None = None
    encoder: str = ""
    dialect: str = ""
    downsample: float | None = None
    spacing: float | None = None
    own_pixels: bool = False

    def __len__(self) -> int:
        return len(self.locations)

    @property
    def boxes(self) -> NDArray[np.int64]:
        """(n, 4) int64: x, y, w, h in level-0 pixels."""
        return np.concatenate([self.locations, np.full_like(self.locations, self.side)], axis=1)

    @property
    def tile_um(self) -> float | None:
        """Side of a tile in µm; None where the slide's mpp is not known."""
        return None if self.mpp is None else self.side * self.mpp

    @property
    def known_mpp(self) -> float:
        """The mpp.

        Raises:
            InputError: nobody says it.
        """
        if self.mpp is None:
            raise InputError(f"{self.name}: µm per level-0 pixel is needed and not known; give it with --mpp")
        return self.mpp

    @property
    def known_extent(self) -> tuple[int, int]:
        """The extent.

        Raises:
            InputError: nobody says it.
        """
        if self.extent is None:
            raise InputError(f"{self.name}: the slide's width and height are needed and not known; give the slide")
        return self.extent


def check_on_slide(bag: Bag, extent: tuple[int, int] | None, source: object) -> None:
    """Check that every tile touches the slide; tiles may hang over its border, as they do in all four pipelines.

    Args:
        bag: the tiles.
        extent: (w, h) of the slide they are meant for, or None to trust what the bag says.
        source: the file, for the error.

    Raises:
        InputError: a tile lies outside, or the bag is of a slide of another size.
    """
    if extent is not None and bag.extent is not None and tuple(extent) != tuple(bag.extent):
        found, wanted = f"{bag.extent[0]}×{bag.extent[1]}", f"{extent[0]}×{extent[1]}"
        raise InputError(
            f"{source}: made for a slide of {found} pixels, this one has {wanted}; give the slide it is of"
        )
    known = extent or bag.extent
    if known is None or not len(bag):
        return
    outside = ((bag.locations + bag.side <= 0) | (bag.locations >= np.array(known))).any(axis=1)
    if outside.any():
        x, y = bag.locations[int(np.argmax(outside))]
        raise InputError(
            f"{source}: {int(outside.sum())} of {len(bag)} tiles lie outside the slide of {known[0]}×{known[1]} pixels,"
            f" the first at ({x}, {y}); is it of another slide, or in pixels of another level?"
        )
