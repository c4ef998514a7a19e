"""One slide of a batch, from its path to temporary export files and a `State`; what runs in a worker."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_attention import registry
from wsi_attention.checkpoint import Classifier
from wsi_attention.devices import Precision
from wsi_attention.errors import InputError, NoTissueError, ResultsError, SlideError, WsiAttentionError
from wsi_attention.export.record import to_record
from wsi_attention.export.table import prediction_row
from wsi_attention.files import remove, results_errors, temporary
from wsi_attention.inference.batch.discovery import SlideFile
from wsi_attention.inference.pictures import picture_downsample, pixels_for, shown_tiles
from wsi_attention.inference.predict import USUAL, Effort, look, overview_of, prepare
from wsi_attention.inference.results.slide_key import first_look, second_look
from wsi_attention.inference.results.state import RunKey, SlideKey, State
from wsi_attention.plain_text import visible
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.slide.tissue import load_mask
from wsi_attention.slide.urls import masked
from wsi_attention.structures import Counters, Prediction
from wsi_attention.tiles.source import SlideSource
from wsi_attention.timing import Clock, spent_on, timed

LONGEST_REASON = 400


@dataclass(frozen=True)
class Settings:
    """What all slides of a batch share; arguments as in `batch.classify`.

    `threads` is torch's number of threads, the same wherever a slide lands, because the last digits depend on it.
    """

    classifier: Classifier
    results: Path
    run: RunKey
    what: tuple[str, ...]
    device: str = "cpu"
    precision: Precision = "auto"
    batch: int = 32
    limit: float = 1800.0
    threads: int = 1
    effort: Effort = USUAL
    profile: bool = False
    snap: bool = True
    full_hash: bool = False


@dataclass(frozen=True)
class Job:
    """One slide to do.

    Attributes:
        slide: what to do.
        name: its name in the results folder.
        settings: what all slides share.
        finished: the key of its finished earlier result, if everything wanted is there.
        why: why its finished earlier result is not enough; empty where there is none, or where `finished` decides.
    """

    slide: SlideFile
    name: str
    settings: Settings
    finished: SlideKey | None = None
    why: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        name: the slide's name in the results folder.
        state: to be written; None where the earlier result still holds, or the results folder failed.
        error: the results folder cannot be written: no further slide makes sense.
        left_behind: whether a thread of this slide may still be running.
        counters: what reading cost.
        clock: where the time went, if that was asked for.
        key: what the result depends on, where the slide was opened.
        why: why a finished earlier result is not kept.
    """

    name: str
    state: State | None = None
    error: ResultsError | None = None
    left_behind: bool = False
    counters: Counters = field(default_factory=Counters)
    clock: Clock | None = None
    key: SlideKey | None = None
    why: str = ""


def classify_slide(job: Job, turn: AbstractContextManager[Any]) -> Outcome:
    """Does one slide within its time limit; whatever goes wrong with it is a state, not an exception.

    Opening the slide, finding its tissue and exporting happen outside `turn`, so that they overlap with another slide's
    forward pass. Exports get temporary names; whoever writes the state publishes them.
    """
    if not job.settings.profile:
        return _outcome(job, turn)
    with timed() as clock:
        outcome = _outcome(job, turn)
    return replace(outcome, clock=clock)


def _outcome(job: Job, turn: AbstractContextManager[Any]) -> Outcome:
    work = _Work(job)
    try:
        done = work.run(turn)
        left, key = work.limit.left_behind, work.key
        return Outcome(job.name, done, left_behind=left, counters=work.counters, key=key, why=work.why)
    except ResultsError as error:
        return Outcome(job.name, error=error, left_behind=work.limit.left_behind)
    except Exception as error:  # one slide's failure, even out of memory, touches no other
        return Outcome(job.name, work.failure(error), left_behind=work.limit.left_behind, why=work.why)
    finally:
        work.close()


class _Work:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.limit = TimeLimit(job.settings.limit, masked(job.slide.path))
        self.key = SlideKey(mpp=job.slide.mpp)
        self.why = job.why
        self.counters = Counters()
        self._slide: Slide | None = None

    def run(self, turn: AbstractContextManager[Any]) -> State | None:
        slide, self.key = self.limit.run(self._open)
        if self.job.finished is not None:
            self.why = self.job.finished.difference(self.key) or ""
            if not self.why:
                return None
        source = self.limit.run(partial(self._prepare, slide))
        with turn:
            prediction = self.limit.run(partial(self._look, slide, source))
        self.counters = prediction.counters
        return self.limit.run(partial(self._finish, prediction, source))

    def close(self) -> None:
        if self._slide is not None and not self.limit.left_behind:  # a thread left behind may still be reading
            self._slide.close()

    def failure(self, error: Exception) -> State:
        status = "no_tissue" if isinstance(error, NoTissueError) else "failed"
        trace = None if status == "no_tissue" else "".join(traceback.format_exception(error))
        reason = reason_of(error).removeprefix(f"{masked(self.job.slide.path)}: ")
        return self._state(status, reason, traceback=trace)

    @spent_on("open")
    def _open(self) -> tuple[Slide, SlideKey]:
        given = self.job.slide
        first = first_look(given)
        self._slide = slide = open_slide(given.path, mpp=given.mpp, options={"series": given.series})
        return slide, second_look(first, slide, given.path, self.job.settings.full_hash)

    @spent_on("overview")
    def _prepare(self, slide: Slide) -> SlideSource:
        mask = self.job.slide.mask
        tissue = load_mask(mask, slide.dimensions, slide.facts.bounds) if mask else None
        settings = self.job.settings
        return prepare(slide, settings.classifier, tissue=tissue, batch=settings.batch, snap=settings.snap)

    def _look(self, slide: Slide, source: SlideSource) -> Prediction:
        settings = self.job.settings
        torch.set_num_threads(settings.threads)
        return look(
            slide,
            source,
            settings.classifier,
            device=settings.device,
            precision=settings.precision,
            effort=settings.effort,
        )

    @spent_on("export")
    def _finish(self, prediction: Prediction, source: SlideSource) -> State:
        exports = tuple(self._export(name, prediction, source) for name in self.job.settings.what)
        return self._state(
            prediction.status,
            "; ".join(prediction.shortfalls),
            row=prediction_row(prediction),
            exports=exports,
            record=to_record(prediction),
        )

    def _export(self, what: str, prediction: Prediction, source: SlideSource) -> str:
        exporter = exporter_of(what)
        relative = str(exporter.suffix.format(slide=self.job.name))
        final = self.job.settings.results / relative
        path = temporary(final)
        with results_errors(final):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove(path)
            overview, tiles = partial(self._picture, prediction, source), partial(shown_tiles, source.slide, prediction)
            exporter(prediction, path, **pixels_for(exporter, overview=overview, tiles=tiles))
        return relative

    def _picture(self, prediction: Prediction, source: SlideSource) -> NDArray[np.uint8]:
        try:
            return source.overview_rgb(picture_downsample(source.slide, prediction))
        except SlideError:  # what the model saw could be read, a finer level for the picture alone need not be
            return overview_of(source, self.job.settings.classifier)

    def _state(self, status: str, reason: str, **more: Any) -> State:
        job = self.job
        return State(
            job.name,
            job.slide.key,
            status,
            reason,
            job.settings.run,
            self.key,
            seconds=self.limit.spent,
            image=job.slide.image,
            **more,
        )


def reason_of(error: BaseException) -> str:
    """An error as one line for a table; its type too where nobody raised it on purpose."""
    text = visible(" ".join(str(error).split()))
    if not isinstance(error, WsiAttentionError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 1]}…"


def exporter_of(name: str) -> Any:
    """The exporter registered under a name.

    Raises:
        InputError: there is none; the text lists those there are. Or its files would lie outside the results folder.
    """
    exporter = registry.load(registry.EXPORTERS, name)()
    parts = Path(exporter.suffix).parts
    if "{slide}" not in exporter.suffix or len(parts) < 2 or ".." in parts or Path(exporter.suffix).is_absolute():
        raise InputError(f"exporter {name!r} writes to {exporter.suffix!r}; it must be a path like kind/{{slide}}.json")
    return exporter


T = TypeVar("T")


class TimeLimitError(SlideError, TimeoutError):
    """A slide took longer than it was given; its thread was left behind."""


class TimeLimit:
    """Seconds that several steps share; only time inside `run` counts, so waiting for one's turn is free.

    Attributes:
        seconds: what was given.
        name: whose limit this is, for the message.
        spent: seconds used so far.
        left_behind: whether a step ran out of time; its thread may still be running.
    """

    def __init__(self, seconds: float, name: str) -> None:
        self.seconds = seconds
        self.name = name
        self.spent = 0.0
        self.left_behind = False

    def run(self, step: Callable[[], T]) -> T:
        """The step's result, or the exception it raised.

        The step runs in a daemon thread, because nothing can stop a C library that loops; whatever it still does after
        the limit must therefore be harmless (it may write temporary files, never a finished one).

        Raises:
            TimeLimitError: the step was not finished when the shared seconds were used up.
        """
        call = _Call(step)
        start = time.monotonic()
        thread = threading.Thread(target=copy_context().run, args=(call,), daemon=True, name="slide")
        thread.start()
        thread.join(min(max(0.0, self.seconds - self.spent), threading.TIMEOUT_MAX))
        self.spent += time.monotonic() - start
        if thread.is_alive():
            self.left_behind = True
            raise TimeLimitError(f"{self.name}: not finished after {self.seconds:g} s; give it more with --limit")
        return call.result()


class _Call(Generic[T]):
    def __init__(self, step: Callable[[], T]) -> None:
        self._step = step
        self._values: list[T] = []
        self._error: BaseException | None = None

    def __call__(self) -> None:
        try:
            self._values.append(self._step())
        except BaseException as error:
            self._error = error

    def result(self) -> T:
        if self._error is not None and not isinstance(self._error, Exception):
            raise SlideError(f"a library wanted to end the program ({self._error!r})") from self._error
        if self._error is not None:
            raise self._error
        return self._values[0]
