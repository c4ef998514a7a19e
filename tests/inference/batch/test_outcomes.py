"""The order in which slides begin and results are written."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from wsi_attention.inference.batch.job import Outcome
from wsi_attention.inference.batch.outcomes import BatchRun
from wsi_attention.structures import Counters


class Instant:
    """A runner whose jobs are done as soon as they begin; it notes what is asked of it."""

    window = 1

    def __init__(self, interrupted_at: str = "") -> None:
        self.noted: list[str] = []
        self._interrupted_at = interrupted_at

    def start(self, job: Any) -> Future[Any]:
        if job.name == self._interrupted_at:
            raise KeyboardInterrupt
        self.noted.append(f"begin {job.name}")
        future: Future[Any] = Future()
        future.set_result(job.name)
        return future

    def take(self, future: Future[Any], job: Any) -> Outcome:
        self.noted.append(f"write {job.name}")
        return Outcome(job.name)

    def check(self) -> None:
        """Do nothing."""

    def end(self, running: bool, interrupted: bool) -> bool:
        self.noted.append("interrupted" if interrupted else "end")
        return False


def order(runner: Instant) -> list[str]:
    report = SimpleNamespace(
        threads_left=False, counters=Counters(), clocks=None, statuses=Counter[str](), total=3, interrupted=False
    )
    batch: Any = BatchRun(SimpleNamespace(states={}), report, None)  # type: ignore[arg-type]
    batch.run([SimpleNamespace(name=name) for name in "abc"], runner)
    assert batch.told == [one.removeprefix("write ") for one in runner.noted if one.startswith("write")]
    return runner.noted


def test_the_next_slide_begins_before_the_result_of_the_one_before_is_written() -> None:
    assert order(Instant()) == ["begin a", "begin b", "write a", "begin c", "write b", "write c", "end"]


def test_what_is_done_is_written_where_a_run_is_interrupted_as_the_next_slide_begins() -> None:
    assert order(Instant("c")) == ["begin a", "begin b", "write a", "write b", "interrupted"]
