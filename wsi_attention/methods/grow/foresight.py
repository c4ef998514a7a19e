"""What the overview foresees of tiles, and how far it is off (docs/methods/grow.md §2.6)."""

from __future__ import annotations

from torch import Tensor, nn


def blank(of: int, to: int) -> nn.Conv2d:
    """Return what turns attention features into foreseen ones, cell by cell; at first it foresees the same everywhere.

    Args:
        of: length of an attention feature.
        to: length of a tile's feature.
    """
    made = nn.Conv2d(of, to, 1)
    for part in made.parameters():
        nn.init.zeros_(part)
    return made


def at(foreseen: Tensor, cells: Tensor) -> Tensor:
    """Return what is foreseen of some cells, (b, n, d).

    Args:
        foreseen: (b, d, K).
        cells: (b, n) numbers of cells.
    """
    b, d, _ = foreseen.shape
    return foreseen.gather(2, cells.to(foreseen.device).unsqueeze(1).expand(b, d, -1)).transpose(1, 2)


def missed(foreseen: Tensor, seen: Tensor, valid: Tensor) -> Tensor:
    """Return the mean squared distance of what was foreseen to what tiles showed, a scalar.

    Tiles are not drawn towards what was foreseen of them: an encoder that learns too is left alone.

    Args:
        foreseen: (b, n, d).
        seen: (b, n, d).
        valid: (b, n) bool, False where a tile could not be read.
    """
    off = (foreseen.float() - seen.detach().to(foreseen.device).float()).square().sum(dim=-1)
    real = valid.to(off.device)
    return (off * real).sum() / real.sum().clamp(min=1)
