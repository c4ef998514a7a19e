"""The tiles of a slide that were read so far, in the order of reading; none is read twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from wsi_attention.methods.outputs import require_tiles
from wsi_attention.methods.rounds import PART
from wsi_attention.structures import TileSet

Encoded = tuple[Tensor | None, Tensor]


class TileBag:
    """Cells (b, n) whose tiles were read, and the tiles' features.

    Args:
        tiles_of: flat cells (b, n) -> their tiles.
        encode: tiles (b, n) -> features (b, n, d), None where no tile could be read, and which could, (b, n) bool.
        part: tiles whose pixels are in memory at once.
    """

    def __init__(
        self, tiles_of: Callable[[Tensor], TileSet], encode: Callable[[TileSet], Encoded], part: int = PART
    ) -> None:
        self._tiles_of, self._encode, self._part = tiles_of, encode, part
        self._cells: list[Tensor] = []
        self._tiles: list[TileSet] = []
        self._features: list[Tensor | None] = []
        self._valid: list[Tensor] = []

    def read(self, cells: Tensor) -> None:
        """Read the tiles of cells (b, n) that were not read before."""
        for some in cells.split(self._part, dim=1) if cells.shape[1] else ():
            tiles = self._tiles_of(some)
            features, valid = self._encode(tiles)
            self._cells.append(some)
            self._tiles.append(tiles)
            self._features.append(features)
            self._valid.append(valid)

    def __len__(self) -> int:
        return sum(one.shape[1] for one in self._cells)

    @property
    def cells(self) -> Tensor:
        """(b, n) flat indices."""
        return torch.cat(self._cells, dim=1)

    @property
    def tiles(self) -> TileSet:
        """The n tiles of each image."""
        return replace(self._tiles[0], locations=np.concatenate([one.locations for one in self._tiles], axis=1))

    def found(self) -> tuple[Tensor, Tensor]:
        """Return the features (b, n, d), zeros where a tile failed, and which are valid (b, n).

        Raises:
            TileReadError: not one of the tiles could be read for some image.
        """
        valid = torch.cat([one.cpu() for one in self._valid], dim=1)
        require_tiles(valid)
        known = next(one for one in self._features if one is not None)
        parts = [
            known.new_zeros(*real.shape, known.shape[-1]) if one is None else one
            for one, real in zip(self._features, self._valid, strict=True)
        ]
        return torch.cat(parts, dim=1), valid.to(known.device)

    def left(self, attention: Tensor) -> Tensor:
        """Return attention (b, K) with 0 where a tile was read."""
        return attention if not self._cells else attention.scatter(1, self.cells, 0.0)

    def unread(self, cells: Tensor) -> Tensor:
        """Return those of the cells (1, n) that were not read yet, each once, in their order; of a single image."""
        seen: set[int] = set() if not self._cells else set(self.cells[0].tolist())
        left = [cell for cell in dict.fromkeys(cells[0].tolist()) if cell not in seen]
        return torch.tensor([left], dtype=torch.int64, device=cells.device)
