"""Only the patches with tissue go through a transformer: the same as −inf as keys for all others, at less cost."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Packing(NamedTuple):
    """Where the chosen ones of n patches are; images with fewer of them than another are padded.

    Attributes:
        places: (b, t) int64, patches in the order of the image; then, as padding, patches that were not chosen.
        real: (b, t) bool, False for padding.
        n: patches of an image.
    """

    places: Tensor
    real: Tensor
    n: int

    @classmethod
    def of(cls, chosen: Tensor) -> Packing:
        """The packing of the patches chosen (b, n), bool."""
        count = int(chosen.sum(dim=-1).max())
        order = (~chosen).to(torch.uint8).argsort(dim=-1, stable=True)[:, :count]
        return cls(order, chosen.gather(-1, order), chosen.shape[-1])

    @property
    def seen(self) -> Tensor | None:
        """(b, 1 + t) bool for a class token and the packed patches, what may be attended to; None where all may."""
        if bool(self.real.all()):
            return None
        return torch.cat([torch.ones_like(self.real[:, :1]), self.real], dim=1)

    def pack(self, tokens: Tensor) -> Tensor:
        """(b, n, d) -> (b, t, d)."""
        return at(tokens, self.places)

    def unpack(self, values: Tensor) -> Tensor:
        """(b, t) or (b, t, d) -> (b, n) or (b, n, d), 0 at the patches that were not chosen."""
        full = values.new_zeros(values.shape[0], self.n, *values.shape[2:])
        trailing = (1,) * (values.ndim - 2)
        kept = values.masked_fill(~self.real.reshape(*self.real.shape, *trailing), 0)
        return full.scatter(1, self.places.reshape(*self.places.shape, *trailing).expand_as(values), kept)


def at(tokens: Tensor, places: Tensor) -> Tensor:
    """The tokens (b, k, d) at places (b, k) among (b, n, d)."""
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
