"""Who does the jobs of a batch: threads here, or any executor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Semaphore
from typing import Any, Protocol

from wsi_attention.checkpoint import Classifier
from wsi_attention.devices import Precision, Used, device_of, placed, precision_on
from wsi_attention.inference.batch.discovery import SlideFile
from wsi_attention.inference.batch.job import Job, Outcome, classify_slide
from wsi_attention.inference.cluster.runner import Cluster
from wsi_attention.inference.isolation.pool import Processes

Place = Executor | Cluster | Processes | None


class Runner(Protocol):
    """Starts jobs and gives their outcomes."""

    @property
    def window(self) -> int:
        """How many jobs to have in flight now."""
        ...

    def start(self, job: Job) -> Future[Any]:
        """Begins a job."""
        ...

    def take(self, future: Future[Any], job: Job) -> Outcome | None:
        """The outcome of a future that is done; None: to be started once more, with no other job in flight.

        Raises:
            Exception: whatever kept the job from having an outcome.
        """
        ...

    def check(self) -> None:
        """Called about once a second while jobs are in flight.

        Raises:
            WsiAttentionError: no further job can be done.
        """
        ...

    def end(self, running: bool, interrupted: bool) -> bool:
        """No more jobs; whether threads of this process may still be running."""
        ...


class Elsewhere:
    """Any executor of `concurrent.futures`; whoever made it closes it."""

    def __init__(self, executor: Executor, workers: int) -> None:
        self._executor = executor
        self.window = workers + 1

    def start(self, job: Job) -> Future[Outcome]:
        """Begins a job."""
        return self._executor.submit(classify_slide, job, nullcontext())

    def take(self, future: Future[Outcome], job: Job) -> Outcome | None:
        """The outcome of a future that is done."""
        return future.result()

    def check(self) -> None:
        """Nothing to check."""

    def end(self, running: bool, interrupted: bool) -> bool:
        """Whether jobs are left behind."""
        return running


class Threads(Elsewhere):
    """Threads of this process: `workers` forward passes at a time, one more slide being opened meanwhile."""

    def __init__(self, workers: int) -> None:
        super().__init__(ThreadPoolExecutor(workers + 1, thread_name_prefix="classify"), workers)
        self._turn = Semaphore(workers)

    def start(self, job: Job) -> Future[Outcome]:
        """Begins a job."""
        return self._executor.submit(classify_slide, job, self._turn)

    def end(self, running: bool, interrupted: bool) -> bool:
        """Waits for the threads, after Ctrl-C not."""
        self._executor.shutdown(wait=not interrupted, cancel_futures=True)
        return running


@contextmanager
def place_for(executor: Executor | Cluster | None, workers: int, in_process: bool) -> Iterator[Place]:
    """Where the jobs are done: what was given, else worker processes, or threads of this process where asked for."""
    if executor is not None or in_process:
        yield executor
        return
    with Processes(workers) as own:
        yield own


def runner_of(executor: Place, workers: int) -> Runner:
    """What does the jobs: a cluster, worker processes, an executor, or threads here where there is none of them."""
    if isinstance(executor, Cluster | Processes):
        return executor
    return Elsewhere(executor, workers) if executor else Threads(workers)


def place_of(
    executor: Place,
    classifier: Classifier,
    results: Path,
    device: str,
    precision: Precision,
    slides: Sequence[SlideFile],
) -> tuple[str, Used]:
    """The device and precision to compute in, the model brought there; a cluster's workers choose the device.

    Raises:
        InputError: no such device or precision.
        ClusterError: the workers cannot do it.
    """
    if isinstance(executor, Processes):
        return executor.prepare(classifier, results, device, precision)
    if isinstance(executor, Cluster):
        seen_here = next((slide.key for slide in slides if Path(slide.key).exists()), None)
        return device, executor.prepare(classifier, results, device, precision, seen_here)
    where = device_of(device)
    used = precision_on(where, precision)
    placed(classifier.model, where)
    return str(where), used
