"""Memory that is lent again: never while an array or a tensor shows it, and never more than is worth keeping."""

from __future__ import annotations

from threading import Thread

import numpy as np
import pytest
import torch

from wsi_attention.tiles import lending
from wsi_attention.tiles.lending import Memory


def address(pixels: np.ndarray) -> int:
    return int(pixels.__array_interface__["data"][0])


def test_memory_is_used_again_once_nobody_shows_it() -> None:
    memory = Memory()
    first = memory.lend((4, 8, 8, 3))
    assert (first.shape, first.dtype, first.flags.writeable, first.flags.c_contiguous) == (
        (4, 8, 8, 3),
        np.uint8,
        True,
        True,
    )
    place = address(first)
    del first
    smaller = memory.lend((2, 8, 8, 3))
    assert (address(smaller), smaller.shape) == (place, (2, 8, 8, 3))


@pytest.mark.parametrize(
    "show",
    [
        lambda a: a,
        lambda a: a[1:],
        lambda a: a.reshape(-1)[::2],
        lambda a: torch.from_numpy(a).permute(0, 3, 1, 2)[None],
    ],
)
def test_what_somebody_shows_stays_as_it_is(show) -> None:
    memory = Memory()
    lent = memory.lend((4, 8, 8, 3))
    lent[:] = 7
    shown = show(lent)
    del lent
    for _ in range(3):
        memory.lend((4, 8, 8, 3))[:] = 9
    assert (torch.as_tensor(shown) == 7).all()


def test_more_than_is_worth_keeping_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "MOST_KEPT", 100)
    memory = Memory()
    memory.lend((10, 10))
    assert memory.kept is not None
    memory.lend((10, 11))
    assert memory.kept is None


def test_every_thread_has_its_own_and_nothing_needs_none() -> None:
    memory = Memory()
    mine, others = memory.lend((3, 5)), list[np.ndarray]()
    thread = Thread(target=lambda: others.append(memory.lend((3, 5))))
    thread.start()
    thread.join()
    assert address(mine) != address(others[0])
    assert memory.lend((0, 8, 8, 3)).shape == (0, 8, 8, 3)
