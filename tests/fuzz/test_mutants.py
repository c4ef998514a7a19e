"""A campaign of a thousand: `python tests/fuzz/run.py --count 1000 --jobs 2`; here twelve or thirty, of fixed seeds."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from campaign import Batch, run_batch


@pytest.fixture(scope="module", params=[6, pytest.param(30, marks=pytest.mark.slow)])
def batches(sound: Path, request: pytest.FixtureRequest) -> list[Batch]:
    """So many mutants in two runs of classify, side by side."""
    half = request.param // 2

    def run(seeds: Sequence[int]) -> Batch:
        return run_batch(seeds, sound.parent / f"batch-{seeds[0]}-{len(seeds)}", sound)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, (range(half), range(half, 2 * half))))


def test_nothing_is_found_in_mutants(batches: list[Batch]) -> None:
    for batch in batches:
        named = {mutant.seed: f"{mutant.base} {mutant.mutation}: {mutant.change.what}" for mutant in batch.mutants}
        assert [(one, named.get(one.seed or -1)) for one in batch.findings] == []


def test_some_are_done_and_some_are_not(batches: list[Batch]) -> None:
    """Mutants that are all refused, or all answered, would test little."""
    statuses = [one.row["status"] for batch in batches for mutant in batch.mutants for one in batch.of(mutant)]
    least = len(statuses) // 10
    assert statuses.count("done") > least and statuses.count("failed") > least
