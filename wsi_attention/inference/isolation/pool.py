"""Slides done in worker processes of this machine, one slide a process: what takes a process down costs one slide."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import RLock, Thread
from types import TracebackType
from typing import Self

import torch

from wsi_attention.checkpoint import Classifier, read_config
from wsi_attention.devices import Precision, Used
from wsi_attention.errors import ClusterError, InputError
from wsi_attention.files import remove, temporary
from wsi_attention.inference.batch.job import Job, Outcome
from wsi_attention.inference.cluster.worker import ModelSource, handed, task_of
from wsi_attention.inference.engine import used_on
from wsi_attention.inference.isolation import nursery
from wsi_attention.inference.isolation.last_words import Ending
from wsi_attention.inference.isolation.worker import Ask, Log, Over, Ready, Refusal, Setup, Turn
from wsi_attention.protocols import Exporter

GRACE = 5.0
"""Seconds over its limit after which a slide's process is killed; until then the process may give the slide up."""
STARTS = 3
"""How many workers in a row may die while they start."""


@dataclass(frozen=True)
class _Lost:
    """The end of a worker process, in place of an outcome.

    Attributes:
        ending: how it ended.
        started: whether it had begun the job.
        seconds: spent on the job.
        doom: why it was ended from here; empty where it died by itself.
        refused: whether it said itself that it cannot work.
    """

    ending: Ending
    started: bool
    seconds: float
    doom: str
    refused: bool


@dataclass(eq=False)
class _Worker:
    """A worker process and its current job.

    Attributes:
        process: the process.
        device: where it computes.
        started: takes its answer to `Setup`.
        ready: whether it has answered.
        job: what it does, and `future` takes the outcome.
        began: when it was given the job.
        waited: seconds that the job has waited for its turn.
        asked: since when it waits for its turn.
        computing: whether it has its turn.
        doom: why it is ended from here; empty as long as it is not.
    """

    process: nursery.Worker
    device: str
    started: SimpleQueue[Ready | Refusal | Ending] = field(default_factory=SimpleQueue)
    ready: bool = False
    job: Job | None = None
    future: Future[Outcome | _Lost] = field(default_factory=Future)
    began: float = 0.0
    waited: float = 0.0
    asked: float | None = None
    computing: bool = False
    doom: str = ""
    thread: Thread | None = None

    def spent(self) -> float:
        """Return seconds spent on the job, waiting for its turn left out."""
        now = time.monotonic()
        return now - self.began - self.waited - (now - self.asked if self.asked is not None else 0.0)


class Processes:
    """Does the jobs of a batch: `workers` of its processes compute at a time, one more opens a slide meanwhile.

    With several GPUs each has as many processes, and every process stays on its own GPU.

    A process does one slide at a time, so it is known which slide took it down: that slide is done once more, alone,
    and fails if it does so again. One that is over its time limit is ended from outside if need be.
    """

    name = ""

    def __init__(self, workers: int, devices: Sequence[str] = ()) -> None:
        """Start nothing yet.

        Args:
            workers: processes that compute at a time, on each device.
            devices: names of several devices; the one that `prepare` is given where empty.
        """
        self._devices = tuple(devices)
        self.window = (workers + 1) * max(1, len(self._devices))
        self._lock = RLock()
        self._workers: list[_Worker] = []
        self._asking: deque[_Worker] = deque()
        self._turns, self._computing = workers, Counter[str]()
        self._failed_starts = 0
        self._blamed: set[str] = set()
        self._setup: Setup | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(nursery.prepared())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.end(False, False)
        finally:
            self._stack.close()

    def prepare(
        self, classifier: Classifier, results: Path, device: str, precision: Precision, slide: str | None = None
    ) -> tuple[str, Used]:
        """Return the device and precision that the processes will compute in; where there are GPUs, a process is asked.

        Raises:
            InputError: there is no such device or precision.
            ModelError: the model cannot be handed to another process, or not be loaded there.
            ClusterError: no process can be started here.
        """
        source = ModelSource.of(classifier)
        changed = classifier.folder is None or read_config(classifier.folder) != classifier.config
        self._devices = self._devices or (device,)
        self._setup = Setup(
            path=tuple(map(str, sys.path)),
            environment=dict(os.environ),
            folder=str(Path.cwd()),
            model=source,
            handed=handed(classifier) if changed else None,
            device="",
            precision=precision,
            threads=torch.get_num_threads(),
            processes=self._turns * len(self._devices),
            results=results,
        )
        if self._devices == ("cpu",) or (self._devices == ("auto",) and not torch.cuda.is_available()):
            return "cpu", used_on(classifier, torch.device("cpu"), precision)[0]
        answers = [self._answer(worker) for worker in [self._new() for _ in self._devices]]
        used: set[Used] = {answer.precision for answer in answers}
        return ",".join(answer.device for answer in answers), used.pop() if len(used) == 1 else "32"

    def _answer(self, worker: _Worker) -> Ready:
        """Return what a new process says of its device; errors as in `prepare`."""
        try:
            answer = worker.started.get(timeout=nursery.START)
        except Empty:
            raise ClusterError(f"no worker process has started within {nursery.START:g} s; {nursery.WAY_OUT}") from None
        if isinstance(answer, Refusal):
            raise answer.error
        if isinstance(answer, Ending):
            raise ClusterError(f"no worker process can be started here: {answer.describe()}; {nursery.WAY_OUT}")
        return answer

    def start(self, job: Job) -> Future[Outcome | _Lost]:
        """Give a job to a process that is free, or to a new one.

        Raises:
            InputError: an exporter cannot be handed to another process.
        """
        check_handed(job.settings.wishes.what)
        with self._lock:
            free = next((one for one in self._workers if one.job is None and not one.doom), None)
            worker = free or self._new()
            worker.job, worker.future = job, Future()
            worker.future.set_running_or_notify_cancel()
            if worker.ready:
                self._send_task(worker)
            return worker.future

    def take(self, future: Future[Outcome | _Lost], job: Job) -> Outcome | None:
        """Return the outcome of a job that is done; None after the first time that a process died of it.

        Raises:
            ClusterError: no further process can be started.
        """
        found = future.result()
        if isinstance(found, _Lost) and not found.started:
            self._count_failed_start(found)
            return None
        self._failed_starts = 0
        if isinstance(found, Outcome):
            return found
        if found.doom:
            return _failure(job, found.doom, found)
        if job.name in self._blamed:
            return _failure(job, f"{found.ending.describe()}, twice; {found.ending.advise()}", found)
        self._blamed.add(job.name)
        return None

    def check(self) -> None:
        """End processes whose slide is over its time limit and that do not give it up themselves."""
        for worker in self._workers[:]:
            with self._lock:
                job = worker.job
                late = job is not None and worker.ready and worker.spent() > job.settings.wishes.limit + GRACE
            if job is not None and late:
                where = Ending(words=worker.process.traced()).where()
                with self._lock:
                    if worker.job is job:
                        worker.doom = (
                            f"not finished after {job.settings.wishes.limit:g} s{where}, and only the end of its"
                            " process could stop it; give it more with --limit"
                        )
                        worker.process.kill()

    def end(self, running: bool, interrupted: bool) -> bool:
        """End all processes; nothing is left behind."""
        for worker in self._workers[:]:
            worker.process.kill()
            if worker.thread is not None:
                worker.thread.join()
        return False

    def _new(self) -> _Worker:
        load = Counter(worker.device for worker in self._workers)
        worker = _Worker(nursery.new_worker(), min(self._devices, key=load.__getitem__))
        worker.thread = Thread(target=self._listen, args=(worker,), name="worker process", daemon=True)
        self._workers.append(worker)
        worker.thread.start()
        return worker

    def _listen(self, worker: _Worker) -> None:
        channel = worker.process.channel
        try:
            assert self._setup is not None
            channel.send(replace(self._setup, device=worker.device))
            while True:
                self._hear(worker, channel.receive())
        except (EOFError, OSError):
            pass
        except Exception as error:  # such as an outcome that cannot be unpickled
            worker.doom = f"what its worker process sent is not understood ({type(error).__name__}: {error})"
        worker.process.kill()
        ending = worker.process.ended()
        channel.close()
        self._lose(worker, ending)

    def _hear(self, worker: _Worker, message: object) -> None:
        with self._lock:
            if isinstance(message, Ready):
                worker.ready = True
                worker.started.put(message)
                if worker.job is not None:
                    self._send_task(worker)
            elif isinstance(message, Refusal):
                worker.doom = str(message.error)
                worker.started.put(message)
            elif isinstance(message, Ask):
                worker.asked = time.monotonic()
                self._asking.append(worker)
                self._grant()
            elif isinstance(message, Over):
                self._take_turn_back(worker)
            elif isinstance(message, Log):
                logging.getLogger(message.name).log(message.level, "%s", message.text)
            elif isinstance(message, Outcome):
                self._finish(worker, message)

    def _send_task(self, worker: _Worker) -> None:
        assert worker.job is not None and self._setup is not None
        worker.began, worker.waited, worker.asked = time.monotonic(), 0.0, None
        worker.process.forget_words()
        with suppress(OSError):  # it has just died, of which its thread hears
            worker.process.channel.send(task_of(worker.job, self._setup.model))

    def _grant(self) -> None:
        for worker in [*self._asking]:
            if self._computing[worker.device] >= self._turns:
                continue
            self._asking.remove(worker)
            self._computing[worker.device] += 1
            worker.computing = True
            worker.waited += time.monotonic() - (worker.asked or 0.0)
            worker.asked = None
            with suppress(OSError):
                worker.process.channel.send(Turn())

    def _take_turn_back(self, worker: _Worker) -> None:
        if worker.computing:
            worker.computing = False
            self._computing[worker.device] -= 1
            self._grant()

    def _finish(self, worker: _Worker, outcome: Outcome) -> None:
        worker.job, future = None, worker.future
        if outcome.left_behind:  # a thread of it still runs, which only the end of the process stops
            worker.doom = "a thread is left behind"
            worker.process.kill()
        future.set_result(replace(outcome, left_behind=False))

    def _lose(self, worker: _Worker, ending: Ending) -> None:
        with self._lock:
            self._workers.remove(worker)
            if worker in self._asking:
                self._asking.remove(worker)
            self._take_turn_back(worker)
            worker.started.put(ending)
            job, worker.job = worker.job, None
            refused = bool(worker.doom) and not worker.ready
            lost = _Lost(ending, worker.ready, worker.spent() if worker.ready else 0.0, worker.doom, refused)
        if job is not None:
            _remove_unfinished(job)
            worker.future.set_result(lost)

    def _count_failed_start(self, lost: _Lost) -> None:
        self._failed_starts += 1
        if lost.refused or self._failed_starts >= STARTS:
            told = lost.doom or lost.ending.describe()
            raise ClusterError(f"no further worker process can be started: {told}; {nursery.WAY_OUT}")


def check_handed(exporters: Iterable[Exporter]) -> None:
    """Raise InputError unless all exporters can be handed to worker processes, which do not import the caller's script.

    Raises:
        InputError: one cannot; the text names it.
    """
    for exporter in exporters:
        problem = "its class is defined in the script itself" if type(exporter).__module__ == "__main__" else ""
        try:
            ForkingPickler.dumps(exporter)
        except Exception as error:  # whatever it holds
            problem = f"{type(error).__name__}: {error}"
        if problem:
            raise InputError(
                f"exporter {type(exporter).__name__} cannot be handed to a worker process ({problem}); define it at the"
                " top level of a module that can be imported, or do the slides in this process (in_process=True)"
            )


def _failure(job: Job, reason: str, lost: _Lost) -> Outcome:
    return Outcome(job.name, job.failed(reason, lost.seconds, lost.ending.words or None))


def _remove_unfinished(job: Job) -> None:
    for exporter in job.settings.wishes.what:
        with suppress(OSError):
            remove(temporary(job.settings.results / exporter.suffix.format(slide=job.name)))
