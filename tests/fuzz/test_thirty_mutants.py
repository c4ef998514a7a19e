"""A campaign of a thousand: `python tests/fuzz/run.py --count 1000 --jobs 2`; here thirty, of fixed seeds."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from campaign import Batch, run_batch

SEEDS = (range(0, 15), range(15, 30))


@pytest.fixture(scope="module")
def batches(sound: Path) -> list[Batch]:
    """The mutants in two runs of classify, side by side."""

    def run(seeds: Sequence[int]) -> Batch:
        return run_batch(seeds, sound.parent / f"batch-{seeds[0]}", sound)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, SEEDS))


def test_nothing_is_found_with_thirty_mutants(batches: list[Batch]) -> None:
    for batch in batches:
        named = {mutant.seed: f"{mutant.base} {mutant.mutation}: {mutant.change.what}" for mutant in batch.mutants}
        assert [(one, named.get(one.seed or -1)) for one in batch.findings] == []


def test_some_are_done_and_some_are_not(batches: list[Batch]) -> None:
    """Mutants that are all refused, or all answered, would test little."""
    statuses = [one.row["status"] for batch in batches for mutant in batch.mutants for one in batch.of(mutant)]
    assert statuses.count("done") > 3 and statuses.count("failed") > 3
