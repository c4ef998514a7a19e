"""An attention network for drawings on empty ground: it looks where there is ink, and nowhere else."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_attention.nn.blocks import OverviewNet


class InkAttentionNet(OverviewNet):
    """A small network on the surroundings of each cell that holds ink; the others have logit −inf and cost nothing.

    Ink is any pixel above 0. With about 150 of 3,600 cells inked, as on a canvas of Megapixel MNIST, it costs less
    than a single convolution over the view, and draws are never spent on empty ground. An overview without ink has
    logit 0 everywhere. The last layer starts near zero, so that attention starts near uniform.

    Args:
        channels: channels of the overview.
        stride: pixels along a cell.
        margin: pixels around a cell that are seen with it.
        width: numbers in each hidden layer.
    """

    dim = 1

    def __init__(self, channels: int = 1, stride: int = 3, margin: int = 3, width: int = 32) -> None:
        super().__init__()
        self.stride, self.margin, self.side = stride, margin, stride + 2 * margin
        self.reach = -(-margin // stride)
        last = nn.Linear(width, 1)
        with torch.no_grad():
            last.weight.mul_(0.05)
            last.bias.zero_()
        seen = channels * self.side**2
        self.score = nn.Sequential(nn.Linear(seen, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), last)

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Map (b, c, h, w) to logits (b, gh, gw), and the same as features (b, 1, gh, gw); gh = h / stride.

        h and w are multiples of the stride.
        """
        inked = functional.max_pool2d(view.amax(dim=1, keepdim=True), self.stride).squeeze(1) > 0
        wide = functional.pad(view, (self.margin,) * 4)
        windows = wide.unfold(2, self.side, self.stride).unfold(3, self.side, self.stride)
        cells = inked.nonzero(as_tuple=True)
        seen = windows.movedim(1, 3)[cells].flatten(1)
        blank = torch.where(inked.flatten(1).any(dim=1), -torch.inf, 0.0).view(-1, 1, 1).expand(inked.shape)
        logits = blank.to(seen).index_put(cells, self.score(seen).squeeze(1))
        return logits, logits.unsqueeze(1)
