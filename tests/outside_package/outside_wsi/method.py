"""A method in a page: a linear look at the overview, the tiles of the cells it likes best, their mean colour."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from wsi_attention.errors import NoTissueError, TileReadError
from wsi_attention.geometry import OVERVIEW_PIXELS, Grid
from wsi_attention.nn import Normalise
from wsi_attention.protocols import TileSource
from wsi_attention.structures import AttentionMap, Glimpse, Output, TileSet

STRIDE = 8
"""Pixels of the overview a cell is wide."""


class Brightest(nn.Module):
    """Reads `tiles` tiles, nothing at random; a feature is a tile's mean colour."""

    overview_pixels, map_stride, encoder = OVERVIEW_PIXELS, 1, None

    def __init__(self, classes: int, tiles: int, tile_size: int, tile_mpp: float, overview_mpp: float) -> None:
        super().__init__()
        self.tiles, self.tile_size, self.tile_mpp, self.overview_mpp = tiles, tile_size, tile_mpp, overview_mpp
        self.preprocess = Normalise((0.0,) * 3, (1.0,) * 3)
        self.attention = nn.Conv2d(3, 1, 1, bias=False)
        self.classifier = nn.Linear(3, classes)

    def forward(self, source: TileSource, generator: Generator | None = None) -> Output:
        """One pass; the generator is not needed."""
        attention, grid = self._attend(source)
        n = min(self.tiles, int((attention > 0).sum(-1).min()))
        cells = attention.topk(n).indices
        tiles = self._tiles(source, grid, cells)
        read = source.read(tiles)
        valid = read.valid.to(attention.device)
        if not bool(valid.any(-1).all()):
            raise TileReadError("not one tile could be read")
        weights = attention.gather(-1, cells) * valid
        weights = weights / weights.sum(-1, keepdim=True)
        colours = self.preprocess(read.pixels.flatten(0, 1)).mean((-2, -1)).unflatten(0, read.valid.shape)
        mean = (weights[..., None] * torch.where(valid[..., None], colours, 0)).sum(1)
        found = [_values(one) for one in (weights, attention.gather(-1, cells), attention)]
        return Output(
            logits=self.classifier(mean),
            glimpses=tuple(self._glimpses(tiles, found[0], found[1], read.valid.cpu().numpy())),
            maps=tuple((_map(values, grid),) for values in found[2]),
            spread=torch.full((len(mean),), torch.nan),
        )

    def loss(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy."""
        return functional.cross_entropy(output.logits.float(), target)

    def _attend(self, source: TileSource) -> tuple[Tensor, Grid]:
        downsample = source.overview_downsample(self.overview_mpp)
        grid = Grid.covering(source.extent, (STRIDE * downsample, STRIDE * downsample))
        view = self.preprocess(source.overview(downsample))
        missing = grid.cols * STRIDE - view.shape[-1], grid.rows * STRIDE - view.shape[-2]
        cells = functional.avg_pool2d(functional.pad(view, (0, missing[0], 0, missing[1]), value=1.0), STRIDE)
        tissue = source.tissue(grid).to(view.device).flatten(1)
        if not bool(tissue.any(-1).all()):
            raise NoTissueError("no cell of tissue")
        logits = self.attention(cells).flatten(1).float().masked_fill(~tissue, -torch.inf)
        return logits.softmax(-1), grid

    def _tiles(self, source: TileSource, grid: Grid, cells: Tensor) -> TileSet:
        size, downsample = (self.tile_size, self.tile_size), source.downsample(self.tile_mpp)
        return source.aligned(TileSet(grid.locations(cells.cpu().numpy(), size, downsample), size, downsample))

    def _glimpses(self, tiles: TileSet, weights: np.ndarray, attention: np.ndarray, valid: np.ndarray):  # type: ignore[no-untyped-def,type-arg]
        for i, locations in enumerate(tiles.locations):
            one = TileSet(locations, tiles.size, tiles.downsample)
            yield (Glimpse(one, weights[i] / weights[i].sum(), attention[i], valid[i], drawn=False),)


def _values(one: Tensor) -> np.ndarray:  # type: ignore[type-arg]
    return one.detach().double().cpu().numpy()


def _map(values: np.ndarray, grid: Grid) -> AttentionMap:  # type: ignore[type-arg]
    return AttentionMap(np.where(values > 0, values, np.nan).astype(np.float32).reshape(grid.shape), grid)


def brightest(
    classes: int, *, tiles: int = 8, tile_size: int = 32, tile_mpp: float = 0.5, overview_mpp: float = 4.0
) -> Brightest:
    """The builder that the entry point names: the number of classes, then keyword arguments that JSON can hold."""
    return Brightest(classes, tiles, tile_size, tile_mpp, overview_mpp)
