"""Ranges that were fetched a moment ago, and which of them are worth fetching together."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path

import pytest

from wsi_attention.slide.readers.bytes import Range, gap_within, merged
from wsi_attention.slide.readers.remote.cache import Slot
from wsi_attention.slide.readers.remote.recent import LARGEST_KEPT, Recent


def test_ranges_used_longest_ago_leave() -> None:
    recent = Recent(limit=250)
    recent.put("a", {(0, 100): bytes(100), (100, 100): bytes(100)})
    assert recent.get("a", [(0, 100)]) == {(0, 100): bytes(100)}
    recent.put("b", {(0, 100): b"x" * 100})
    assert recent.get("a", [(0, 100), (100, 100), (0, 50)]) == {(0, 100): bytes(100)}
    assert recent.get("b", [(0, 100)]) == {(0, 100): b"x" * 100}


def test_a_range_put_again_counts_once_and_a_large_one_is_not_kept() -> None:
    recent = Recent(limit=2 * LARGEST_KEPT)
    for _ in range(5):
        recent.put("a", {(0, LARGEST_KEPT): bytes(LARGEST_KEPT)})
    recent.put("a", {(0, 10): bytes(10), (5, LARGEST_KEPT + 1): bytes(LARGEST_KEPT + 1)})
    assert set(recent.get("a", [(0, 10), (0, LARGEST_KEPT), (5, LARGEST_KEPT + 1)])) == {(0, 10), (0, LARGEST_KEPT)}


@pytest.mark.parametrize("seed", range(20))
def test_no_other_choice_of_gaps_makes_fewer_requests_for_the_bytes(seed: int) -> None:
    rng = random.Random(seed)
    starts = sorted(rng.sample(range(0, 2000, 20), 8))
    ranges: list[Range] = [(start, rng.randrange(1, 20)) for start in starts]
    spare, most = rng.randrange(0, 900), rng.choice([100, 10_000])
    spans = list(merged(ranges, gap_within(ranges, spare, most), 10**9))
    between = [ranges[i + 1][0] - sum(ranges[i]) for i in range(7)]
    allowed = [i for i in range(7) if between[i] <= most]
    affordable = [n for n in range(8) for gaps in combinations(allowed, n) if sum(between[i] for i in gaps) <= spare]
    extra = sum(count for _, count in spans) - sum(count for _, count in ranges)
    assert extra <= spare
    assert len(spans) >= 8 - max(affordable)
    widest = sorted(between[i] for i in allowed)
    tied = len(set(widest)) < len(widest)  # gaps of one width are joined all or none
    assert tied or len(spans) == 8 - max(affordable)


def test_overlapping_ranges_have_no_gap() -> None:
    assert gap_within([(0, 100), (10, 10), (90, 20), (115, 5)], 4, 100) == 0
    assert gap_within([(0, 100), (10, 10), (90, 20), (115, 5)], 5, 100) == 5


def test_a_kept_range_answers_for_those_inside_it(tmp_path: Path) -> None:
    Slot(tmp_path / "slot").put((100, 50), bytes(range(50)))
    Slot(tmp_path / "slot").put((120, 5), bytes(range(20, 25)))
    slot = Slot(tmp_path / "slot")
    assert slot.get((100, 50)) == bytes(range(50))
    assert slot.get((121, 20)) == bytes(range(21, 41))
    assert slot.get((149, 2)) is None and slot.get((99, 5)) is None
