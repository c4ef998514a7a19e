"""Zoom-In's way down: from the overview through ever closer views of ever fewer regions to the features of sub-tiles.

See docs/methods/zoom_in.md §3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from wsi_attention.attention.sampling import smoothed_softmax
from wsi_attention.methods.outputs import require_tissue
from wsi_attention.methods.overview import look_over
from wsi_attention.methods.reading import encoded
from wsi_attention.methods.rounds import ONE_LABEL, Limits, Rounds
from wsi_attention.methods.zoom_in.estimator import Choice, Stage, at_random, leaf_attention, without_failed_entries
from wsi_attention.methods.zoom_in.views import Inside, Look, Reader, Zoomed, zoom_levels, zoom_unread
from wsi_attention.nn.bags import in_chunks
from wsi_attention.nn.blocks import Encoder, OverviewNet
from wsi_attention.nn.preprocess import in_float32
from wsi_attention.protocols import Aim, TileSource
from wsi_attention.structures import TileSet

MOST_ROUNDS = 256
"""Rounds after which `random_rounds` ends in any case; late ones read little that is new and settle slowly."""
VIEWS = 32
"""How many views go through a network at once."""


class Networks(NamedTuple):
    """The networks that look, and the scales they look at.

    Attributes:
        attentions: one for each step.
        encoder: of the sub-tiles.
        preprocess: (m, c, h, w) pixels of any dtype -> what the networks take.
        mpps: µm per pixel of what each of the `attentions` sees.
        tile_size: side of a sub-tile in pixels.
        tile_mpp: µm per pixel of the sub-tiles.
        floor: share of each attention that is spread evenly over the tissue.
    """

    attentions: tuple[OverviewNet, ...]
    encoder: Encoder
    preprocess: nn.Module
    mpps: tuple[float, ...]
    tile_size: int
    tile_mpp: float
    floor: float


class Descent:
    """The descent into one source: the overview is seen at once, the rest when `down` asks; nothing is read twice.

    Args:
        source: b images.
        networks: the networks that look at it.
        device: where the networks are.
        evidence: features of the first level's cells -> scores of them; None for none.

    Attributes:
        reader: reads regions and knows the levels.
        attention: (b, K), α over the cells of the first level.
        scores: (b, classes, rows, cols), what `evidence` says of these cells; None without `evidence`.

    Raises:
        NoTissueError: an image has no cell of tissue.
    """

    def __init__(
        self, source: TileSource, networks: Networks, device: torch.device, evidence: nn.Module | None = None
    ) -> None:
        self._networks = networks
        strides = [network.stride for network in networks.attentions]
        levels = zoom_levels(source, strides, networks.mpps, device)
        first = levels[0]
        tissue, seen = first.tissue.reshape(-1, *first.grid.shape), (first.grid, first.downsample)
        require_tissue(tissue, "regions")
        logits, self.scores = look_over(source, networks.attentions[0], networks.preprocess, seen, tissue, evidence)
        masked = logits.flatten(1).masked_fill(~first.tissue, -torch.inf)
        self.attention = smoothed_softmax(masked, networks.floor)
        self.reader = Reader(source, levels, (networks.tile_size, source.downsample(networks.tile_mpp)))

    def down(
        self,
        choose: Choice,
        draws: int,
        attention: Tensor | None = None,
        images: Tensor | None = None,
        turned: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Zoomed:
        """Choose cells, look into them, choose cells there, and so on; encode the last ones.

        Args:
            choose: which cells each step takes.
            draws: N, the draws of each image.
            attention: (t, K), of the first step; α where None.
            images: (t,) int64, increasing, the images that its rows belong to; all images where None.
            turned: (attention (regions, K) inside regions, which of the cells may be drawn (regions, K)) -> the
                attention to draw by; the attention itself where None.

        Raises:
            TileReadError: not one view or sub-tile of some image could be read.
        """
        reader, attention = self.reader, self.attention if attention is None else attention
        images = torch.arange(reader.batch, device=attention.device) if images is None else images
        cells = torch.arange(attention.shape[-1], device=attention.device).expand_as(attention)
        visits, stages = torch.full_like(images, draws), tuple[Stage, ...]()
        looks, insides = list[Look](), list[Inside]()
        for depth in range(len(reader.levels)):
            last = depth + 1 == len(reader.levels)
            stages = (*stages, choose(attention, visits, last))
            drawn = stages[-1].drawn
            found, images = cells.gather(-1, stages[-1].cells)[drawn], images.unsqueeze(-1).expand(drawn.shape)[drawn]
            see = self._encode if last else partial(self._score, depth + 1)
            values, valid = reader.look(depth, found, images, see)
            looks.append(Look(found, images, leaf_attention(stages).detach(), valid))
            stages = without_failed_entries(stages, valid)
            if last:
                break
            images, visits, level = images[valid], stages[-1].visits, reader.levels[depth + 1]
            cells = level.within(found[valid])
            reachable = level.reachable(cells, images)
            attention = self._attention(values, reachable)
            attention = turned(attention, reachable) if turned else attention
            insides.append(Inside(cells, images, attention, leaf_attention(stages).detach()))
        return Zoomed(stages, tuple(looks), tuple(insides), values.to(attention.dtype))

    def opened(self, depth: int, cells: Tensor) -> list[tuple[Tensor, Tensor] | None]:
        """Look into regions of a single image; return the cells in each and their attention, both (K,).

        Attention is 0 where a cell cannot be drawn; None stands for a region that could not be read.

        Args:
            depth: index of the level of the regions.
            cells: (n,) flat.
        """
        images, level = torch.zeros_like(cells), self.reader.levels[depth + 1]
        inside = level.within(cells)
        reachable = level.reachable(inside, images)
        seen = self.reader.values(depth, cells, images, partial(self._score, depth + 1))
        return [
            None if one is None else (inside[i], self._attention(one[None], reachable[i][None])[0])
            for i, one in enumerate(seen)
        ]

    def features(self, cells: Tensor) -> list[Tensor | None]:
        """Return the features (d,) of sub-tiles of a single image, None where one could not be read; cells (n,)."""
        return self.reader.values(len(self.reader.levels) - 1, cells, torch.zeros_like(cells), self._encode)

    def _attention(self, logits: Tensor, reachable: Tensor) -> Tensor:
        return smoothed_softmax(logits.masked_fill(~reachable, -torch.inf), self._networks.floor)

    def _score(self, step: int, source: TileSource, tiles: TileSet, real: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the logits (m, K) of the cells in views; see `views.See`."""
        batch = source.read(tiles)
        valid = batch.valid & real.to(batch.valid.device)
        if not bool(valid.any()):
            return None, valid
        network, preprocess = self._networks.attentions[step], self._networks.preprocess
        pixels = batch.pixels[valid.to(batch.pixels.device)]
        return in_chunks(lambda part: in_float32(network, preprocess(part))[0].flatten(1), pixels, VIEWS), valid

    def _encode(self, source: TileSource, tiles: TileSet, real: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the features (m, d) of sub-tiles; see `views.See`."""
        features, valid = encoded(source, tiles, self._networks.preprocess, self._networks.encoder, real)
        return (None if features is None else features[valid.to(features.device)]), valid


def random_rounds(
    descent: Descent,
    classifier: nn.Module,
    draws: int,
    until: Limits,
    budget: int,
    generator: Generator,
    target: Aim = ONE_LABEL,
) -> tuple[Sequence[Zoomed], Tensor, Tensor]:
    """Average independent passes until the limits are met; nothing that an earlier pass has read is read again.

    Args:
        descent: into one image.
        classifier: (..., d) -> (..., classes).
        draws: N, the draws of each round.
        until: when to stop.
        budget: views and sub-tiles together; a round that might exceed it is not begun. Must allow one round.
        generator: of the draws.
        target: what the logits mean.

    Returns:
        The passes, the mean feature (1, d), and the standard error (1,) of the winning class's probability.
    """
    most, choose = draws * len(descent.reader.levels), at_random(generator)
    rounds, passes = Rounds(target), list[Zoomed]()
    while not passes or (len(rounds) < MOST_ROUNDS and descent.reader.tiles_read + most <= budget):
        passes.append(descent.down(choose, draws))
        steps, weights = passes[-1].draws(1)
        chance = (weights > 0) & passes[-1].chance(descent.attention).unsqueeze(-1)
        rounds.add(steps, weights, chance.to(weights.dtype))
        spread = rounds.spread(classifier)
        if until.met(spread, zoom_unread(descent.reader, descent.attention, passes), len(rounds)):
            break
    return passes, rounds.mean, spread
