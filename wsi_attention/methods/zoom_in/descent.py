"""Zoom-In's way down: from the overview through ever finer views of ever fewer regions to the features of sub-tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from wsi_attention.attention.sampling import smoothed_softmax
from wsi_attention.errors import NoTissueError
from wsi_attention.methods.overview import look_over
from wsi_attention.methods.rounds import Limits, Rounds
from wsi_attention.methods.zoom_in.estimator import Choice, Stage, at_random, leaf_attention, without_failed_entries
from wsi_attention.methods.zoom_in.views import Inside, Look, Reader, Zoomed, zoom_levels, zoom_unread
from wsi_attention.nn.bags import encode, in_chunks
from wsi_attention.nn.preprocess import in_float32
from wsi_attention.protocols import TileSource
from wsi_attention.structures import TileBatch

MOST_ROUNDS = 256
"""Rounds after which `random_rounds` ends in any case; late ones read little new and settle slowly."""
VIEWS = 32
"""Views that go through a network at once."""


class Networks(NamedTuple):
    """What looks, and at which scales.

    Attributes:
        attentions: a network a step.
        encoder: of the sub-tiles.
        preprocess: pixels to what the networks take.
        view_mpps: µm per pixel of what each of the `attentions` sees.
        tile_size: side of a sub-tile in pixels.
        tile_mpp: µm per pixel of the sub-tiles.
        floor: share of each attention that is spread evenly over the tissue.
    """

    attentions: nn.ModuleList
    encoder: nn.Module
    preprocess: nn.Module
    view_mpps: tuple[float, ...]
    tile_size: int
    tile_mpp: float
    floor: float


class Descent:
    """One source: its overview is seen at once, the rest when `down` asks; nothing is read twice.

    Args:
        source: b images.
        networks: that look at it.
        device: theirs.
        evidence: features of the first level's cells -> scores of them; None for none.

    Attributes:
        reader: with the levels of cells.
        attention: (b, K), α over the cells of the first level.
        scores: (b, classes, rows, cols), what `evidence` says of these cells; None without.

    Raises:
        NoTissueError: an image has no cell of tissue.
    """

    def __init__(
        self, source: TileSource, networks: Networks, device: torch.device, evidence: nn.Module | None = None
    ) -> None:
        self._networks = networks
        strides = [int(network.stride) for network in networks.attentions]  # type: ignore[arg-type]
        levels = zoom_levels(source, strides, networks.view_mpps, device)
        first = levels[0]
        if not bool(first.tissue.any(dim=-1).all()):
            raise NoTissueError(
                f"no tissue in any of the {first.grid.rows} × {first.grid.cols} tiles: there is nothing to look at"
            )
        tissue, seen = first.tissue.reshape(-1, *first.grid.shape), (first.grid, first.downsample)
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
        """Chooses cells, looks into them, chooses cells there, and so on; the last ones are encoded.

        Args:
            choose: what each step takes.
            draws: N of each image.
            attention: (t, K) to begin with; α where None.
            images: (t,) that it belongs to, increasing; all where None.
            turned: what to make of the attention (regions, K) inside regions and of which of their cells there are
                (regions, K); nothing where None.

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
            network = self._encode if last else partial(self._score, depth + 1)
            values, valid = reader.look(depth, found, images, network)
            looks.append(Look(found, images, leaf_attention(stages).detach(), valid))
            stages = without_failed_entries(stages, valid)
            if last:
                break
            images, visits, level = images[valid], stages[-1].visits, reader.levels[depth + 1]
            cells = level.within(found[valid])
            reachable = level.reachable(cells, images)
            attention = smoothed_softmax(values.masked_fill(~reachable, -torch.inf), self._networks.floor)
            attention = turned(attention, reachable) if turned else attention
            insides.append(Inside(cells, images, attention, leaf_attention(stages).detach()))
        return Zoomed(stages, tuple(looks), tuple(insides), values.to(attention.dtype))

    def _score(self, step: int, pixels: Tensor) -> Tensor:
        """(m, K) logits of the cells in views (m, c, h, w)."""
        network, preprocess = self._networks.attentions[step], self._networks.preprocess
        return in_chunks(lambda part: in_float32(network, preprocess(part))[0].flatten(1), pixels, VIEWS)

    def _encode(self, pixels: Tensor) -> Tensor:
        """(m, d) features of sub-tiles (m, c, h, w)."""
        tiles = TileBatch(pixels[None], torch.ones((1, len(pixels)), dtype=torch.bool))
        return encode(tiles, self._networks.preprocess, self._networks.encoder)[0]


def random_rounds(
    descent: Descent, classifier: nn.Module, draws: int, until: Limits, budget: int, generator: Generator
) -> tuple[Sequence[Zoomed], Tensor, Tensor]:
    """Independent passes, averaged, until the limits are met; each knows what earlier ones have read.

    Args:
        descent: of one image.
        classifier: (..., d) -> (..., classes).
        draws: N of each round.
        until: when to stop.
        budget: views and sub-tiles together; a round that might exceed it is not begun. Enough for one.
        generator: of the draws.

    Returns:
        The passes, the mean feature (1, d), and its standard error (1,).
    """
    most, choose = draws * len(descent.reader.levels), at_random(generator)
    rounds, passes = Rounds(), list[Zoomed]()
    while not passes or (len(rounds) < MOST_ROUNDS and descent.reader.tiles_read + most <= budget):
        passes.append(descent.down(choose, draws))
        steps, weights = passes[-1].draws(1)
        chance = (weights > 0) & passes[-1].chance(descent.attention).unsqueeze(-1)
        rounds.add(steps, weights, chance.to(weights.dtype))
        spread = rounds.spread(classifier)
        if until.met(spread, zoom_unread(descent.reader, descent.attention, passes), len(rounds)):
            break
    return passes, rounds.mean, spread
