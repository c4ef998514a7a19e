"""What the six methods are held against: attention MIL over every tile of the tissue, and over as many random ones.

Gated attention MIL as in Ilse et al., ICML 2018 (https://arxiv.org/abs/1802.04712), on the shared frozen encoder. Both
are trained on features that were computed once, and predict through the same slides, readers and `predict` as the rest.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from wsi_attention.geometry import Grid
from wsi_attention.methods.outputs import glimpses, maps
from wsi_attention.nn.bags import encode
from wsi_attention.nn.preprocess import Normalise
from wsi_attention.protocols import TileSource
from wsi_attention.slide.slide import open_slide
from wsi_attention.structures import Output, TileSet
from wsi_attention.tiles.source import SlideSource

PART = 256
"""Tiles in memory at once."""


class AttentionMIL(nn.Module):
    """Attention over tiles that all were read and encoded; it never looks at the overview.

    Args:
        encoder: frozen, (m, 3, h, w) -> (m, dim).
        tile_size: side of a tile in pixels.
        mpp: µm per pixel of the tiles.
        draws: tiles drawn evenly from the tissue; 0 for all of them.
        hidden: width of the attention network.
    """

    def __init__(
        self, encoder: nn.Module, tile_size: int, mpp: float, overview_mpp: float, draws: int = 0, hidden: int = 64
    ) -> None:
        super().__init__()
        self.encoder, self.preprocess = encoder, Normalise()
        self.tile_size, self.tile_mpp, self.overview_mpp, self.draws = tile_size, mpp, overview_mpp, draws
        dim = int(encoder.dim)  # type: ignore[arg-type]
        self.scale = dim**0.5
        self.content, self.gate = nn.Linear(dim, hidden), nn.Linear(dim, hidden)
        self.score, self.classifier = nn.Linear(hidden, 1), nn.Linear(dim, 2)

    def bag(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, d) -> class scores (2,) and attention (n,)."""
        x = features * self.scale
        scores = self.score(torch.tanh(self.content(x)) * torch.sigmoid(self.gate(x))).squeeze(-1)
        attention = scores.softmax(dim=-1)
        return self.classifier(attention @ x), attention

    def cells(self, source: TileSource) -> tuple[Grid, Tensor]:
        """The grid of tiles, and which of its cells are tissue, flat."""
        step = self.tile_size * source.downsample(self.tile_mpp)
        grid = Grid.covering(source.extent, (step, step))
        return grid, source.tissue(grid)[0].flatten().nonzero().squeeze(-1)

    def features(self, source: TileSource, grid: Grid, cells: Tensor) -> tuple[Tensor, Tensor, TileSet]:
        """Features (n, d) of the cells' tiles, which of them could be read, and the tiles."""
        downsample, size = source.downsample(self.tile_mpp), (self.tile_size, self.tile_size)
        tiles = TileSet(grid.locations(cells.numpy(), size, downsample), size, downsample)
        parts = []
        for start in range(0, len(tiles), PART):
            batch = source.read(tiles.select(slice(start, start + PART)))
            parts.append((encode(batch, self.preprocess, self.encoder)[0], batch.valid[0]))
        return torch.cat([part for part, _ in parts]), torch.cat([valid for _, valid in parts]), tiles

    def forward(self, source: TileSource, generator: Generator | None = None) -> Output:
        """Read and encode the tiles, pool them, classify; b = 1."""
        grid, cells = self.cells(source)
        if self.draws:
            cells = cells[torch.randperm(len(cells), generator=generator)[: self.draws]].sort().values
        features, valid, tiles = self.features(source, grid, cells)
        scores, attention = self.bag(features)
        whole = torch.zeros(1, grid.rows * grid.cols)
        whole[0, cells] = attention
        return Output(
            scores[None],
            glimpses(tiles, attention[None], attention[None], valid[None]),
            maps(whole, torch.where(whole > 0, 0.0, -torch.inf), grid),
            torch.zeros(1),
        )


@torch.inference_mode()
def remember(model: AttentionMIL, slides: list[Path]) -> list[Tensor]:
    """The features of every tissue tile of every slide, each (n, d)."""
    found = []
    for path in slides:
        with open_slide(str(path)) as slide:
            source = SlideSource(slide)
            found.append(model.features(source, *model.cells(source))[0].clone())
    return found


def fit(model: AttentionMIL, bags: list[Tensor], labels: list[int], seed: int, epochs: int = 40) -> None:
    """AdamW on bags of remembered features; with draws, other tiles of each bag in each epoch."""
    noise = Generator().manual_seed(seed)
    heads = [value for name, value in model.named_parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(heads, 1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in range(epochs):
        for step in torch.randperm(len(bags), generator=noise).split(8):
            loss = torch.zeros(())
            for i in step.tolist():
                kept = torch.randperm(len(bags[i]), generator=noise)[: taken(model, bags[i])]
                scores, _ = model.bag(bags[i][kept])
                loss = loss + functional.cross_entropy(scores[None], torch.tensor([labels[i]])) / len(step)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()


def taken(model: AttentionMIL, bag: Tensor) -> int:
    """How many tiles of a bag the model takes."""
    return model.draws or len(bag)
