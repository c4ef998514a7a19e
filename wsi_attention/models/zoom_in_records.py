"""What Zoom-In leaves behind: the regions and tiles it read as glimpses, attention as maps, and single draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from wsi_attention.attention.nested import Stage, leaf_images, leaf_steps, leaf_weights
from wsi_attention.attention.regularizers import negative_entropy
from wsi_attention.attention.sampling import available
from wsi_attention.models.zoom_in_reading import Reader, by_image
from wsi_attention.nn.heads import tile_evidence
from wsi_attention.structures import AttentionMap, Glimpse


class Look(NamedTuple):
    """What one zoom step asked for.

    Attributes:
        cells: (n,) flat, image after image, in the order of the draws.
        images: (n,).
        attention: (n,) product of attention on the way down, α_c and α_c·β^c_c'.
        valid: (n,) bool; False where it could not be read.
    """

    cells: Tensor
    images: Tensor
    attention: Tensor
    valid: Tensor


class Inside(NamedTuple):
    """Attention inside the regions of one step: where and how much.

    Attributes:
        cells: (t, K) flat, of the step's level.
        images: (t,).
        attention: (t, K), β; 0 where a cell cannot be drawn.
        shares: (t,) product of attention down to the region.
    """

    cells: Tensor
    images: Tensor
    attention: Tensor
    shares: Tensor


class Zoomed(NamedTuple):
    """One pass down all steps.

    Attributes:
        stages: one a step, without what could not be read.
        looks: one a step.
        insides: one a step but the first.
        features: (leaves, d) of the tiles that could be read.
    """

    stages: tuple[Stage, ...]
    looks: tuple[Look, ...]
    insides: tuple[Inside, ...]
    features: Tensor

    def draws(self, batch: int) -> tuple[Tensor, Tensor]:
        """What each draw estimates (b, n, d) and its weight (b, n), 0 where an image had fewer (`leaf_steps`)."""
        images = leaf_images(self.stages)
        steps, weights = leaf_steps(self.features, self.stages)
        return by_image(steps, images, batch)[0], by_image(weights.detach(), images, batch)[0]

    def chance(self, attention: Tensor) -> Tensor:
        """(b,) bool: whether another draw could have come; not where each step had a single cell to take.

        Args:
            attention: (b, K), α.
        """
        several = available(attention) > 1
        for inside in self.insides:
            more = (available(inside.attention) > 1).long()
            several = several | (torch.zeros_like(several, dtype=torch.int64).index_add(0, inside.images, more) > 0)
        return several


def summed_entropy(attention: Tensor, zoomed: Zoomed) -> Tensor:
    """Minus the entropy of α and of every β^c that was looked at, summed over an image's, a mean over images (§5).

    Args:
        attention: (b, K), α.
        zoomed: with all b images.
    """
    total = negative_entropy(attention)
    for inside in zoomed.insides:
        total = total + negative_entropy(inside.attention) * (len(inside.images) / len(attention))
    return total


def zoom_glimpses(reader: Reader, rounds: Sequence[Zoomed], drawn: Tensor) -> tuple[tuple[Glimpse, ...], ...]:
    """A glimpse a step for each image, each region once; over several rounds weights are their mean.

    Args:
        reader: with the levels.
        rounds: passes over the same images.
        drawn: (b,) bool, whether regions were drawn at random by their attention.
    """
    random = drawn.tolist()
    names = ["views" if depth == 1 else f"views-{depth}" for depth in range(1, len(reader.levels))] + ["tiles"]
    weights = [[_weights(one, depth) for one in rounds] for depth in range(len(names))]
    return tuple(
        tuple(
            replace(
                _glimpse(reader, depth, name, image, [one.looks[depth] for one in rounds], weights[depth]),
                drawn=random[image],
            )
            for depth, name in enumerate(names)
        )
        for image in range(reader.batch)
    )


def _glimpse(
    reader: Reader, depth: int, name: str, image: int, looks: Sequence[Look], weights: Sequence[Tensor]
) -> Glimpse:
    mine = [look.images == image for look in looks]
    cells = torch.cat([look.cells[own] for look, own in zip(looks, mine, strict=True)]).cpu().numpy()
    counted = torch.cat([weight[own] for weight, own in zip(weights, mine, strict=True)]).cpu().double().numpy()
    attention = torch.cat([look.attention[own] for look, own in zip(looks, mine, strict=True)]).cpu().double().numpy()
    valid = torch.cat([look.valid[own] for look, own in zip(looks, mine, strict=True)]).cpu().numpy()
    _, first, member = np.unique(cells, return_index=True, return_inverse=True)
    order = np.argsort(first)
    total = np.bincount(member, counted, minlength=len(first))[order]
    first = first[order]
    tiles = reader.tiles(depth, torch.from_numpy(cells[first])[None])
    return Glimpse(tiles, total / total.sum(), attention[first], valid[first], name)


def _weights(zoomed: Zoomed, depth: int) -> Tensor:
    """(n,) what each region of a step counts in its image's estimate; 0 where it could not be read."""
    look = zoomed.looks[depth]
    known = leaf_weights(zoomed.stages[: depth + 1]).detach()
    return torch.zeros_like(look.attention).masked_scatter(look.valid, known.to(look.attention.dtype))


def evidence_terms(classifier: nn.Module, batch: int, passes: Sequence[Zoomed]) -> dict[str, Tensor]:
    """The term `tile_evidence` of a single pass over a single image, for training to accumulate; else nothing."""
    if batch > 1 or len(passes) > 1:
        return {}
    return {"tile_evidence": drawn_evidence(passes[0], tile_evidence(classifier, passes[0].features))}


def drawn_evidence(zoomed: Zoomed, evidence: Tensor) -> Tensor:
    """The evidence of the tiles that one image's pass drew, each tile once as in its last glimpse.

    Args:
        zoomed: a pass over one image.
        evidence: (leaves, classes) of the tiles that could be read.

    Returns:
        (1, n, classes); 0 for a tile that could not be read.
    """
    look = zoomed.looks[-1]
    every = evidence.new_zeros(len(look.valid), evidence.shape[-1])
    every[look.valid] = evidence
    first = np.sort(np.unique(look.cells.cpu().numpy(), return_index=True)[1])
    return every[torch.from_numpy(first).to(every.device)].unsqueeze(0)


def zoom_unread(reader: Reader, attention: Tensor, rounds: Sequence[Zoomed]) -> Tensor:
    """(b,) float64 in [0, 1]: 1 − Σ α_c·β^c_c' over the different sub-tiles that were read in any round.

    Counted from the other side, which is exact where all is read: α of regions that were not looked into, and the
    product of attention of cells passed over inside those that were; what could not be read counts as passed over.

    Args:
        reader: with the levels.
        attention: (b, K), α.
        rounds: passes over the same images.
    """
    shares = _shares(reader, attention.masked_fill(~reader.levels[0].tissue, torch.nan), rounds)
    left = torch.zeros(len(attention), dtype=torch.float64, device=attention.device)
    for depth, share in enumerate(shares):
        for look in (one.looks[depth] for one in rounds):
            share[look.images[look.valid], look.cells[look.valid]] = torch.nan
        left += share.double().nansum(dim=-1)
    return left.clamp(0.0, 1.0)


def zoom_maps(reader: Reader, attention: Tensor, rounds: Sequence[Zoomed]) -> tuple[tuple[AttentionMap, ...], ...]:
    """Maps of each image: "attention", α over the tissue, then for each further step α_c·β^c_c' where it looked.

    The last step's map is "zoom", those before it "zoom-1" and so on; NaN outside the regions that were visited.

    Args:
        reader: with the levels.
        attention: (b, K), α.
        rounds: passes over the same images; the maps show what any of them visited.
    """
    names = [f"zoom-{depth}" for depth in range(1, len(reader.levels) - 1)] + ["zoom"]
    values = _shares(reader, attention.masked_fill(~reader.levels[0].tissue, torch.nan), rounds)
    grids = [level.grid for level in reader.levels]
    return tuple(
        tuple(
            AttentionMap(one[image].cpu().numpy().astype(np.float32).reshape(grid.shape), grid, name)
            for one, grid, name in zip(values, grids, ["attention", *names], strict=False)
        )
        for image in range(reader.batch)
    )


def _shares(reader: Reader, attention: Tensor, rounds: Sequence[Zoomed]) -> list[Tensor]:
    """The product of attention of every cell (b, cells) of each level, NaN where no round looked."""
    values = [attention.detach().clone()]
    for depth, level in enumerate(reader.levels[1:]):
        found = torch.full(level.tissue.shape, torch.nan, dtype=attention.dtype, device=attention.device)
        for zoomed in rounds:
            inside = zoomed.insides[depth]
            known = inside.attention > 0
            images = inside.images.unsqueeze(-1).expand_as(inside.cells)
            product = (inside.shares.unsqueeze(-1) * inside.attention).detach()
            found[images[known], inside.cells[known]] = product[known].to(found.dtype)
        values.append(found)
    return values
