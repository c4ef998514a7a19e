"""The eight turns of a square: all different, each undone."""

from __future__ import annotations

import pytest
import torch

from wsi_attention.attention.turns import oriented, restored


def test_the_eight_turns_differ() -> None:
    grid = torch.arange(9).reshape(3, 3)
    seen = {tuple(oriented(grid, turn).flatten().tolist()) for turn in range(8)}
    assert len(seen) == 8


@pytest.mark.parametrize("turn", range(8))
def test_a_turn_is_undone(turn: int) -> None:
    picture = torch.arange(12).reshape(3, 4)
    assert torch.equal(restored(oriented(picture, turn), turn), picture)
