"""The clock: kinds add up, inner work counts once, threads with the context take part, nothing happens without it."""

from __future__ import annotations

import pickle
import threading
import time
from contextvars import copy_context

import pytest

from wsi_attention.timing import KINDS, spent_on, timed


def test_inner_work_counts_once_and_all_adds_up() -> None:
    start = time.perf_counter()
    with timed() as clock:
        with spent_on("attention"):
            time.sleep(0.02)
            with spent_on("read"):
                time.sleep(0.04)
        time.sleep(0.01)
    passed = time.perf_counter() - start
    assert sum(clock.seconds.values()) == pytest.approx(passed, abs=2e-3)
    assert clock.seconds["read"] >= 0.04
    assert 0.02 <= clock.seconds["attention"] < clock.seconds["read"] + 0.02
    assert clock.seconds["waiting"] >= 0.01
    assert tuple(clock.seconds) == KINDS


def test_busy_times_are_joined_and_leave_waiting_out() -> None:
    with timed() as clock:
        for kind in ("open", "read"):
            with spent_on("attention"), spent_on(kind):  # type: ignore[arg-type]
                time.sleep(0.01)
            time.sleep(0.01)
    assert len(clock.busy) == 2
    total = sum(end - start for start, end in clock.busy)
    assert total == pytest.approx(sum(clock.seconds.values()) - clock.seconds["waiting"], abs=1e-4)
    assert abs(clock.busy[0][0] - time.time()) < 60, "seconds since the epoch"


def test_an_error_ends_the_work() -> None:
    with timed() as clock:
        with pytest.raises(ZeroDivisionError), spent_on("encode"):
            1 / 0  # noqa: B018
        time.sleep(0.01)
    assert clock.seconds["encode"] < 0.01 <= clock.seconds["waiting"]


def test_without_a_clock_nothing_is_kept() -> None:
    with spent_on("read"):
        pass
    with timed() as clock:
        pass
    with spent_on("read"):
        time.sleep(0.01)
    assert clock.seconds["read"] == 0.0


def test_a_thread_takes_part_with_the_context_and_no_longer_than_it_lasts() -> None:
    def read() -> None:
        with spent_on("read"):
            time.sleep(0.02)

    with timed() as clock:
        for target in (copy_context().run, lambda work: work()):
            thread = threading.Thread(target=target, args=(read,))
            thread.start()
            thread.join()
        late = copy_context()
    assert 0.02 <= clock.seconds["read"] < 0.04, "the second thread has no clock"
    before = dict(clock.seconds)
    late.run(read)
    assert clock.seconds == before


def test_a_clock_travels() -> None:
    with timed() as clock, spent_on("open"):
        time.sleep(0.001)
    there = pickle.loads(pickle.dumps(clock))  # our own bytes
    assert (there.seconds, there.busy) == (clock.seconds, clock.busy)


def test_off_it_costs_next_to_nothing() -> None:
    rounds = 2000
    start = time.perf_counter()
    for _ in range(rounds):
        with spent_on("read"):
            pass
    assert (time.perf_counter() - start) / rounds < 1e-4, "a slide has a few dozen of them"
