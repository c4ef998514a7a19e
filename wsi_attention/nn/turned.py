"""An encoder that sees each tile in several turns: tissue has no up and no down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from wsi_attention.nn.blocks import Encoder, UnitNorm
from wsi_attention.nn.transparent import hide_wrapper

ONE, QUARTERS, ALL = 1, 4, 8
TURNS = (ONE, QUARTERS, ALL)
"""Each tile as it is; in its quarter turns; mirrored too."""


def oriented(tiles: Tensor, turn: int) -> Tensor:
    """Return tiles (..., h, w) turned by turn % 4 quarters, from `turn` 4 on mirrored first; 0 changes nothing."""
    return (tiles.flip(-1) if turn >= QUARTERS else tiles).rot90(turn % QUARTERS, (-2, -1))


class MeanOfTurns(Encoder):
    """The mean of a network's features of a tile over its turns, brought to length 1; weights keep their names.

    A network says something else of each turn of a tile; what their mean loses is not about the tissue. Prediction
    reads no more tiles for it and computes `turns` times as much. Training sees a tile in one turn (`one_turn`):
    what learns from features learns more from their differences.

    Args:
        network: the encoder of one turn.
        turns: 4, the quarter turns, or 8, the mirrored ones too.
    """

    def __init__(self, network: Encoder, turns: int) -> None:
        super().__init__()
        self.network, self.turns, self.unit = network, turns, UnitNorm()
        self.dim, self.classifiers, self.renamed = network.dim, network.classifiers, network.renamed
        hide_wrapper(self)

    def forward(self, tiles: Tensor) -> Tensor:
        """Map (m, c, h, w) to (m, dim), rows of length 1."""
        each = [self.network(oriented(tiles, turn)) for turn in range(self.turns)]
        features: Tensor = self.unit(sum(each)) if len(each) > 1 else each[0]
        return features

    def directions(self) -> Tensor | None:
        """Return the network's own: a sum of features is a sum of what they are sums of."""
        return self.network.directions()

    def extra_repr(self) -> str:
        """Tell the turns, by which features differ."""
        return f"turns={self.turns}"


@contextmanager
def one_turn(model: nn.Module) -> Iterator[None]:
    """Let a model's encoder see each tile in one turn, as it is, for the time of a block."""
    found = [(part, part.turns) for part in model.modules() if isinstance(part, MeanOfTurns)]
    for part, _ in found:
        part.turns = ONE
    try:
        yield
    finally:
        for part, turns in found:
            part.turns = turns
