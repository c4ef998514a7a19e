"""Requests cut into tasks: every tile once, tiles of one stored tile together, few tasks, compact ones."""

from __future__ import annotations

import numpy as np
import pytest

from wsi_attention.tiles.cutting import MAX_TASKS, batch_of, busy_batch, cut


@pytest.mark.parametrize("stored", [(256.0, 256.0), (961.3, 480.7), None])
@pytest.mark.parametrize(("n", "batch"), [(1, 32), (257, 32), (40, 1), (30_000, 32)])
def test_every_tile_is_in_one_task(n: int, batch: int, stored: tuple[float, float] | None) -> None:
    places = np.random.default_rng(0).integers(-500, 60_000, (n, 2))
    parts = cut(places, (224, 224), stored, batch)
    assert np.sort(np.concatenate(parts)).tolist() == list(range(n))
    step = batch_of(n, batch)
    assert all(0 < len(part) < 2 * step or len(part) == 1 for part in parts)
    assert len(parts) <= min(MAX_TASKS, -(-n // step)) if stored else len(parts) <= MAX_TASKS


@pytest.mark.parametrize(
    ("n", "batch", "threads", "wanted"),
    [(256, 32, 2, 32), (256, 32, 16, 8), (600, 32, 16, 19), (9000, 32, 64, 32), (5, 4, 64, 4)],
)
def test_many_cores_get_a_task_each(n: int, batch: int, threads: int, wanted: int) -> None:
    assert busy_batch(n, batch, threads) == wanted


def test_nothing_is_no_task() -> None:
    assert cut(np.zeros((0, 2), np.int64), (224, 224), (256.0, 256.0), 32) == []


def test_tiles_of_one_stored_tile_stay_together() -> None:
    rng = np.random.default_rng(1)
    holders = rng.permutation(400)[:60]
    inside = rng.integers(0, 1024 - 224, (60, 5, 2))
    places = (np.stack([holders % 20, holders // 20], axis=-1)[:, None] * 1024 + inside).reshape(-1, 2)
    shuffled = rng.permutation(places)
    parts = cut(shuffled, (224, 224), (1024.0, 1024.0), 32)
    task = np.empty(len(places), int)
    for number, part in enumerate(parts):
        task[part] = number
    by_holder: dict[tuple[int, ...], set[int]] = {}
    for place, number in zip(shuffled, task, strict=True):
        by_holder.setdefault(tuple(place // 1024), set()).add(int(number))
    assert all(len(numbers) == 1 for numbers in by_holder.values())


def test_tasks_of_a_dense_block_are_compact() -> None:
    """A band of 64 tiles beside each other touches 65 × 2 stored tiles, a block of 8 × 8 only 9 × 9."""
    rows, cols = np.divmod(np.arange(32 * 32), 32)
    places = np.stack([cols, rows], axis=-1) * 256 + 100
    touched = []
    for part in cut(places, (256, 256), (256.0, 256.0), 64):
        first = places[part] // 256
        stored = {(x + a, y + b) for x, y in first.tolist() for a in (0, 1) for b in (0, 1)}
        touched.append(len(stored))
    assert max(touched) <= 90


@pytest.mark.parametrize("side", [4, 6])
def test_a_cut_goes_between_clusters(side: int) -> None:
    """Blocks of unaligned tiles, far apart: a task holds whole blocks, so that no stored tile is decoded twice."""
    steps = np.stack(np.divmod(np.arange(side**2), side), axis=-1) * 224
    blocks = np.random.default_rng(2).permutation(100)[:8]
    corners = np.stack([blocks % 10, blocks // 10], axis=-1) * 4096 + 100
    places = (corners[:, None] + steps).reshape(-1, 2)
    parts = cut(np.random.default_rng(3).permutation(places), (224, 224), (256.0, 256.0), side**2)
    assert [len(part) for part in parts] == [side**2] * 8
    shuffled = np.random.default_rng(3).permutation(places)
    assert all(len({tuple(place // 4096) for place in shuffled[part]}) == 1 for part in parts)
