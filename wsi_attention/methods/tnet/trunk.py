"""What TNet sees of views coarser than the tiles: a small trunk, pooled over tissue, that scores the crops itself.

Not of the paper, in which one backbone looks at every view (docs/methods/tnet.md §6). An encoder made for tiles halves
a coarse view too often, normalises over glass and pools over glass, so that a lesion of a few pixels is gone.
Here normalisation is per pixel, a cell is a few pixels wide, glass takes no part, and the trunk is told of the label at
every level: the attention-weighted evidence of the level's cells is classified by itself.

Axes: v regions, c channels, g cells along a side of a view.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsi_attention.methods.tnet.crops import CropGrid, overlaps
from wsi_attention.nn.attention_nets import TissueAttentionNet
from wsi_attention.nn.blocks import UnitNorm


class CoarseTrunk(nn.Module):
    """A convolutional trunk with a score and class scores for each cell of a view.

    Args:
        network: views (v, channels, size, size) -> features (v, c, g, g), with a `score` of them.
        size: pixels along a side of a view; a multiple of the network's stride.
        dim: length of the feature of a view.
        classes: number of classes.

    Attributes:
        cells: g.
    """

    def __init__(self, network: TissueAttentionNet, size: int, dim: int, classes: int) -> None:
        super().__init__()
        self.network, self.cells = network, size // network.stride
        self.evidence = nn.Conv2d(network.dim, classes, 1)
        self.project = nn.Linear(2 * network.dim, dim)
        self.unit = UnitNorm()

    def forward(self, views: Tensor) -> Tensor:
        """Map views (v, channels, size, size) to flattened maps (v, c · g²); `maps` undoes the flattening."""
        features: Tensor = self.network(views)[1]
        return features.flatten(1)

    def maps(self, flat: Tensor) -> Tensor:
        """Return flattened maps (..., c · g²) as (..., c, g, g)."""
        return flat.reshape(*flat.shape[:-1], self.network.dim, self.cells, self.cells)

    def nothing(self, like: Tensor) -> Tensor:
        """Return flattened maps of zeros for views (...) of which none could be read."""
        return like.new_zeros((*like.shape, self.network.dim * self.cells**2)).float()

    def scores(self, maps: Tensor) -> Tensor:
        """Return the attention logit of each cell (v, g, g) of maps (v, c, g, g)."""
        scores: Tensor = self.network.score(maps)
        return scores.squeeze(1)

    def pool(self, maps: Tensor, tissue: Tensor) -> Tensor:
        """Return the feature of each view, (v, dim) of length 1: of its tissue, the attended mean and the maximum.

        Args:
            maps: (v, c, g, g).
            tissue: (v, g, g), the share of each cell that is tissue; where a view has none, all of it counts.
        """
        tissue = _somewhere(tissue)
        share = _over_tissue(self.scores(maps), tissue).flatten(1).softmax(dim=-1)
        mean = (maps.flatten(2) * share.unsqueeze(1)).sum(dim=-1)
        most = maps.masked_fill((tissue == 0).unsqueeze(1), -torch.inf).amax(dim=(-2, -1))
        feature: Tensor = self.unit(self.project(torch.cat([mean, most], dim=-1)))
        return feature

    def own_logits(self, maps: Tensor, tissue: Tensor, image: Tensor, b: int) -> Tensor:
        """Return Σ a_i S_i over all cells of an image's views of a level, (b, classes); NaN for an image without any.

        Attention a is the softmax of the scores over the tissue of all these views together, S the class scores of a
        cell: attention-based MIL (Ilse et al., ICML 2018).

        Args:
            maps: (v, c, g, g), of a level of all images.
            tissue: (v, g, g), the share of each cell that is tissue.
            image: (v,) int64, the image of each view.
            b: number of images.
        """
        logits = _over_tissue(self.scores(maps), _somewhere(tissue)).flatten(1)
        highest = logits.new_full((b,), -torch.inf).scatter_reduce(0, image, logits.detach().amax(-1), "amax")
        weights = (logits - highest[image].unsqueeze(-1)).exp()
        evidence = (self.evidence(maps).flatten(2) * weights.unsqueeze(1)).sum(dim=-1)
        total = weights.new_zeros(b).index_add(0, image, weights.sum(dim=-1))
        summed: Tensor = evidence.new_zeros(b, evidence.shape[-1]).index_add(0, image, evidence)
        return summed / total.unsqueeze(-1)

    def crop_logits(self, maps: Tensor, tissue: Tensor, crop: CropGrid, side: int, n: int) -> Tensor:
        """Return a logit for each crop, (v, n²): the logarithm of the sum of its cells' exponentials.

        A small finding is then not diluted by its surroundings as in a mean. No gradient goes into the maps.

        Args:
            maps: (v, c, g, g) over square regions.
            tissue: (v, g, g), the share of each cell that is tissue.
            crop: where the crops lie, along x and y alike.
            side: side of a region in the grid's pixels.
            n: crops along an axis.
        """
        logits = self.scores(maps.detach()).masked_fill(tissue == 0, -torch.inf)
        highest = logits.detach().flatten(1).amax(dim=-1).clamp(min=LOWEST)[:, None, None]
        weights = (logits - highest).exp() * tissue
        starts = torch.arange(n, device=maps.device) * crop.stride - crop.before
        inside = overlaps(starts, crop.patch, side / self.cells, self.cells, side).to(weights.dtype)
        summed = (inside @ weights @ inside.mT).flatten(1)
        return summed.clamp(min=SMALLEST).log() + highest.flatten(1)


LOWEST, SMALLEST = -1e4, 1e-12
"""Logit in place of the highest of a view without tissue; least sum of a crop, whose logit would be −∞ without it."""


def _somewhere(tissue: Tensor) -> Tensor:
    """Return the tissue (v, g, g), all of a view where it has none."""
    return tissue.where((tissue > 0).flatten(1).any(dim=-1)[:, None, None], 1.0)


def _over_tissue(logits: Tensor, tissue: Tensor) -> Tensor:
    """Return logits (v, g, g) by the amount of tissue of each cell, −∞ where there is none."""
    return logits + tissue.to(logits.dtype).log()
