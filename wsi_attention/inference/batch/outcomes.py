"""Hand jobs to a runner; count their outcomes, write them to the results folder and report them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from typing import Any

from wsi_attention.errors import ClusterError, ResultsError
from wsi_attention.inference.batch.job import Job, Outcome, reason_of
from wsi_attention.inference.batch.listener import Listener, News
from wsi_attention.inference.batch.runners import Runner
from wsi_attention.inference.batch.summary import Report
from wsi_attention.inference.results.folder import Results
from wsi_attention.inference.results.state import State
from wsi_attention.structures import warning_in

Running = dict[Future[Any], Job]
"""What is under way, or done and not yet taken."""


class BatchRun:
    """The jobs under way, and their outcomes.

    Args:
        folder: where states are written.
        report: where outcomes are counted.
        listener: is told of each slide that is done.

    Attributes:
        told: names of the slides that are done, or were kept.
    """

    def __init__(self, folder: Results, report: Report, listener: Listener) -> None:
        self._folder = folder
        self._report = report
        self._listener = listener
        self._running: Running = {}
        self._finished: Running = {}
        self._alone: list[Job] = []
        self.told: list[str] = []

    def run(self, jobs: Iterable[Job], runner: Runner, kept: Iterable[str] = ()) -> None:
        """Do all jobs; those that ended their worker come last, one by one. On Ctrl-C, jobs in flight are given up.

        Args:
            jobs: what is to do; the next is asked for when it can begin.
            runner: does it.
            kept: names of slides whose finished result stands.
        """
        try:
            for name in kept:
                state = self._folder.states[name]
                self._keep(state)
                self.told.append(name)
                self._tell(state, kept=True)
            self._run(iter(jobs), runner)
            while self._alone:
                self._run(iter([self._alone.pop(0)]), runner)
        except KeyboardInterrupt:
            self._report.interrupted = True
            self._note_finished()
            self._take_finished(runner)
        finally:
            for future in self._running:
                future.cancel()
            self._report.threads_left |= runner.end(bool(self._running), self._report.interrupted)

    def _run(self, jobs: Iterator[Job], runner: Runner) -> None:
        self._start(jobs, runner)
        while self._running:
            wait(self._running, timeout=1.0, return_when=FIRST_COMPLETED)
            self._note_finished()
            self._start(jobs, runner)  # first, so that no worker waits until what it has done is written
            self._take_finished(runner)
            runner.check()

    def _start(self, jobs: Iterator[Job], runner: Runner) -> None:
        for job in islice(jobs, max(0, runner.window - len(self._running))):
            self._running[runner.start(job)] = job

    def _note_finished(self) -> None:
        for future in [future for future in self._running if future.done()]:
            self._finished[future] = self._running.pop(future)

    def _take_finished(self, runner: Runner) -> None:
        while self._finished:
            future, job = self._finished.popitem()
            outcome = _outcome(future, job, runner)
            if outcome is None:
                self._alone.append(job)
            else:
                self._take(outcome, job)

    def _take(self, outcome: Outcome, job: Job) -> None:
        report, name = self._report, job.name
        report.threads_left |= outcome.left_behind
        report.counters += outcome.counters
        if report.clocks is not None and outcome.clock is not None:
            report.clocks.append(outcome.clock)
        if outcome.error is not None:
            raise outcome.error
        earlier = self._folder.states.get(name)
        if outcome.state is None and earlier is not None:
            if outcome.key is not None:
                self._folder.renew(name, outcome.key, job.slide.key)
            self._keep(earlier)
        elif outcome.state is not None:
            self._take_new(outcome.state, earlier, outcome.why)
        self.told.append(name)
        told = outcome.state or earlier
        if told is not None:
            self._tell(told, kept=outcome.state is None)

    def _tell(self, state: State, *, kept: bool) -> None:
        statuses = self._report.statuses
        self._listener.slide(News(state, kept, statuses.total(), statuses["failed"], self._report.total))

    def _keep(self, earlier: State) -> None:
        self._report.kept += 1
        self._count(earlier)

    def _take_new(self, state: State, earlier: State | None, why: str) -> None:
        if state.finished or not _still_holds(earlier, state):
            self._folder.add(state)
            if why:
                self._report.again.append((state.name, why))
        self._count(state)
        if not state.finished:
            kept = " (the earlier result is kept)" if _still_holds(earlier, state) else ""
            self._report.failures.append((state.name, state.reason + kept))

    def _count(self, state: State) -> None:
        self._report.statuses[state.status] += 1
        if state.status == "no_tissue":
            self._report.empty.append((state.name, state.reason))
            return
        notes = state.row.get("notes", "")
        warning = warning_in(notes)
        self._report.warnings.update([warning] if warning else [])
        if notes.removeprefix(warning):
            self._report.noted.append((state.name, notes.removeprefix(warning).removeprefix("; ")))


def _still_holds(earlier: State | None, now: State) -> bool:
    """Return whether a finished result is kept despite a failure: the slide is the same, or cannot be opened now."""
    if earlier is None or not earlier.finished:
        return False
    return earlier.slide.difference(now.slide) is None if now.slide.seen else earlier.slide.mpp == now.slide.mpp


def _outcome(future: Future[Any], job: Job, runner: Runner) -> Outcome | None:
    try:
        return runner.take(future, job)
    except (ClusterError, ResultsError):
        raise
    except Exception as error:  # the worker itself died, or could not be reached
        return Outcome(job.name, job.failed(reason_of(error)))
