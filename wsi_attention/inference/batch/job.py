"""One slide of a batch, from its path to temporary export files and a `State`; what runs in a worker."""

from __future__ import annotations

import traceback
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from wsi_attention.checkpoint import Classifier
from wsi_attention.errors import NoTissueError, ResultsError, WsiAttentionError
from wsi_attention.export.chosen import options_of
from wsi_attention.export.patients import deciding_figures
from wsi_attention.export.record import to_record
from wsi_attention.export.table import figures
from wsi_attention.inference.batch.discovery import SlideFile
from wsi_attention.inference.batch.patient_subject import OfPatient
from wsi_attention.inference.batch.subjects import OfBag, OfSlide, Subject
from wsi_attention.inference.batch.time_limit import TimeLimit
from wsi_attention.inference.batch.wishes import Wishes
from wsi_attention.inference.pictures import write_unfinished
from wsi_attention.inference.results.state import RunKey, SlideKey, State
from wsi_attention.plain_text import visible
from wsi_attention.protocols import Exporter
from wsi_attention.slide.urls import masked
from wsi_attention.structures import Counters, Prediction
from wsi_attention.timing import Clock, spent_on, timed

LONGEST_REASON = 400


@dataclass(frozen=True)
class Settings:
    """What all slides of a batch share.

    Attributes:
        classifier: the model.
        results: the results folder.
        run: what all results in that folder have in common.
        wishes: what is wanted of every slide, with the device and the precision that are really used.
        threads: torch's number of threads, the same for every slide, because the last digits depend on it.
    """

    classifier: Classifier
    results: Path
    run: RunKey
    wishes: Wishes
    threads: int = 1


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

    def failed(self, reason: str, seconds: float = 0.0, trace: str | None = None) -> State:
        """Return the state of a slide whose worker could not say what became of it."""
        slide, key = self.slide, SlideKey(mpp=self.slide.mpp)
        state = State(self.name, slide.key, "failed", reason, self.settings.run, key, image=slide.image)
        return replace(state, seconds=seconds, traceback=trace, patient=slide.patient)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job.

    Attributes:
        name: the slide's name in the results folder.
        state: to be written; None where the earlier result still holds, or the results folder failed.
        error: the results folder cannot be written, so no further slide can be done.
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


def classify_slide(job: Job, turn: AbstractContextManager[object]) -> Outcome:
    """Do one slide within its time limit; whatever goes wrong with it becomes a state, not an exception.

    Opening the slide, finding its tissue and exporting happen outside `turn`, so that they overlap with another slide's
    forward pass. Exports get temporary names; whoever writes the state publishes them.
    """
    if not job.settings.wishes.profile:
        return _outcome(job, turn)
    with timed() as clock:
        outcome = _outcome(job, turn)
    return replace(outcome, clock=clock)


def _outcome(job: Job, turn: AbstractContextManager[object]) -> Outcome:
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
        self.wishes = job.settings.wishes
        self.limit = TimeLimit(self.wishes.limit, masked(job.slide.path))
        self.key = SlideKey(mpp=job.slide.mpp)
        self.why = job.why
        self.counters = Counters()
        self._subject = subject_of(job.slide, job.settings.classifier, self.wishes)

    def run(self, turn: AbstractContextManager[object]) -> State | None:
        self.key = self.limit.run(self._subject.open)
        if self.job.finished is not None:
            self.why = self.job.finished.difference(self.key) or ""
            if not self.why:
                return None
        self.limit.run(self._subject.prepare)
        with turn:
            prediction = self.limit.run(self._look)
        self.counters = prediction.counters
        return self.limit.run(partial(self._finish, prediction))

    def close(self) -> None:
        if not self.limit.left_behind:  # a thread left behind may still be reading
            self._subject.close()

    def failure(self, error: Exception) -> State:
        status = "no_tissue" if isinstance(error, NoTissueError) else "failed"
        trace = None if status == "no_tissue" else "".join(traceback.format_exception(error))
        reason = reason_of(error).removeprefix(f"{masked(self.job.slide.path)}: ")
        return replace(self._state(status, reason), traceback=trace)

    def _look(self) -> Prediction:
        torch.set_num_threads(self.job.settings.threads)
        found = self._subject.look()
        return replace(found, patient=self.job.slide.patient or "")

    @spent_on("export")
    def _finish(self, prediction: Prediction) -> State:
        exports = tuple(self._export(exporter, prediction) for exporter in self.wishes.what)
        made = zip(exports, map(options_of, self.wishes.what), strict=True)
        options = {export: text for export, text in made if text}
        state = self._state(prediction.status, "; ".join(prediction.shortfalls))
        row = figures(prediction) | deciding_figures(prediction)
        return replace(state, row=row, exports=exports, options=options, record=to_record(prediction))

    def _export(self, exporter: Exporter, prediction: Prediction) -> str:
        relative = exporter.suffix.format(slide=self.job.name)
        path = self.job.settings.results / relative
        write_unfinished(
            exporter, prediction, path, slide_name=lambda: self.job.name, **self._subject.pictures(prediction)
        )
        return relative

    def _state(self, status: str, reason: str) -> State:
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
            patient=job.slide.patient,
        )


def subject_of(given: SlideFile, classifier: Classifier, wishes: Wishes) -> Subject:
    """Return what a job looks at."""
    kind = OfBag if given.is_bag else OfPatient if given.beside else OfSlide
    return kind(given, classifier, wishes)


def reason_of(error: BaseException) -> str:
    """Return an error as one line for a table, with its type where it is not one of this package's own errors."""
    text = visible(" ".join(str(error).split()))
    if not isinstance(error, WsiAttentionError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 1]}…"
