"""Patches of a coarse view read again at a finer level, one tile each, and encoded as tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wsi_attention.geometry import Grid
from wsi_attention.methods.outputs import glimpses, require_tiles
from wsi_attention.methods.reading import encoded
from wsi_attention.nn.blocks import Encoder
from wsi_attention.protocols import TileSource
from wsi_attention.structures import Glimpse, TileSet

MOST_PLACES = 15
"""The most places for a tile along a patch's side; odd, so that one of them is the middle."""


class Finer(NamedTuple):
    """Tokens of kept patches that were read at a finer level.

    Attributes:
        tokens: (b, k, d); without meaning where not valid.
        valid: (b, k) bool; False for padding and for tiles that could not be read.
        tiles: (b, k) boxes that were requested, padding included.
    """

    tokens: Tensor
    valid: Tensor
    tiles: TileSet


class FinerTokens(nn.Module):
    """Turns one tile of each patch into a token: an encoder, a linear layer and a normalisation.

    The tile lies where the patch has tissue, as near to its centre as possible, then moves to the file's stored tiles
    (`TileSource.aligned`). The normalisation makes the token's channels as large as those of tokens inside a
    transformer: features of encoders here have length 1 and would be lost beside them.

    Args:
        encoder: (m, c, h, w) -> (m, d').
        dim: d, of the tokens.
        tile_size: side of a tile in pixels.
        tile_mpp: µm per pixel of the tiles.
    """

    def __init__(self, encoder: Encoder, dim: int, *, tile_size: int, tile_mpp: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.project = nn.Sequential(nn.Linear(encoder.dim, dim), nn.LayerNorm(dim))
        self.tile_size, self.tile_mpp = tile_size, tile_mpp

    def forward(self, source: TileSource, grid: Grid, cells: Tensor, real: Tensor, preprocess: nn.Module) -> Finer:
        """Read all tiles in one request; padding repeats an image's first tile and is not encoded.

        Args:
            source: b images.
            grid: of the patches.
            cells: (b, k) flat indices of patches.
            real: (b, k) bool, False for padding; the first of each image is real.
            preprocess: pixels -> floats on the model's device.

        Raises:
            TileReadError: not one tile of some image could be read.
        """
        size, downsample = (self.tile_size, self.tile_size), source.downsample(self.tile_mpp)
        wanted = cells.where(real, cells[:, :1]).cpu()
        fine, at = at_tissue(source, grid, wanted, self.tile_size * downsample)
        tiles = source.aligned(TileSet(fine.locations(at.numpy(), size, downsample), size, downsample))
        features, valid = encoded(source, tiles, preprocess, self.encoder, real)
        require_tiles(valid)
        assert features is not None
        return Finer(self.project(features), valid, tiles)


def at_tissue(source: TileSource, grid: Grid, cells: Tensor, side: float) -> tuple[Grid, Tensor]:
    """Return where in each patch a tile shows tissue, as near to its centre as possible.

    A patch may be far wider than a tile.

    Args:
        source: b images.
        grid: of the patches.
        cells: (b, k) flat indices of patches.
        side: of a tile in level-0 pixels.

    Returns:
        A grid whose cells are about as wide as a tile, never narrower, and its cells (b, k) that are to be read.
    """
    most = min(MOST_PLACES, int(min(grid.step) / side + 1e-9))
    n = max(1, most - 1 + most % 2)
    if n == 1:
        return grid, cells
    fine = Grid(grid.rows * n, grid.cols * n, (grid.step[0] / n, grid.step[1] / n), grid.origin)
    parts = source.tissue(fine).cpu().reshape(len(cells), grid.rows, n, grid.cols, n).transpose(2, 3)
    offsets = (torch.arange(n) - n // 2).square()
    near = -(offsets[:, None] + offsets).flatten()
    best = torch.where(parts.reshape(len(cells), -1, n * n), near, near - n * n).argmax(dim=-1).gather(1, cells)
    rows, cols = cells // grid.cols * n + best // n, cells % grid.cols * n + best % n
    return fine, rows * fine.cols + cols


def records(finer: Finer, real: Tensor, weights: Tensor, attention: Tensor) -> tuple[tuple[Glimpse, ...], ...]:
    """Return one glimpse for each image, without the padding.

    Args:
        finer: from `FinerTokens`.
        real: (b, k) bool, padding last.
        weights: (b, k), 0 where not valid.
        attention: (b, k) of the patches.
    """
    whole = glimpses(finer.tiles, weights, attention, finer.valid)
    return tuple((_first(glimpse, count),) for (glimpse,), count in zip(whole, real.sum(-1).tolist(), strict=True))


def _first(glimpse: Glimpse, count: int) -> Glimpse:
    return replace(
        glimpse,
        tiles=glimpse.tiles.select(slice(count)),
        weights=glimpse.weights[:count],
        attention=glimpse.attention[:count],
        valid=glimpse.valid[:count],
    )
