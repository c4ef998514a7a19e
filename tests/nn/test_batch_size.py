"""How many tiles are encoded at once: doubled while that pays and fits, and remembered; on the CPU as on a GPU."""

from __future__ import annotations

import gc
from collections.abc import Callable
from threading import Thread

import pytest
import torch
from torch import Tensor, nn

from wsi_attention.errors import OutOfMemoryError
from wsi_attention.nn import bags
from wsi_attention.nn.bags import encode
from wsi_attention.nn.batch_size import BatchSizes, largest_useful
from wsi_attention.structures import TileBatch


class Clock:
    """Shows the seconds that networks say they took, so that no other work on this machine counts."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


class Limited(nn.Module):
    """Takes up to `fits` tiles; `cost` seconds for so many."""

    def __init__(self, fits: int, cost: Callable[[int], float]) -> None:
        super().__init__()
        self.fits, self.cost = fits, cost
        self.sizes: list[int] = []

    def forward(self, tiles: Tensor) -> Tensor:
        """(m, c, h, w) -> (m, c)."""
        self.sizes.append(len(tiles))
        if len(tiles) > self.fits:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {len(tiles)} tiles")
        CLOCK.now += self.cost(len(tiles))
        return tiles.mean((-1, -2))


def same(size: int) -> float:
    """As long for few tiles as for many: twice as many halve the time of each."""
    return 0.004


def each(size: int) -> float:
    """As long for each tile, however many there are."""
    return 0.0005 * size


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU look for a size too, from 4 to 64 tiles."""
    for name, value in (("CHUNK", 4), ("CPU_MOST", 64), ("SIZES", BatchSizes()), ("perf_counter", CLOCK)):
        monkeypatch.setattr(bags, name, value)


def tiles(count: int) -> TileBatch:
    torch.manual_seed(count)
    return TileBatch(torch.rand(1, count, 3, 4, 4), torch.ones(1, count, dtype=torch.bool))


def used(encoder: Limited, count: int) -> list[int]:
    """The sizes in which so many tiles are encoded now, their features checked."""
    encoder.sizes.clear()
    given = tiles(count)
    torch.testing.assert_close(encode(given, nn.Identity(), encoder), given.pixels.mean((-1, -2)))
    return encoder.sizes.copy()


@pytest.mark.parametrize(("fits", "cost", "found"), [(1000, same, 64), (40, same, 32), (1000, each, 4), (4, same, 4)])
def test_the_size_is_doubled_while_it_pays_and_fits(fits: int, cost: Callable[[int], float], found: int) -> None:
    encoder = Limited(fits, cost).eval()
    first = used(encoder, 100)
    assert first[:2] == [4, 4] and max(first) <= 2 * min(fits, 32), "each size is tried twice, the second time timed"
    parts = [found] * (100 // found) + [100 % found] * (100 % found > 0)
    assert first[-len(parts) :] == parts
    assert used(encoder, 100) == parts, "and nothing is tried again"


def test_memory_that_runs_out_later_lowers_the_size_for_good() -> None:
    encoder = Limited(1000, same).eval()
    used(encoder, 100)
    encoder.fits = 20
    assert used(encoder, 100) == [64, 32, 16, 16, 16, 16, 16, 16, 4]
    assert used(encoder, 32) == [16, 16]


def test_not_even_the_first_size_fits() -> None:
    encoder = Limited(1, same).eval()
    assert used(encoder, 9) == [4, 4, 2, *[1] * 9]
    assert used(encoder, 9) == [1] * 9
    encoder.fits = 0
    with pytest.raises(OutOfMemoryError, match="not even one tile of 4 × 4 px fits into memory: CUDA out of memory"):
        encode(tiles(9), nn.Identity(), encoder)


def test_few_tiles_a_given_size_and_training_search_nothing() -> None:
    encoder = Limited(1000, same).eval()
    assert used(encoder, 4) == [4]
    encode(tiles(9), nn.Identity(), encoder, chunk=3)
    assert encoder.sizes == [4, 3, 3, 3]
    encoder.sizes.clear()
    encode(tiles(9), nn.Identity(), encoder.train())
    assert encoder.sizes == [9]


def test_other_errors_are_raised_and_nothing_is_remembered() -> None:
    encoder = Limited(1000, lambda size: 1 / 0).eval()
    with pytest.raises(ZeroDivisionError):
        encode(tiles(9), nn.Identity(), encoder)
    encoder.cost = same
    assert used(encoder, 100)[-2:] == [64, 36]


def test_threads_search_once_and_a_network_that_is_gone_is_forgotten() -> None:
    encoder = Limited(1000, same).eval()
    threads = [Thread(target=encode, args=(tiles(70), nn.Identity(), encoder)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(encoder.sizes) == sorted([4, 4, 8, 8, 16, 16, 32, 32, 64, 64] + [64, 6] * 4)
    assert len(bags.SIZES._found) == 1
    del encoder, threads, thread
    gc.collect()
    assert len(bags.SIZES._found) == 0


def test_tiles_of_another_size_and_another_precision_are_tried_anew() -> None:
    encoder = Limited(1000, same).eval()
    used(encoder, 100)
    larger = TileBatch(torch.rand(1, 100, 3, 8, 8), torch.ones(1, 100, dtype=torch.bool))
    encoder.sizes.clear()
    encode(larger, nn.Identity(), encoder)
    assert encoder.sizes[:2] == [4, 4]
    encoder.sizes.clear()
    with torch.autocast("cpu", torch.bfloat16):
        encode(larger, nn.Identity(), encoder)
    assert encoder.sizes[:2] == [4, 4]


def test_a_gain_below_a_tenth_is_none() -> None:
    cost = {1: 1.0, 2: 1.7, 4: 3.2, 8: 1.0}
    assert largest_useful(cost.__getitem__, 1, 8, lambda: None) == 2
