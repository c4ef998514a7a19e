"""An attention network's cells gathered into larger ones, so that a cell can have any whole number of them a side."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class PooledAttention(nn.Module):
    """Attention over blocks of side × side cells of another network: as much as their cells have together.

    A block's logit is the log of the sum of its cells' exponentials, so the softmax over blocks gives each the sum of
    its cells' attention, and one small finding is not thinned out by its surroundings as in a mean. A block's feature
    is the attention-weighted mean of its cells'.

    Args:
        network: (b, c, h, w) -> logits (b, gh, gw) and features (b, d, gh, gw); with attributes `stride` and `dim`.
        side: cells along a side of a block; 1 changes nothing.
    """

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network, self.side = network, side
        self.stride, self.dim = side * int(network.stride), int(network.dim)  # type: ignore[arg-type]
        reach = getattr(network, "reach", None)
        self.reach: int | None = None if reach is None else -(-reach // side)

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """(b, c, h, w) -> logits (b, h / stride, w / stride) and features (b, dim, h / stride, w / stride).

        h and w are multiples of the stride.
        """
        logits, features = self.network(view)
        of_cells = _blocks(logits.float().unsqueeze(1), self.side)
        weights = of_cells.softmax(dim=-1)
        return of_cells.logsumexp(dim=-1).squeeze(1), (_blocks(features, self.side) * weights).sum(dim=-1)


def _blocks(values: Tensor, side: int) -> Tensor:
    """(b, d, gh, gw) -> (b, d, gh / side, gw / side, side²)."""
    b, d, rows, cols = values.shape
    cut = functional.unfold(values, side, stride=side)
    return cut.reshape(b, d, side * side, rows // side, cols // side).movedim(2, -1)
