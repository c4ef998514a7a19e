"""Who does the jobs of a batch: the protocol, threads of this process, and any executor of `concurrent.futures`.

Worker processes of this machine are in `isolation.pool`, the workers of a dask cluster in `cluster.runner`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Semaphore
from typing import Any, Protocol, runtime_checkable

from wsi_attention.checkpoint import Classifier
from wsi_attention.devices import Precision, Used, device_of, gpus_named, placed
from wsi_attention.errors import InputError
from wsi_attention.inference.batch.job import Job, Outcome, classify_slide
from wsi_attention.inference.batch.wishes import check_positive
from wsi_attention.inference.engine import used_on
from wsi_attention.inference.isolation.pool import Processes


@runtime_checkable
class Runner(Protocol):
    """Does jobs, here or elsewhere: it is prepared once, then jobs are started and their outcomes taken."""

    @property
    def name(self) -> str:
        """The name for messages and the record of a run; empty where the jobs are done on this machine."""
        ...

    @property
    def window(self) -> int:
        """How many jobs to have in flight now."""
        ...

    def prepare(
        self, classifier: Classifier, results: Path, device: str, precision: Precision, slide: str | None = None
    ) -> tuple[str, Used]:
        """Bring the model to where jobs are done; return the device and the precision that they are computed in.

        Args:
            classifier: the model.
            results: the results folder, or the folder that stands for it while the run lasts.
            device: as in `batch.classify`.
            precision: likewise.
            slide: the path of one of the slides, where slides lie on this machine's disks.

        Raises:
            WsiAttentionError: the jobs cannot be done there.
        """
        ...

    def start(self, job: Job) -> Future[Any]:
        """Start a job."""
        ...

    def take(self, future: Future[Any], job: Job) -> Outcome | None:
        """Return the outcome of a future that is done; None: start the job once more, with no other job in flight.

        Raises:
            Exception: whatever kept the job from having an outcome.
        """
        ...

    def check(self) -> None:
        """Look after the jobs in flight; called about once a second.

        Raises:
            WsiAttentionError: no further job can be done.
        """
        ...

    def end(self, running: bool, interrupted: bool) -> bool:
        """Take no more jobs; return whether threads of this process may still be running."""
        ...


class ExecutorRunner:
    """Does jobs in any executor of `concurrent.futures`; whoever made the executor closes it.

    Args:
        executor: its workers must see the results folder.
        workers: how many workers it has.
    """

    name = ""

    def __init__(self, executor: Executor, workers: int) -> None:
        self._executor = executor
        self.window = workers + 1

    def prepare(
        self, classifier: Classifier, results: Path, device: str, precision: Precision, slide: str | None = None
    ) -> tuple[str, Used]:
        """Place the model on the device.

        Raises:
            InputError: no such device or precision.
        """
        where = device_of(device)
        used, _ = used_on(classifier, where, precision)
        placed(classifier.model, where)
        return str(where), used

    def start(self, job: Job) -> Future[Outcome]:
        """Start a job."""
        return self._executor.submit(classify_slide, job, nullcontext())

    def take(self, future: Future[Outcome], job: Job) -> Outcome | None:
        """Return the outcome of a future that is done."""
        return future.result()

    def check(self) -> None:
        """Do nothing: an executor looks after itself."""

    def end(self, running: bool, interrupted: bool) -> bool:
        """Return whether jobs are left behind."""
        return running


class Threads(ExecutorRunner):
    """Does jobs in threads of this process: `workers` forward passes at a time, one more slide being opened."""

    def __init__(self, workers: int) -> None:
        super().__init__(ThreadPoolExecutor(workers + 1, thread_name_prefix="classify"), workers)
        self._turn = Semaphore(workers)

    def start(self, job: Job) -> Future[Outcome]:
        """Start a job."""
        return self._executor.submit(classify_slide, job, self._turn)

    def end(self, running: bool, interrupted: bool) -> bool:
        """Wait for the threads, except after Ctrl-C; return whether jobs are left behind."""
        self._executor.shutdown(wait=not interrupted, cancel_futures=True)
        return running


@contextmanager
def runner_for(
    given: Runner | None, workers: int, in_process: bool, gpus: str | Sequence[int] = (), device: str = "auto"
) -> Iterator[Runner]:
    """Yield the given runner, else worker processes of this machine, or threads of this process where asked for.

    Args:
        given: a runner, or None.
        workers: slides side by side; on each GPU where several are named.
        in_process: whether threads of this process do the slides.
        gpus: as in `devices.gpus_named`; none named where empty.
        device: as in `batch.classify`.

    Raises:
        InputError: what was given is no runner, there are fewer than one worker, or GPUs were named that are not here
            or whose choice is not this machine's worker processes'.
    """
    check_positive(workers=workers)
    if gpus and (given is not None or in_process):
        raise InputError("gpus are for worker processes of this machine; a cluster, executor or in_process has its own")
    if given is None and not in_process:
        with Processes(workers, gpus_named(gpus, device) if gpus else ()) as own:
            yield own
    elif given is None or isinstance(given, Runner):
        yield given or Threads(workers)
    else:
        raise InputError(
            f"executor: expected a Runner, found {type(given).__name__}; wrap an executor of concurrent.futures as"
            " ExecutorRunner(executor, workers)"
        )
