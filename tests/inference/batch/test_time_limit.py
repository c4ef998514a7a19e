"""The time limit of a slide."""

from __future__ import annotations

import gc
import threading
import time
from weakref import ref

import pytest

from wsi_attention.inference.batch import step_threads
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


def test_steps_share_a_thread_until_one_is_left_behind() -> None:
    limit, late, release = TimeLimit(5, "x.svs"), TimeLimit(0.05, "x.svs"), threading.Event()
    first = limit.run(threading.current_thread)
    assert limit.run(threading.current_thread) is first is not threading.current_thread()
    assert first.daemon
    with pytest.raises(TimeLimitError):
        late.run(release.wait)
    other = limit.run(threading.current_thread)
    assert other is not first and first.is_alive()
    release.set()
    first.join(5)
    assert not first.is_alive() and limit.run(threading.current_thread) is other


def test_steps_at_the_same_time_have_threads_of_their_own() -> None:
    both = threading.Barrier(2)
    found: list[threading.Thread] = []

    def meet() -> None:
        both.wait(5)
        found.append(threading.current_thread())

    callers = [threading.Thread(target=TimeLimit(5, "x.svs").run, args=(meet,)) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(set(found)) == 2


def test_a_thread_ends_that_has_had_nothing_to_do_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_threads, "IDLE", 0.05)
    monkeypatch.setattr(step_threads, "_FREE", step_threads._Free())
    thread = TimeLimit(5, "x.svs").run(threading.current_thread)
    thread.join(5)
    assert not thread.is_alive()
    assert TimeLimit(5, "x.svs").run(threading.current_thread) is not thread


def test_nothing_of_a_step_is_held_on_to() -> None:
    class Result:
        pass

    found = TimeLimit(5, "x.svs").run(Result)
    gone = ref(found)
    del found
    gc.collect()
    assert gone() is None


def _out_of_memory() -> None:
    raise MemoryError
