"""Networks that look at an overview: one logit and one feature per cell, or per group of cells."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_attention.nn.blocks import ChannelNorm, OverviewNet
from wsi_attention.nn.overview_colours import OwnColours


class MnistAttentionNet(OverviewNet):
    """The paper's network for Megapixel MNIST: conv 8 tanh, conv 8 tanh, conv 1, all 3×3, one cell a pixel.

    Args:
        channels: channels of the overview.
    """

    stride = 1
    dim = 8
    reach = 3

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Tanh(),
        )
        self.score = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Map (b, c, h, w) to logits (b, h, w) and features (b, 8, h, w)."""
        features: Tensor = self.trunk(view)
        return self.score(features).squeeze(1), features


class TissueAttentionNet(OverviewNet):
    """A small convolutional trunk with some context, for stained tissue; a cell is stride × stride pixels.

    Each stage halves the view by a 4×4 convolution, whose field is centred on its cell. Normalisation is per pixel and
    nothing is pooled over space, so a strip with `reach` cells of surroundings has the values that it has in the whole
    overview. The last layer starts near zero, so that attention starts near uniform.

    Args:
        channels: channels of the overview.
        widths: channels after each stage; the stride is `squares` times 2 to the power of their number.
        context: side of the depthwise kernel over cells, odd.
        squares: side in pixels of the squares of the view whose mean and deviation the first stage sees; 1: pixels.
        colours: brings pixels to the overview's own colours; None where they come so.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (24, 48, 64),
        context: int = 7,
        squares: int = 1,
        colours: OwnColours | None = None,
    ) -> None:
        super().__init__()
        self.colours = colours
        self.stride, self.dim = squares * 2 ** len(widths), widths[-1]
        self.reach = 1 + context // 2
        stages: list[nn.Module] = [] if squares == 1 else [Summary(squares)]
        channels = channels if squares == 1 else 2 * channels
        for before, after in zip((channels, *widths), widths, strict=False):
            stages += [nn.Conv2d(before, after, 4, stride=2, padding=1), ChannelNorm(after), nn.GELU()]
        self.trunk = nn.Sequential(*stages)
        self.context = _Context(widths[-1], context)
        self.score = nn.Conv2d(widths[-1], 1, 1)
        with torch.no_grad():
            self.score.weight.mul_(0.05)
            if self.score.bias is not None:
                self.score.bias.zero_()

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Map (b, c, h, w) to logits (b, gh, gw) and features (b, dim, gh, gw), gh = h / stride and gw = w / stride.

        h and w are multiples of the stride.
        """
        shown = view if self.colours is None else self.colours(view)
        features: Tensor = self.context(self.trunk(shown))
        return self.score(features).squeeze(1), features


class Summary(nn.Module):
    """Mean and deviation of each channel over squares of pixels: what colour and how coarse tissue is, for few numbers.

    Deviations are brought to about the size of the means: in stained tissue, whose pixels have been scaled to mean 0
    and deviation 1 over all slides, they are about a half, and differ by a quarter.

    Args:
        side: of a square.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, view: Tensor) -> Tensor:
        """Map (b, c, h, w) to (b, 2 c, h / side, w / side), the means and then the deviations."""
        mean = functional.avg_pool2d(view, self.side)
        square = functional.avg_pool2d(view.square(), self.side)
        deviation = (square - mean.square()).clamp(min=0.0).sqrt()
        return torch.cat([mean, (deviation - 0.5) / 0.25], dim=1)


class _Context(nn.Module):
    """A residual ConvNeXt block: depthwise convolution over cells, then two 1×1 convolutions.

    The convolution starts as the mean over its field, so that neighbours which agree stand out against a single odd
    cell. With labels for whole slides only, training hardly ever finds that from random weights.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        nn.init.constant_(self.mix.weight, 1 / kernel**2)
        self.norm = ChannelNorm(channels)
        self.expand = nn.Conv2d(channels, 2 * channels, 1)
        self.contract = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.contract(nn.functional.gelu(self.expand(self.norm(self.mix(x)))))
        return x + y


class PooledAttention(OverviewNet):
    """Attention over blocks of side × side cells of another network; a block has the attention of its cells together.

    The logit of a block is the logarithm of the sum of its cells' exponentials. The softmax over blocks is then the sum
    of the attention of their cells, and a small finding is not diluted by its surroundings as in a mean. The feature of
    a block is the attention-weighted mean of those of its cells.

    Args:
        network: (b, c, h, w) -> logits (b, gh, gw) and features (b, d, gh, gw).
        side: cells along a side of a block; 1 changes nothing.
    """

    def __init__(self, network: OverviewNet, side: int) -> None:
        super().__init__()
        self.network, self.side = network, side
        self.stride, self.dim = side * network.stride, network.dim
        self.reach = None if network.reach is None else -(-network.reach // side)

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Map (b, c, h, w) to logits (b, h / stride, w / stride) and features (b, dim, h / stride, w / stride).

        h and w are multiples of the stride.
        """
        logits, features = self.network(view)
        of_cells = _blocks(logits.float().unsqueeze(1), self.side)
        weights = of_cells.softmax(dim=-1)
        return of_cells.logsumexp(dim=-1).squeeze(1), (_blocks(features, self.side) * weights).sum(dim=-1)


def _blocks(values: Tensor, side: int) -> Tensor:
    """Return (b, d, gh, gw) as (b, d, gh / side, gw / side, side²)."""
    b, d, rows, cols = values.shape
    cut = functional.unfold(values, side, stride=side)
    return cut.reshape(b, d, side * side, rows // side, cols // side).movedim(2, -1)
