"""ResNet-18 in plain torch, for benchmarks; He et al., CVPR 2016, https://arxiv.org/abs/1512.03385."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wsi_attention.nn.blocks import Encoder, UnitNorm


class ResNet18(Encoder):
    """The usual ResNet-18 up to its global mean, as a tile encoder; parameters have torchvision's names.

    Batch normalisation uses running statistics in eval mode; train it with whole batches, or frozen.

    Args:
        channels: channels of the tiles.
    """

    dim = 512
    map_layer = "layer3"
    """Layer with the last feature map but one; TNet's location module sees it."""
    classifiers = ("fc",)

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(64, 64, 1)
        self.layer2 = _stage(64, 128, 2)
        self.layer3 = _stage(128, 256, 2)
        self.layer4 = _stage(256, 512, 2)
        self.unit = UnitNorm()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, tiles: Tensor) -> Tensor:
        """Map (m, c, h, w) to (m, 512), rows of length 1."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(tiles))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        features: Tensor = self.unit(x.mean(dim=(-2, -1)))
        return features

    def directions(self) -> Tensor:
        """Return the axes: after a ReLU no number is negative."""
        return torch.eye(self.dim)

    def load_backbone(self, weights: Mapping[str, Tensor]) -> None:
        """Load a torchvision `resnet18` state dict without its classifier (`fc.*`).

        Raises:
            RuntimeError: a name or a shape does not fit.
        """
        self.load_state_dict({name: value for name, value in weights.items() if not name.startswith("fc.")})


class _BasicBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample: nn.Module | None = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        result: Tensor = self.relu(y + shortcut)
        return result


def _stage(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_BasicBlock(before, after, stride), _BasicBlock(after, after, 1))
