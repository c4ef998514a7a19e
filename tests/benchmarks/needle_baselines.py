"""What the methods are held against: attention MIL over every tile, with and without context, or over none.

Gated attention MIL as in Ilse et al., ICML 2018 (https://arxiv.org/abs/1802.04712), trained on remembered features of
the frozen encoder (`needle_remembered.py`). The rows differ in what a cell of the tissue is described by:

exhaustive   the feature of its tile
context      the same, joined with the mean feature of the tiles in the 3 x 3 cells around it
random       the feature of its tile, of a few cells drawn evenly
colour       mean and deviation of its 8 x 8 pixels of the overview, and their means over 5 x 5 cells; no tile is read
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from needle_remembered import Slides
from needle_slides import CELLS
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy import ndimage
from torch import Generator, Tensor, nn
from torch.nn import functional

EPOCHS, BATCH = 14, 8
TRAINED = {True: (3e-3, 1e-2), False: (5e-3, 0.3)}
"""Learning rate and weight decay of rows that read tiles, and of those that do not."""
CONTEXT, AROUND = 3, 5
"""Cells a side over which features and colours are averaged."""

Describe = Callable[[Slides, int], Tensor]
"""A slide of a set -> (m, d), a row a cell of `Slides.cells`."""


class Head(nn.Module):
    """Gated attention over a bag, its mean classified.

    Args:
        dim: length of a description.
        layers: whether two layers come first; numbers without a network behind them need them.
        hidden: width of all layers.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, dim: int, layers: bool, hidden: int = 32) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.full((dim,), dim**-0.5))
        first = [nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()] if layers else []
        self.first, width = nn.Sequential(*first), hidden if layers else dim
        self.content, self.gate = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.score, self.classifier = nn.Linear(hidden, 1), nn.Linear(width, 2)

    def standardise(self, bags: Sequence[Tensor]) -> None:
        """Take mean and deviation of every number over all cells of all bags; features of length 1 need it not."""
        cells = torch.cat(list(bags))
        self.mean, self.deviation = cells.mean(dim=0), cells.std(dim=0).clamp(min=1e-6)

    def forward(self, bag: Tensor) -> tuple[Tensor, Tensor]:
        """Map a bag (m, d) to class scores (2,) and attention (m,)."""
        x = self.first((bag - self.mean) / self.deviation)
        scores = self.score(torch.tanh(self.content(x)) * torch.sigmoid(self.gate(x))).squeeze(-1)
        attention = scores.softmax(dim=-1)
        return self.classifier(attention @ x), attention


@dataclass(frozen=True)
class Baseline:
    """A row.

    Attributes:
        describe: what a cell is described by.
        draws: cells drawn evenly in training and prediction; 0 for all.
        reads: whether tiles are read at all.
    """

    describe: Describe
    draws: int = 0
    reads: bool = True


def tiles(slides: Slides, slide: int) -> Tensor:
    """The features of the tiles, (m, d)."""
    return slides.bag(slide)


def tiles_in_context(slides: Slides, slide: int) -> Tensor:
    """The features of the tiles joined with the mean over the 3 x 3 cells around each, (m, 2 d)."""
    bag, cells = slides.bag(slide), slides.cells(slide)
    return torch.cat([bag, torch.from_numpy(around(bag.numpy(), cells, CONTEXT))], dim=-1)


def colours(slides: Slides, slide: int) -> Tensor:
    """Mean and deviation of each colour in a cell of the overview, and their means over 5 x 5 cells, (m, 12)."""
    cells, pixels = slides.cells(slide), slides.overview[slide].astype(np.float32) / 255
    side = len(pixels) // CELLS
    blocks = pixels.reshape(CELLS, side, CELLS, side, 3)
    own = np.concatenate([blocks.mean(axis=(1, 3)), blocks.std(axis=(1, 3))], axis=-1).reshape(CELLS**2, -1)[cells]
    return torch.from_numpy(np.concatenate([own, around(own, cells, AROUND)], axis=-1))


def around(values: NDArray[np.float32], cells: NDArray[np.int64], side: int) -> NDArray[np.float32]:
    """Means over side x side cells, of those that are there.

    Args:
        values: (m, d), a row a cell.
        cells: (m,) flat indices.
        side: odd.
    """
    canvas = np.zeros((CELLS**2, values.shape[1] + 1), np.float32)
    canvas[cells, :-1], canvas[cells, -1] = values, 1
    square = canvas.reshape(CELLS, CELLS, -1)
    for axis in (0, 1):
        square = ndimage.uniform_filter1d(square, side, axis=axis, mode="constant")
    means = square.reshape(CELLS**2, -1)[cells]
    return np.asarray(means[:, :-1] / means[:, -1:], np.float32)


BASELINES = {
    "exhaustive": Baseline(tiles),
    "context": Baseline(tiles_in_context),
    "colour": Baseline(colours, reads=False),
    "random": Baseline(tiles, draws=48),
}


def fit(baseline: Baseline, slides: Slides, seed: int, epochs: int = EPOCHS) -> Head:
    """A head trained on all slides of a set; with draws, on other cells of each slide in each epoch."""
    bags = [baseline.describe(slides, i) for i in range(len(slides))]
    labels, noise = torch.from_numpy(slides.label), Generator().manual_seed(seed)
    torch.manual_seed(seed)
    head = Head(bags[0].shape[1], layers=not baseline.reads)
    if not baseline.reads:
        head.standardise(bags)
    rate, decay = TRAINED[baseline.reads]
    optimiser = torch.optim.AdamW(head.parameters(), rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, epochs * -(-len(bags) // BATCH))
    for _ in range(epochs):
        for step in torch.randperm(len(bags), generator=noise).split(BATCH):
            scores = torch.stack([head(bags[i][drawn(baseline, bags[i], noise)])[0] for i in step.tolist()])
            loss = functional.cross_entropy(scores, labels[step])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return head.eval()


def drawn(baseline: Baseline, bag: Tensor, noise: Generator) -> Tensor:
    """Which cells of a bag the row takes, (k,)."""
    if not baseline.draws:
        return torch.arange(len(bag))
    return torch.randperm(len(bag), generator=noise)[: baseline.draws]


def save(head: Head, path: Path) -> None:
    """Write a head."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(head.state_dict(), path)


def restore(path: Path) -> Head:
    """Read a head."""
    tensors = load_file(path)
    head = Head(tensors["mean"].shape[0], "first.0.weight" in tensors, tensors["score.weight"].shape[1])
    head.load_state_dict(tensors)
    return head.eval()
