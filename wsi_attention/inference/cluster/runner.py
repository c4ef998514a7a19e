"""Slides done by the workers of a dask cluster, and the worker processes of a cluster of our own."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypedDict
from uuid import uuid4

from wsi_attention import __version__
from wsi_attention.checkpoint import Classifier, read_config
from wsi_attention.devices import Precision, Used
from wsi_attention.errors import ClusterError, InputError, ModelError, SlideError
from wsi_attention.files import KEPT
from wsi_attention.inference.batch.job import Job, Outcome
from wsi_attention.inference.cluster import worker as remote

if TYPE_CHECKING:
    from distributed import Client, KilledWorker, SpecCluster

    from wsi_attention.inference.cluster.worker_plugin import ModelPlugin

GPU = "GPU"
"""The resource that workers with a GPU declare: dask worker --resources GPU=1."""
ANSWER = 120.0
"""Seconds a worker has to describe itself; the first import of torch from a network disk is slow."""
REFRESH = 2.0
"""Seconds between two requests for the list of workers."""


class _Worker(TypedDict):
    """What a scheduler says of a worker, as far as it is used here."""

    nthreads: int
    resources: dict[str, float]


class Cluster:
    """The workers behind a scheduler; `open_cluster` yields one, `batch.classify` takes it as `executor`.

    Where workers declare the resource GPU, those without it are not used, and each GPU does one slide at a time.
    """

    def __init__(self, client: Client, name: str, expected: int = 1, patience: float = 60.0) -> None:
        """Take a connected client.

        Args:
            client: of `distributed`.
            name: for messages and the run's record.
            expected: workers to wait for before the first slide.
            patience: seconds to wait for them, and without any worker later.
        """
        self.name = name
        self._client = client
        self._expected = expected
        self._patience = patience
        self._model: remote.ModelSource | None = None
        self._results = Path()
        self._resources: dict[str, float] = {}
        self._slots = 1
        self._same_place = True
        self._seen = self._looked = time.monotonic()
        self._blamed: dict[str, int] = {}
        self._plugin: ModelPlugin | None = None

    def prepare(
        self, classifier: Classifier, results: Path, device: str, precision: Precision, slide: str | None = None
    ) -> tuple[str, Used]:
        """Look at all workers and bring them the model; return the device as given and the precision they compute in.

        Args:
            classifier: loaded from a folder.
            results: the results folder, which only this process writes.
            device: as in `batch.classify`, on each worker.
            precision: likewise.
            slide: a path that workers must see.

        Raises:
            ClusterError: no workers, or they cannot do the work; the text names one and says why.
            ModelError: the model has no folder.
        """
        if classifier.folder is None:
            raise ModelError(
                f"model {classifier.name} has no folder, so it cannot go to another process; save it first"
            )
        if read_config(classifier.folder) != classifier.config:
            raise ModelError(
                f"model {classifier.name} was changed after it was loaded (such as by draws), and the workers read its"
                f" folder {classifier.folder}; save the changed model first"
            )
        self._model = remote.ModelSource.of(classifier)
        self._results = results
        self._wait_for_workers(device)
        found = self._survey(device, precision, slide)
        if any(one.missing_model for one in found.values()):
            self._carry_model()
            found = self._survey(device, precision, slide)
        self._same_place = all(one.folder == str(Path.cwd()) for one in found.values())
        return device, _agreed(found, slide)

    @property
    def window(self) -> int:
        """A slide for each thread or GPU; none waits at a worker, where another slide could take it down."""
        return self._slots

    def start(self, job: Job) -> Future[remote.Parcel]:
        """Send a job to a worker."""
        assert self._model is not None
        if not self._same_place:
            slide, mask = job.slide, job.slide.mask
            there = replace(slide, path=slide.key, mask=mask and str(Path(mask).absolute()))
            job = replace(job, slide=there)
        pool = self._client.get_executor(pure=False, resources=self._resources or None)
        future: Future[remote.Parcel] = pool.submit(
            remote.run, remote.task_of(job, self._model), key=f"classify-{job.name}-{uuid4().hex}"
        )
        return future

    def take(self, future: Future[remote.Parcel], job: Job) -> Outcome | None:
        """Return the outcome, its exports written under temporary names; None after the first death of workers on it.

        Raises:
            SlideError: workers died of it again.
            ClusterError: the scheduler is gone.
        """
        from distributed import KilledWorker

        try:
            return future.result().unpack(self._results)
        except KilledWorker as error:
            self._blame(job, error)
            return None
        except CancelledError as error:
            raise ClusterError(f"{self.name}: the scheduler is gone; {KEPT}") from error

    def check(self) -> None:
        """Raise ClusterError unless the scheduler and workers are still there, and count them.

        Raises:
            ClusterError: they are not.
        """
        if time.monotonic() - self._looked < REFRESH:
            return
        if self._client.status != "running":
            raise ClusterError(f"{self.name}: the scheduler is gone; {KEPT}")
        self._count()
        if time.monotonic() - self._seen > self._patience:
            raise ClusterError(f"{self.name}: no worker for {self._patience:g} s; {KEPT}")

    def end(self, running: bool, interrupted: bool) -> bool:
        """Take the model back from the workers; no thread of this process is left behind."""
        if self._plugin is not None:
            with suppress(Exception):  # the scheduler may be gone
                self._client.unregister_worker_plugin(self._plugin.name)
        return False

    def _wait_for_workers(self, device: str) -> None:
        with suppress(TimeoutError):
            self._client.wait_for_workers(self._expected, timeout=self._patience)
        if not self._count():
            raise ClusterError(
                f"{self.name} has no workers after {self._patience:g} s; start some with:"
                " dask worker ADDRESS --nthreads 1"
            )
        gpus = {where: worker["resources"].get(GPU, 0) for where, worker in self._workers().items()}
        if device.startswith("cpu") or not any(gpus.values()):
            return
        crowded = [where for where, number in gpus.items() if number > 1]
        if crowded:
            raise ClusterError(
                f"worker {crowded[0]} has {GPU}={gpus[crowded[0]]:g}: start a worker for each, such as"
                f" CUDA_VISIBLE_DEVICES=0 dask worker … --nworkers 1 --resources {GPU}=1"
            )
        self._resources = {GPU: 1}

    def _workers(self) -> dict[str, _Worker]:
        """Return what the scheduler says of each worker that may be used, by address.

        Asks the scheduler itself: the answer of `Client.scheduler_info` can be overwritten by the client's own refresh,
        which asks for no workers.
        """
        scheduler = self._client.scheduler
        try:
            asked = self._client.sync(scheduler.identity, n_workers=-1) if scheduler else {}
        except OSError:  # the connection is being lost; `check` tells for good
            return {}
        workers: dict[str, _Worker] = asked.get("workers", {})
        return {
            where: worker for where, worker in workers.items() if self._resources.keys() <= worker["resources"].keys()
        }

    def _count(self) -> int:
        workers = self._workers().values()
        self._looked = time.monotonic()
        self._seen = self._looked if workers else self._seen
        self._slots = max(1, sum(1 if self._resources else worker["nthreads"] for worker in workers))
        return len(workers)

    def _survey(self, device: str, precision: Precision, slide: str | None) -> dict[str, remote.Survey]:
        self._count()
        asked = (self._model, device, precision, slide)
        futures = {
            where: self._client.get_executor(pure=False, workers=[where]).submit(remote.survey, *asked, priority=10)
            for where in self._workers()
        }
        wait(futures.values(), timeout=ANSWER)
        found = {where: _answer(future) for where, future in futures.items() if future.done()}
        if not found:
            raise ClusterError(
                f"{self.name}: none of {len(futures)} workers answered within {ANSWER:g} s; they are busy, or"
                " paused, as workers are that use 80 % of the memory they were given"
            )
        return found

    def _carry_model(self) -> None:
        assert self._model is not None
        from wsi_attention.inference.cluster.worker_plugin import ModelPlugin

        self._plugin = ModelPlugin(self._model.key, self._model.files())
        self._client.register_plugin(self._plugin)

    def _blame(self, job: Job, error: KilledWorker) -> None:
        again = job.name in self._blamed
        times = self._blamed[job.name] = self._blamed.get(job.name, 0) + error.allowed_failures + 1
        if again:
            raise SlideError(
                f"its worker died {times} times, last {error.last_worker.address}: out of memory, or a library crashed"
                " on the file; see the worker's log"
            ) from error


def _answer(future: Future[remote.Survey]) -> remote.Survey:
    try:
        return future.result()
    except Exception as error:  # most likely the package is missing there, or too different
        return remote.Survey("", "", error=f"{type(error).__name__}: {error}; is wsi-attention {__version__} there?")


def _agreed(found: Mapping[str, remote.Survey], slide: str | None) -> Used:
    """Return the precision of all workers.

    Raises:
        ClusterError: one cannot work, or they differ; results must not depend on where a slide lands.
    """
    for where, one in found.items():
        here = f"worker {where}" + (f" on {one.host}" if one.host else "")
        if one.error:
            raise ClusterError(f"{here} cannot work: {one.error}")
        if one.version != __version__:
            raise ClusterError(f"{here} has wsi-attention {one.version}, this is {__version__}; install the same")
        if one.missing_model:
            raise ClusterError(f"{here} cannot load the model: {one.missing_model}")
        if one.missing_slide:
            raise ClusterError(
                f"{here} does not see {slide}; slides must have the same path on all workers, or be URLs"
            )
    computed = {one.precision: f"{where} on {one.host}" for where, one in found.items()}
    if len(computed) > 1:
        told = ", ".join(f"{precision} on {where}" for precision, where in sorted(computed.items()))
        raise ClusterError(f"the workers would not compute alike ({told}); give --precision 32")
    return next(iter(computed))


TIMEOUT = 10.0
"""Seconds to reach a scheduler."""
DEATHS = 1
"""How many workers may die of a slide before it is set aside, in our own clusters; the default of dask is 3."""


KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": None}
"""A setting that dask must not pass to workers: to hand back every freed block at once makes an overview three times
as expensive."""


@contextmanager
def own_scheduler() -> Iterator[None]:
    """Let a new scheduler give up on a slide after few deaths, wait for workers that start slowly, and let
    its workers keep memory that they will need again."""
    import dask

    wishes = {
        "distributed.scheduler.allowed-failures": DEATHS,
        "distributed.deploy.lost-worker-timeout": "10 minutes",
        **{f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in KEEP_MEMORY.items()},
    }
    with dask.config.set(wishes):
        yield


QUIET = {
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.worker.profile.enabled": False,
}
"""What local processes do less of than dask's own do: watching themselves takes 4 % of a core each, for pages that
nobody opens."""


@contextmanager
def local_workers(number: int, device: str = "auto") -> Iterator[SpecCluster]:
    """Yield a `distributed` cluster of processes on this machine; each does one slide at a time.

    Raises:
        InputError: fewer than one, or more than there are GPUs.
    """
    from dask import config
    from distributed import Nanny, Scheduler, SpecCluster

    options = {name: _worker_options(name, visible) for name, visible in enumerate(_visible(number, device))}
    listening = {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    with (
        TemporaryDirectory(prefix="wsi-attention-", ignore_cleanup_errors=True) as folder,
        own_scheduler(),
        config.set(QUIET),
    ):
        workers = {name: {"cls": Nanny, "options": one | {"local_directory": folder}} for name, one in options.items()}
        try:
            cluster = SpecCluster(workers=workers, scheduler={"cls": Scheduler, "options": listening})
        except RuntimeError as error:
            raise ClusterError(
                "the worker processes did not start; a script that starts them needs the line"
                f" if __name__ == '__main__': ({error})"
            ) from error
        try:
            yield cluster
        finally:
            _stop(cluster)


def _stop(cluster: SpecCluster) -> None:
    """End a cluster without waiting for its workers: nobody needs what they still do.

    On a machine that is very busy the scheduler may not answer in time; the work is done then, and it ends with us.
    """

    async def stop() -> None:
        await asyncio.gather(*(nanny.close(timeout=1) for nanny in cluster.workers.values()), return_exceptions=True)

    cluster.sync(stop)
    with suppress(TimeoutError):
        cluster.close(timeout=TIMEOUT)


def _worker_options(name: int, visible: str | None) -> dict[str, object]:
    """Return options of a `Nanny`; no limit on memory, because a slide needs no more here than in one process."""
    options: dict[str, object] = {"name": name, "nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    options["preload"] = ["wsi_attention.inference.cluster.worker_plugin"]
    if visible is not None:
        options |= {"resources": {GPU: 1}, "env": {"CUDA_VISIBLE_DEVICES": visible}}
    return options


def _visible(number: int, device: str) -> list[str | None]:
    """Return CUDA_VISIBLE_DEVICES of each worker; None without GPUs."""
    import torch

    if number < 1:
        raise InputError(f"--local-cluster needs at least one worker, got {number}")
    cards = 0 if device.startswith("cpu") else torch.cuda.device_count()
    if not cards:
        return [None] * number
    if number > cards:
        raise InputError(
            f"--local-cluster {number}: {cards} GPU here, a worker needs its own; give {cards}, or --device cpu"
        )
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [*(named.split(",") if named else map(str, range(cards)))][:number]
