"""The time limit of a slide."""

from __future__ import annotations

import threading
import time

import pytest

from wsi_attention.inference.batch.time_limit import TimeLimit, TimeLimitError


def test_results_and_errors_come_through() -> None:
    limit = TimeLimit(5, "x.svs")
    assert limit.run(lambda: 42) == 42
    with pytest.raises(MemoryError):
        limit.run(_out_of_memory)
    assert not limit.left_behind


def test_there_may_be_no_limit() -> None:
    assert TimeLimit(float("inf"), "x.svs").run(lambda: 42) == 42


def test_a_step_that_hangs_is_left_behind() -> None:
    release = threading.Event()
    limit = TimeLimit(0.05, "x.svs")
    with pytest.raises(TimeLimitError, match=r"x\.svs: not finished after 0\.05 s"):
        limit.run(release.wait)
    release.set()
    assert limit.left_behind


def test_steps_share_the_time_and_waiting_between_them_is_free() -> None:
    limit = TimeLimit(0.3, "x.svs")
    limit.run(lambda: time.sleep(0.05))
    time.sleep(0.3)
    limit.run(lambda: time.sleep(0.05))
    with pytest.raises(TimeLimitError):
        limit.run(lambda: time.sleep(0.5))
    assert 0.3 <= limit.spent < 0.5


def _out_of_memory() -> None:
    raise MemoryError
