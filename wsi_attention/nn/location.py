"""TNet's location module: from a feature map to one logit for each candidate region (page §2.3).

Papadopoulos, Korus & Memon, NeurIPS 2021, https://arxiv.org/abs/2102.10212, as released for fMoW and CUB.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class SqueezeExcitation(nn.Module):
    """A gate in (0, 1) for each channel, σ(W2 act(W1 mean)), from the mean over positions.

    Args:
        channels: c.
        ratio: of the channels between W1 and W2 to c.
    """

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        squeezed = max(1, round(ratio * channels))
        self.squeeze = nn.Linear(channels, squeezed)
        self.excite = nn.Linear(squeezed, channels)

    def forward(self, mean: Tensor) -> Tensor:
        """(b, c) -> (b, c)."""
        gate: Tensor = self.excite(functional.silu(self.squeeze(mean))).sigmoid()
        return gate


class Coordinates(nn.Module):
    """Appends α_y·y + β_y and α_x·x + β_x, y and x from −1 to 1; the learned α start at 1, the β at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.shift = nn.Parameter(torch.zeros(2))

    def forward(self, maps: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c + 2, h, w), y first."""
        along = [torch.linspace(-1, 1, size, device=maps.device, dtype=maps.dtype) for size in maps.shape[-2:]]
        places = torch.stack(torch.meshgrid(*along, indexing="ij"))
        channels = self.scale[:, None, None] * places + self.shift[:, None, None]
        return torch.cat([maps, channels.to(maps.dtype).expand(len(maps), -1, -1, -1)], dim=1)


class LocationModule(nn.Module):
    """conv 1×1, squeeze-excitation (ratio 0.5), two coordinate channels, conv 1×1, conv 1×1 to one logit.

    The last layer starts near zero: probabilities start near uniform. One module serves all levels.

    Args:
        channels: of φ.
        hidden: channels in between.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.gate = SqueezeExcitation(hidden, 0.5)
        self.coordinates = Coordinates()
        self.mix = nn.Conv2d(hidden + 2, hidden, 1)
        self.score = nn.Conv2d(hidden, 1, 1)
        with torch.no_grad():
            self.score.weight.mul_(0.05)
            nn.init.zeros_(self.score.bias)  # type: ignore[arg-type]

    def forward(self, phi: Tensor) -> Tensor:
        """(b, c, n, n) -> logits (b, n²), row by row."""
        h = functional.silu(self.reduce(phi))
        h = h * self.gate(h.mean(dim=(-2, -1)))[:, :, None, None]
        logits: Tensor = self.score(functional.silu(self.mix(self.coordinates(h))))
        return logits.float().flatten(1)
