"""The whole image as a square of a fixed number of pixels, for networks that take nothing else."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

from wsi_attention.geometry import Grid
from wsi_attention.nn.preprocess import background
from wsi_attention.protocols import TileSource


class SquareView(NamedTuple):
    """An image in the middle of a square, the rest background.

    Attributes:
        pixels: (b, c, size, size), as the source gave them.
        origin: (x, y) of the square's top left corner in level-0 pixels; not above 0.
        side: of the square in level-0 pixels.
    """

    pixels: Tensor
    origin: tuple[float, float]
    side: float

    def grid(self, cells: int) -> Grid:
        """The square cut into cells × cells."""
        return Grid(cells, cells, (self.side / cells, self.side / cells), self.origin)


def square_view(source: TileSource, size: int) -> SquareView:
    """Reads the whole image so that its longer side has `size` pixels; a smaller image is not enlarged.

    Args:
        source: b images.
        size: pixels a side.
    """
    downsample = max(1.0, max(source.extent) / size)
    view = source.overview(downsample)[..., :size, :size]
    free = size - view.shape[-1], size - view.shape[-2]
    left, top = free[0] // 2, free[1] // 2
    pixels = functional.pad(view, (left, free[0] - left, top, free[1] - top), value=background(view))
    return SquareView(pixels, (-left * downsample, -top * downsample), size * downsample)
