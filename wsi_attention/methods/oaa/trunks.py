"""Fully convolutional trunks that look at an overview: (b, c, h, w) -> features (b, dim, h / stride, w / stride)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from wsi_attention.nn.attention_nets import TissueAttentionNet

VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of VGG-16's convolutions, block by block (Simonyan & Zisserman, ICLR 2015)."""


class Trunk(nn.Module):
    """Base of trunks.

    Attributes:
        stride: side of a cell in pixels.
        dim: channels of the features.
    """

    stride: int
    dim: int


class TissueTrunk(Trunk):
    """`TissueAttentionNet` without its score: small, with some context; a cell has stride × stride pixels.

    Args:
        channels: channels of the overview.
        widths: channels after each stage; the stride is 2 to the power of their number.
        context: side of the depthwise kernel over cells, odd.
    """

    def __init__(self, channels: int = 3, widths: Sequence[int] = (24, 48, 64), context: int = 7) -> None:
        super().__init__()
        whole = TissueAttentionNet(channels, widths, context)
        self.stride, self.dim = whole.stride, whole.dim
        self.stages, self.context = whole.trunk, whole.context
        self.context.mix.reset_parameters()  # class maps are read cell by cell: do not start as a mean over neighbours

    def forward(self, view: Tensor) -> Tensor:
        """Map (b, c, h, w) to (b, dim, gh, gw); h and w are multiples of the stride."""
        features: Tensor = self.context(self.stages(view))
        return features


class Vgg16Trunk(Trunk):
    """VGG-16 as OAA uses it: pool4 keeps the size and conv5 is dilated by 2, so that the stride is 8; no pool5.

    Parameters have torchvision's names (`features.0.weight` …), so that its `vgg16` weights fit if its classifier is
    left out. Without ImageNet weights it learns little from a few hundred slides.

    Args:
        channels: channels of the overview.
    """

    stride, dim = 8, 512

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for block, widths in enumerate(VGG16):
            dilation = 2 if block == 4 else 1
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation), nn.ReLU(inplace=True)]
                channels = width
            layers.append(_pool(block))
        self.features = nn.Sequential(*layers[:-1])

    def forward(self, view: Tensor) -> Tensor:
        """Map (b, c, h, w) to (b, 512, h / 8, w / 8); h and w are multiples of 8."""
        features: Tensor = self.features(view)
        return features


def _pool(block: int) -> nn.Module:
    return nn.MaxPool2d(3, stride=1, padding=1) if block == 3 else nn.MaxPool2d(2)


def class_aware_head(dim: int, classes: int, widths: Sequence[int], deviation: float | None = None) -> nn.Sequential:
    """Return 3×3 convolutions with ReLU, then one 1×1 convolution to `classes` channels (docs/methods/oaa.md §2.1).

    Args:
        dim: channels of the features.
        classes: channels of the class maps.
        widths: channels of the 3×3 convolutions; the paper has (512, 512, 512).
        deviation: standard deviation of fresh weights, with biases 0; the paper has 0.01, from which only wide layers
            on pre-trained features learn. PyTorch's own start where None.
    """
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(dim, width, 3, padding=1), nn.ReLU()]
        dim = width
    head = nn.Sequential(*layers, nn.Conv2d(dim, classes, 1))
    for layer in head:
        if deviation is not None and isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=deviation)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return head
