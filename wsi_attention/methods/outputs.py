"""What every method does with the tensors of a pass: refuse one without evidence, record glimpses and maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wsi_attention.errors import NoTissueError, TileReadError
from wsi_attention.geometry import Grid
from wsi_attention.nn.preprocess import background
from wsi_attention.structures import AttentionMap, Glimpse, TileSet

S = TypeVar("S", bound=np.generic)


def require_tissue(tissue: Tensor, cells: str = "cells") -> None:
    """Raise NoTissueError unless every image has a cell of tissue.

    Args:
        tissue: (b, rows, cols) bool.
        cells: what the error calls them, e.g. "patches".
    """
    if not bool(tissue.flatten(1).any(dim=-1).all()):
        rows, cols = tissue.shape[1:]
        raise NoTissueError(f"no tissue in any of the {rows} × {cols} {cells}: there is nothing to look at")


def require_tiles(valid: Tensor, tiles: str = "tiles") -> None:
    """Raise TileReadError unless at least one of every image's tiles could be read.

    Args:
        valid: (b, n) bool, False where a tile could not be read.
        tiles: what the error calls them, e.g. "regions".
    """
    if not bool(valid.any(dim=-1).all()):
        raise TileReadError(f"none of the {valid.shape[-1]} {tiles} that attention asked for could be read")


def padded(view: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the view (b, c, h, w) as (rows, cols) pixels: cut, or filled with background at the right and below."""
    view = view[..., : size[0], : size[1]]
    missing = (0, size[1] - view.shape[-1], 0, size[0] - view.shape[-2])
    return functional.pad(view, missing, value=background(view)) if any(missing) else view


def glimpses(
    tiles: TileSet,
    coefficients: Tensor,
    attention: Tensor,
    valid: Tensor,
    name: str = "tiles",
    drawn: Tensor | None = None,
) -> tuple[tuple[Glimpse, ...], ...]:
    """Return one glimpse for each of b images; weights are the coefficients scaled to sum 1.

    Args:
        tiles: (b, n) boxes that were read.
        coefficients: (b, n), 0 where a tile failed.
        attention: (b, n) of the cells the tiles were drawn from.
        valid: (b, n) bool.
        name: of the stage.
        drawn: (b,) bool, whether they were drawn at random; None where none of them were.
    """
    random = [False] * len(valid) if drawn is None else drawn.tolist()
    weights = _array(coefficients, np.float64)
    weights = weights / weights.sum(axis=-1, keepdims=True)
    at_cells, real = _array(attention, np.float64), _array(valid, np.bool_)
    return tuple(
        (Glimpse(replace(tiles, locations=tiles.locations[i]), weights[i], at_cells[i], real[i], name, random[i]),)
        for i in range(len(weights))
    )


def maps(
    attention: Tensor, logits: Tensor, grid: Grid, name: str = "attention"
) -> tuple[tuple[AttentionMap, ...], ...]:
    """Return one attention map for each of b images; NaN where the logit is −inf.

    Args:
        attention: (b, K).
        logits: (b, K).
        grid: of K cells.
        name: what the values are.
    """
    values = _array(attention.masked_fill(logits == -torch.inf, torch.nan), np.float32)
    return tuple((AttentionMap(one.reshape(grid.shape), grid, name),) for one in values)


def named_maps(named: Mapping[str, Tensor], tissue: Tensor, grid: Grid) -> tuple[tuple[AttentionMap, ...], ...]:
    """Return several maps for each of b images; NaN outside the tissue.

    Args:
        named: name of the map -> values (b, K).
        tissue: (b, rows, cols) bool.
        grid: of K cells.
    """
    logits = torch.zeros(tissue.shape, device=tissue.device).masked_fill(~tissue, -torch.inf).flatten(1)
    every = [maps(values, logits, grid, name) for name, values in named.items()]
    return tuple(tuple(one for (one,) in image) for image in zip(*every, strict=True))


def _array(values: Tensor, dtype: type[S]) -> NDArray[S]:
    return values.detach().cpu().numpy().astype(dtype)
