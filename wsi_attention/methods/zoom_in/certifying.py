"""Zoom-In's sub-tiles as the population of a certificate: regions stay closed until a sub-tile of theirs is wanted.

A sub-tile's attention is α_c·β^c_j, and β^c is known only once its region has been viewed. docs/certificate.md says why
draws through closed regions are draws from all sub-tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_attention.certificate.bounds import Floats, Head
from wsi_attention.methods.zoom_in.descent import Descent
from wsi_attention.methods.zoom_in.views import Inside, Look, Zoomed
from wsi_attention.structures import Glimpse

Numbers = NDArray[np.int64]


class Place(NamedTuple):
    """A region or sub-tile: the index of its level, its flat cell there, and its share of the attention."""

    depth: int
    cell: int
    share: float


class Regions:
    """All sub-tiles of one image as a `Population`.

    Args:
        descent: into the image.
        head: the classifier.
    """

    def __init__(self, descent: Descent, head: Head) -> None:
        self._descent, self._head = descent, head
        alpha = descent.attention[0].detach().double().cpu()
        cells = alpha.nonzero().flatten()
        total = float(alpha.sum())
        self._places = [Place(0, int(cell), float(alpha[cell]) / total) for cell in cells]
        self._last = len(descent.reader.levels) - 1
        self._insides: list[list[tuple[Place, Tensor, Tensor]]] = [[] for _ in range(self._last)]
        self._views: list[list[tuple[Place, bool]]] = [[] for _ in range(self._last)]
        self._features: dict[int, Tensor] = {}

    def known(self) -> tuple[Floats, bool]:
        """Return α of the regions with tissue."""
        return np.array([place.share for place in self._places]), self._last > 0

    def opened(self, regions: Numbers) -> list[tuple[Floats, bool] | None]:
        """View regions, each level's in one request; return α_c·β^c of what is in each."""
        found: dict[int, tuple[Tensor, Tensor] | None] = {}
        for depth in sorted({self._places[number].depth for number in regions.tolist()}):
            mine = [number for number in regions.tolist() if self._places[number].depth == depth]
            found |= dict(zip(mine, self._descent.opened(depth, self._cells(mine)), strict=True))
        return [self._inside(number, found[number]) for number in regions.tolist()]

    def _inside(self, region: int, seen: tuple[Tensor, Tensor] | None) -> tuple[Floats, bool] | None:
        """Number what is in a region that was viewed."""
        place = self._places[region]
        self._views[place.depth].append((place, seen is not None))
        if seen is None:
            return None
        cells, beta = seen
        self._insides[place.depth].append((place, cells, beta))
        reachable = beta > 0
        shares = beta[reachable].double().cpu().numpy()
        shares = place.share * shares / shares.sum()
        inside = zip(cells[reachable].tolist(), shares.tolist(), strict=True)
        self._places += [Place(place.depth + 1, cell, share) for cell, share in inside]
        return shares, place.depth + 1 < self._last

    def read(self, tiles: Numbers) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the logits of each sub-tile by itself, and which could be read."""
        scores = np.zeros((len(tiles), len(self._head.bias)))
        numbers = tiles.tolist()
        for i, feature in enumerate(self._descent.features(self._cells(numbers))):
            if feature is not None:
                self._features[numbers[i]] = feature
                scores[i] = self._head.scores(feature.double().cpu().numpy()[None])[0]
        return scores, np.array([number in self._features for number in numbers], np.bool_)

    def tiles_among(self, numbers: Numbers) -> NDArray[np.bool_]:
        """Return which of the numbers stand for sub-tiles, and not for regions that could not be viewed."""
        return np.array([self._places[number].depth == self._last for number in numbers.tolist()], np.bool_)

    def features(self, tiles: Numbers) -> Tensor:
        """Return those of sub-tiles that were asked for, (1, n, d), zeros where one failed; one at least was read."""
        like = next(iter(self._features.values()))
        return torch.stack([self._features.get(number, torch.zeros_like(like)) for number in tiles.tolist()])[None]

    def zoomed(self, tiles: Numbers) -> Zoomed:
        """Return what was viewed, and the sub-tiles in the order of reading, for maps and unread mass; no stages."""
        looks = [_look([place for place, _ in seen], [good for _, good in seen], self._device) for seen in self._views]
        leaves = [self._places[number] for number in tiles.tolist()]
        looks.append(_look(leaves, [number in self._features for number in tiles.tolist()], self._device))
        return Zoomed((), tuple(looks), tuple(map(self._seen_inside, self._insides)), self.features(tiles)[0])

    def glimpses(self, tiles: Numbers, weights: Sequence[float]) -> tuple[Glimpse, ...]:
        """Return a glimpse for each level; a region weighs as much as the sub-tiles in it that were read.

        Args:
            tiles: the sub-tiles in the order of reading.
            weights: of each, sum 1; 0 where one failed.
        """
        reader, found = self._descent.reader, []
        looks = self.zoomed(tiles).looks
        shares = torch.tensor(list(weights), dtype=torch.float64)
        for depth in range(self._last, -1, -1):
            look, name = looks[depth], self._name(depth)
            boxes, attention = reader.tiles(depth, look.cells[None]), look.attention.double().cpu().numpy()
            found.append(Glimpse(boxes, shares.numpy(), attention, look.valid.cpu().numpy(), name))
            if depth:
                shares = self._summed(look.cells, shares, looks[depth - 1].cells, depth)
        return tuple(reversed(found))

    def _summed(self, cells: Tensor, weights: Tensor, regions: Tensor, depth: int) -> Tensor:
        """Return the sum of the weights of cells (n,) of a level inside each region (m,) of the level before, (m,)."""
        inside = self._descent.reader.levels[depth].within(regions)
        index = {cell: i for i, row in enumerate(inside.tolist()) for cell in row}
        parents = torch.tensor([index[cell] for cell in cells.tolist()], dtype=torch.int64)
        return torch.zeros(len(regions), dtype=torch.float64).index_add_(0, parents, weights)

    def _name(self, depth: int) -> str:
        """Return what the glimpses of the other looks are called too."""
        return "tiles" if depth == self._last else "views" if depth == 0 else f"views-{depth + 1}"

    def _seen_inside(self, seen: Sequence[tuple[Place, Tensor, Tensor]]) -> Inside:
        shares = torch.tensor([place.share for place, _, _ in seen], device=self._device)
        cells, beta = torch.stack([one for _, one, _ in seen]), torch.stack([one for _, _, one in seen])
        return Inside(cells, torch.zeros(len(seen), dtype=torch.int64, device=self._device), beta, shares)

    def _cells(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor([self._places[number].cell for number in numbers], device=self._device)

    @property
    def _device(self) -> torch.device:
        return self._descent.attention.device


def _look(places: Sequence[Place], valid: Sequence[bool], device: torch.device) -> Look:
    return Look(
        torch.tensor([place.cell for place in places], dtype=torch.int64, device=device),
        torch.zeros(len(places), dtype=torch.int64, device=device),
        torch.tensor([place.share for place in places], device=device),
        torch.tensor(list(valid), dtype=torch.bool, device=device),
    )
