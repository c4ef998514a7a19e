"""Sources and canvases that the tests of several methods share."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from wsi_attention.geometry import Grid
from wsi_attention.structures import TileBatch, TileSet
from wsi_attention.tiles.tensors import TensorSource


class AskedSource(TensorSource):
    """Keep what was asked for."""

    def __init__(self, images: Tensor, tissue: Tensor | None = None) -> None:
        super().__init__(images, tissue)
        self.asked: list[TileSet] = []

    def read(self, tiles: TileSet) -> TileBatch:
        self.asked.append(tiles)
        return super().read(tiles)


class EmptySource(TensorSource):
    """One image without tissue."""

    def tissue(self, grid: Grid) -> Tensor:
        return torch.zeros(1, *grid.shape, dtype=torch.bool)


def blobs(n: int, side: int, blob: int, generator: Generator, checked: bool = False) -> tuple[Tensor, Tensor]:
    """Return noise (n, 3, side, side) with a bright square on every second image, and the classes (n,).

    Args:
        n: images.
        side: pixels along a side.
        blob: pixels along a side of the square; with `checked` a multiple of 4.
        generator: of noise and places.
        checked: whether the square is made of checks of 4 px, brighter by 0.2 or 0.4; else it is brighter by 0.3.
    """
    images, target = torch.rand(n, 3, side, side, generator=generator) * 0.2 + 0.4, torch.arange(n) % 2
    for i in range(1, n, 2):
        x, y = torch.randint(0, side - blob, (2,), generator=generator).tolist()
        more = torch.full((1, blob, blob), 0.3)
        if checked:
            checks = (torch.rand(1, blob // 4, blob // 4, generator=generator) > 0.5).float()
            more = 0.2 + 0.2 * checks.repeat_interleave(4, 1).repeat_interleave(4, 2)
        images[i, :, y : y + blob, x : x + blob] += more
    return images, target
