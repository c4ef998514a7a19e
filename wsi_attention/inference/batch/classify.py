"""Many slides over an executor: each one alone, the folder resumable at any moment, the same bytes for any order."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from wsi_attention.checkpoint import Classifier
from wsi_attention.devices import Precision, Used
from wsi_attention.errors import InputError, ResultsError
from wsi_attention.inference.batch.discovery import SlideFile, with_mpp, with_series
from wsi_attention.inference.batch.job import Job, Settings, exporter_of
from wsi_attention.inference.batch.names import assign_names, identity
from wsi_attention.inference.batch.outcomes import BatchRun, Watch
from wsi_attention.inference.batch.runners import place_for, place_of, runner_of
from wsi_attention.inference.batch.slides_csv import gather_slides
from wsi_attention.inference.batch.summary import Report
from wsi_attention.inference.cluster.runner import Cluster
from wsi_attention.inference.predict import USUAL, Effort, versions
from wsi_attention.inference.results.folder import TABLE, Results, open_results
from wsi_attention.inference.results.mirror import workplace
from wsi_attention.inference.results.page import PAGE, part_of, write_page
from wsi_attention.inference.results.slide_key import first_look
from wsi_attention.inference.results.state import RunKey, State
from wsi_attention.slide.urls import is_url, masked

EXPORTS = ("geojson", "tiles", "heatmap", "heatmap-zarr", "report")
LIMIT = 1800.0
"""Seconds a slide may take."""


def classify(
    inputs: Sequence[str | Path],
    results: str | Path,
    classifier: Classifier,
    *,
    slides_csv: str | Path | None = None,
    mpp: float | None = None,
    series: str | None = None,
    workers: int = 1,
    batch: int = 32,
    device: str = "auto",
    precision: Precision = "auto",
    limit: float = LIMIT,
    exact: bool = False,
    tolerance: float | None = None,
    budget: int | None = None,
    unread: float | None = None,
    snap: bool = True,
    what: Sequence[str] = EXPORTS,
    existing: Literal["resume", "overwrite"] = "resume",
    executor: Executor | Cluster | None = None,
    in_process: bool = False,
    watch: Watch | None = None,
    profile: bool = False,
    full_hash: bool = False,
) -> Report:
    """Classifies slides into a results folder; a second call does only what is missing.

    Args:
        inputs: slides, folders of slides, URLs, slides CSVs.
        results: the results folder, created if need be; or a URL of fsspec that can be written, such as
            s3://. The run then works in a folder below WSI_ATTENTION_WORK, or below the system's temporary one.
        classifier: what `load_model` gives.
        slides_csv: slide[,mpp][,mask][,series]; then `inputs` are the folders its paths lie in.
        mpp: µm per level-0 pixel for all slides that the CSV gives none for.
        series: the number or name of the image that is the slide, likewise; needed where a file holds several.
        workers: slides computed side by side; one more is being opened meanwhile.
        batch: tiles read by one task.
        device: where the model computes; "auto" is the first GPU, else the CPU.
        precision: "32", "bf16" or "auto", as in `predict`.
        limit: seconds a slide may take before it counts as failed.
        exact, tolerance, budget, unread, snap: as in `predict`; results of different wishes do not lie in one folder.
        what: exporters to run, by registered name.
        existing: "resume", or "overwrite" to remove the results of earlier runs first.
        executor: runs the slides elsewhere: what `cluster.open_cluster` gives, whose workers need not see the results
            folder, or any executor whose workers do; worker processes of this machine where None.
        in_process: does the slides in threads of this process instead: no second process holds the model, but a
            library that crashes on a slide takes the caller with it.
        watch: is told of each slide that is done.
        profile: measures where the time goes, for `Report.profile` and the record of the run.
        full_hash: hash slides whole, however large, so that no change of a byte goes unnoticed; also when results are
            resumed. Files up to `own_files.SMALL` bytes always are.

    Raises:
        InputError: no slides, or an argument is wrong.
        ResultsError: the results folder cannot be written or holds something else; what is finished is kept.
        ClusterError: the workers cannot do it, or are gone; what is finished is kept.
    """
    start = time.monotonic()
    wishes = Effort(exact, tolerance, budget, unread)
    _check_positive(workers=workers, batch=batch, limit=limit)
    for name in what:
        exporter_of(name)
    wishes.check(classifier)
    with workplace(results) as (place, mirror), place_for(executor, workers, in_process) as where:
        found = gather_slides(inputs, slides_csv, outside=place)
        slides = with_series(with_mpp(found.slides, mpp), series)
        used = place_of(where, classifier, place, device, precision, slides)
        settings = _settings(classifier, place, what, used, batch, limit, wishes, wishes.snaps(snap))
        settings = replace(settings, profile=profile, full_hash=full_hash)
        report = Report(
            mirror.url if mirror else place, len(slides), others=found.others, clocks=[] if profile else None
        )
        report.skipped = found.results
        arguments = {
            "inputs": [masked(str(given)) for given in inputs],
            "slides_csv": slides_csv and str(slides_csv),
            "mpp": mpp,
            "series": series,
        }
        arguments |= {"workers": workers, "existing": existing}
        arguments |= {"cluster": executor.name} if isinstance(executor, Cluster) else {}
        with _interruptible(report), open_results(place, settings.run, existing, mirror) as folder:
            folder.clean(exporter_of(name).suffix.split("/")[0] for name in what)
            waiting, kept = _waiting(folder, slides, settings)
            report.gone = tuple(sorted(folder.states.keys() - waiting.keys() - {*kept}))
            jobs = (_job(folder, slide, name, settings) for name, slide in waiting.items())
            batch_run = BatchRun(folder, report, watch)
            try:
                batch_run.run(jobs, runner_of(where, workers), kept)
            except ResultsError:
                with suppress(ResultsError):  # rows of what is there, and of nothing else
                    for name in folder.lost(batch_run.told):
                        folder.states.pop(name)
                    folder.write_table()
                raise
            finally:
                report.seconds = time.monotonic() - start
            _check_all_there(folder, report, batch_run.told)
            folder.write_table()
            folder.write_run(_facts(report, settings, arguments))
            if "report" in what and not _page_is_current(folder):
                folder.fetch(part_of(Path(), name).as_posix() for name in folder.states)
                write_page(folder.folder)
            folder.finish()
    return report


@contextmanager
def _interruptible(report: Report) -> Iterator[None]:
    """Turns a Ctrl-C before the first slide or after the last into the same end as one in between."""
    try:
        yield
    except KeyboardInterrupt:
        report.interrupted = True


def _check_all_there(folder: Results, report: Report, names: Sequence[str]) -> None:
    """Turn finished slides whose files are not there into failures: somebody removed them while the run lasted."""
    failed = dict(report.failures)
    for name in folder.lost(names):
        state = folder.states[name]
        reason = "its files were removed while the run lasted; the same command does it again"
        folder.add(replace(state, status="failed", reason=failed.get(name, reason), row={}, exports=()))
        if name not in failed:
            report.failures.append((name, reason))
            report.statuses -= Counter([state.status])
            report.statuses["failed"] += 1


def _page_is_current(folder: Results) -> bool:
    """Whether report.html says what it would say now."""
    if folder.changed or not folder.holds(PAGE):
        return False
    page, table = folder.folder / PAGE, folder.folder / TABLE
    return not page.exists() or page.stat().st_mtime_ns >= table.stat().st_mtime_ns


def _waiting(
    folder: Results, slides: Sequence[SlideFile], settings: Settings
) -> tuple[dict[str, SlideFile], list[str]]:
    """Name -> slide of what is to do, and the names of slides that nobody has touched since they were finished."""
    own = [identity(slide.key, slide.image) for slide in slides]
    names = assign_names([(key, slide.place) for key, slide in zip(own, slides, strict=True)], folder.known())
    waiting, kept = {}, []
    for key, slide in zip(own, slides, strict=True):
        name = names[key]
        job = _job(folder, slide, name, settings)
        if job.finished is not None and _untouched(job, folder.states[name]):
            kept.append(name)
        else:
            waiting[name] = slide
    return waiting, kept


def _untouched(job: Job, earlier: State) -> bool:
    """Whether a slide's files alone, on this machine, say that its result stands."""
    if job.settings.full_hash or is_url(job.slide.path) or earlier.path != job.slide.key:
        return False
    try:
        return earlier.slide.untouched(first_look(job.slide))
    except InputError:  # the mask cannot be read, which is the slide's failure
        return False


def _job(folder: Results, slide: SlideFile, name: str, settings: Settings) -> Job:
    """What there is to do for a slide; made when it begins, because a key for each of thousands takes memory."""
    earlier = folder.states.get(name)
    if earlier is None or not earlier.finished:
        return Job(slide, name, settings)
    wanted = {what: exporter_of(what).suffix.format(slide=name) for what in settings.what}
    why = "" if earlier.status == "no_tissue" else _why_not_enough(folder, earlier, wanted)
    if earlier.run.settings.get("purpose") != settings.run.settings.get("purpose"):
        why = "its results do not say what the model is for"
    return Job(slide, name, settings, None if why else earlier.slide, why)


def _why_not_enough(folder: Results, earlier: State, wanted: Mapping[str, str]) -> str:
    """Which of the wanted exports a finished result lacks; empty if none."""
    new = [what for what, path in wanted.items() if path not in earlier.exports]
    if new:
        return f"--what asks for {', '.join(new)} as well"
    lost = [what for what, path in wanted.items() if not folder.holds(path)]
    return f"its files are gone: {', '.join(lost)}" if lost else ""


def run_key(classifier: Classifier, precision: str, effort: Effort = USUAL, snap: bool = True) -> RunKey:
    """What has to be the same for results to lie in one folder."""
    names = ("method", "options", "mpp", "mean", "std")
    settings = {name: classifier.config.get(name) for name in names}
    settings |= {"classes": list(classifier.classes), "precision": precision, "snap": snap, **effort.facts()}
    settings |= {"purpose": classifier.purpose} if classifier.purpose else {}
    return RunKey(classifier.name, classifier.weights_sha256, settings)


def _settings(
    classifier: Classifier,
    results: Path,
    what: Sequence[str],
    place: tuple[str, Used],
    batch: int,
    limit: float,
    effort: Effort,
    snap: bool,
) -> Settings:
    device, precision = place
    run, threads = run_key(classifier, precision, effort, snap), torch.get_num_threads()
    return Settings(classifier, results, run, tuple(what), device, precision, batch, limit, threads, effort, snap=snap)


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not value > 0:
            raise InputError(f"{name} must be above 0, got {value}")


def _facts(report: Report, settings: Settings, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "arguments": arguments
        | {"what": list(settings.what), "device": settings.device, "precision": settings.precision}
        | {
            "batch": settings.batch,
            "limit": settings.limit,
            "snap": settings.snap,
            "full_hash": settings.full_hash,
            **settings.effort.facts(),
        },
        "model": {
            "name": settings.run.model,
            "weights_sha256": settings.run.weights_sha256,
            "folder": str(settings.classifier.folder or ""),
        },
        "versions": versions(),
        "torch_threads": settings.threads,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(report.seconds, 3),
        "ended": "interrupted" if report.interrupted else "complete",
        "slides": report.total,
        "statuses": dict(report.statuses),
        "kept": report.kept,
        "done_again": dict(report.again),
        "not_asked_for": list(report.gone),
        "failures": dict(report.failures),
        "without_tissue": dict(report.empty),
        "other_files_skipped": list(report.others),
        "results_skipped": list(report.skipped),
        "counters": asdict(report.counters),
        **({"profile": report.profile.facts()} if report.profile else {}),
    }
