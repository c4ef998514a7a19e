"""Blocks of cells, held against loops over a grid."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Generator, Tensor

from wsi_attention.methods.grow.neighbours import blocks, context, next_cells

SHAPE = 5, 6


def some(n: int, seed: int = 0) -> Tensor:
    """n different cells of two images."""
    noise = torch.rand(2, 30, generator=Generator().manual_seed(seed))
    return noise.argsort(dim=-1)[:, :n]


def near(one: int, other: int, side: int) -> bool:
    (row, col), (down, right) = divmod(one, 6), divmod(other, 6)
    return max(abs(row - down), abs(col - right)) <= side // 2


@pytest.mark.parametrize("side", [1, 3, 5])
def test_context_is_the_mean_over_the_block(side: int) -> None:
    cells, features = some(12), torch.rand(2, 12, 4, generator=Generator().manual_seed(1))
    valid = torch.rand(2, 12, generator=Generator().manual_seed(2)) > 0.2
    found = context(features * valid.unsqueeze(-1), cells, valid, SHAPE, side)
    for b, j in itertools.product(range(2), range(12)):
        if valid[b, j]:
            own = [k for k in range(12) if valid[b, k] and near(int(cells[b, j]), int(cells[b, k]), side)]
            torch.testing.assert_close(found[b, j], features[b, own].mean(dim=0))


def test_a_block_ends_at_the_edge_of_the_grid() -> None:
    found = blocks(torch.tensor([[0, 29, 14]]), SHAPE, 3)[0]
    assert sorted(found[0].tolist()) == [0, 1, 6, 7, 30, 30, 30, 30, 30]
    assert sorted(found[1].tolist()) == [22, 23, 28, 29, 30, 30, 30, 30, 30]
    assert sorted(found[2].tolist()) == [7, 8, 9, 13, 14, 15, 19, 20, 21]


def test_growing_begins_around_the_most_telling_tile() -> None:
    cells, attention = torch.tensor([[14, 0, 29]]), torch.full((1, 30), 0.1)
    attention[0, 7] = 0.0
    telling = torch.tensor([[-1.0, -3.0, -2.0]])
    assert next_cells(telling, cells, attention, SHAPE, 3, 7)[0].tolist() == [8, 9, 13, 15, 19, 20, 21]
    assert sorted(next_cells(telling, cells, attention, SHAPE, 3, 10)[0].tolist()[7:]) == [22, 23, 28]
    everywhere = next_cells(telling, cells, attention, SHAPE, 3, 100)[0].tolist()
    assert everywhere[-2:] == [1, 6] and len(everywhere) == 12
    nothing = next_cells(torch.full((1, 3), -torch.inf), cells, attention, SHAPE, 3, 5)
    assert nothing.shape == (1, 0)


def test_of_neighbours_those_with_the_most_attention_come_first() -> None:
    """An unread tile is expected to weigh its attention times the gate of its most telling neighbour."""
    attention = torch.rand(1, 30, generator=Generator().manual_seed(3)) + 0.01
    cells, telling = torch.tensor([[14, 0]]), torch.tensor([[-0.5, -1.0]])
    expected = {
        cell: max(
            float(attention[0, cell] * gate.exp())
            for one, gate in zip([14, 0], telling[0], strict=True)
            if near(cell, one, 3)
        )
        for cell in range(30)
        if cell not in (14, 0) and (near(cell, 14, 3) or near(cell, 0, 3))
    }
    found = next_cells(telling, cells, attention, SHAPE, 3, 100)[0].tolist()
    assert found == sorted(expected, key=lambda cell: -expected[cell])


def test_images_grow_by_equally_many_tiles() -> None:
    attention = torch.zeros(2, 30)
    attention[0], attention[1, :2] = 0.1, 0.1
    found = next_cells(torch.zeros(2, 1), torch.tensor([[0], [0]]), attention, SHAPE, 3, 5)
    assert found.tolist() == [[1], [1]]


def far(one: int, cells: list[int], side: int) -> bool:
    return not any(near(one, cell, side) for cell in cells)


@pytest.mark.parametrize("side", [3, 5])
def test_growing_goes_where_nothing_was_read_before_it_goes_around_tiles_that_tell_less(side: int) -> None:
    attention = torch.rand(1, 30, generator=Generator().manual_seed(4)) + 0.01
    cells, telling = torch.tensor([[14]]), torch.tensor([[-6.0]])
    found = next_cells(telling, cells, attention, SHAPE, side, 100, explore=1e3)[0].tolist()
    explored = [cell for cell in found if far(cell, [14], side)]
    assert found[: len(explored)] == explored, "attention varies by a factor of 100, the gate by 400"
    assert explored[0] == max(
        (cell for cell in range(30) if far(cell, [14], side)), key=lambda cell: float(attention[0, cell])
    )
    assert all(far(one, [other], side) for one, other in itertools.combinations(explored, 2))


def test_growing_goes_around_a_tile_that_tells_more_than_is_hoped_for_elsewhere() -> None:
    attention = torch.rand(1, 30, generator=Generator().manual_seed(4)) + 0.01
    cells, telling = torch.tensor([[14, 0, 29]]), torch.tensor([[0.0, -20.0, -21.0]])
    around = [cell for cell in range(30) if cell != 14 and near(cell, 14, 3)]
    found = next_cells(telling, cells, attention, SHAPE, 3, 100, explore=5.0)[0].tolist()
    assert sorted(found[:8]) == around
    assert far(found[8], [14, 0, 29], 3), "e^-20 times 5 is more than e^-20"


def test_what_is_hoped_for_is_a_multiple_of_the_median_gate() -> None:
    """Cells 3 and 27 lie far from all tiles, 15 beside the one that tells the most."""
    attention = torch.full((1, 30), 1e-9)
    attention[0, [3, 27, 15]] = torch.tensor([0.2, 0.1, 0.4])
    cells, telling = torch.tensor([[14, 0, 12]]), torch.tensor([[0.1, 0.02, 0.01]]).log()
    order = {4.0: [15, 3, 27], 10.5: [3, 15, 27], 25.0: [3, 27, 15]}  # times 0.02, against 0.1 · 0.4; at most 1
    for explore, expected in order.items():
        assert next_cells(telling, cells, attention, SHAPE, 3, 3, explore)[0].tolist() == expected


def test_rounds_of_exploring_leave_no_cell_of_tissue_far_from_all_tiles() -> None:
    attention = torch.full((1, 30), 0.1)
    attention[0, 11] = 0.0
    read = [14]
    while True:
        told = torch.full((1, len(read)), -torch.inf)
        found = next_cells(told, torch.tensor([read]), attention, SHAPE, 3, 4, explore=5.0)[0].tolist()
        if not found:
            break
        assert all(far(cell, read, 3) for cell in found)
        read += found
    assert not [cell for cell in range(30) if cell != 11 and far(cell, read, 3)]
    assert 11 not in read and len(read) <= 9


def test_images_side_by_side_explore_as_they_do_alone() -> None:
    attention = torch.zeros(2, 30)
    attention[0], attention[1, [0, 2, 29]] = torch.rand(30, generator=Generator().manual_seed(7)) + 0.01, 0.1
    cells, telling = torch.tensor([[14], [29]]), torch.full((2, 1), -torch.inf)
    together = next_cells(telling, cells, attention, SHAPE, 3, 5, explore=5.0)
    assert together.shape == (2, 2), "the second has two cells far from what was read"
    for b in range(2):
        alone = next_cells(telling[b : b + 1], cells[b : b + 1], attention[b : b + 1], SHAPE, 3, 5, explore=5.0)
        assert together[b].tolist() == alone[0, :2].tolist()


def test_where_nothing_is_to_be_explored_growing_stays_around_tiles() -> None:
    attention = torch.rand(2, 30, generator=Generator().manual_seed(5)) + 0.01
    cells, telling = some(4), torch.rand(2, 4, generator=Generator().manual_seed(6)).log()
    for row, read in zip(next_cells(telling, cells, attention, SHAPE, 3, 30), cells, strict=True):
        assert not [cell for cell in row.tolist() if far(cell, read.tolist(), 3)]
