"""Many slides with one model: each slide by itself, a folder that can be resumed, the same bytes in any order."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from uuid import uuid4

import torch

from wsi_attention.checkpoint import Classifier, ClassifierLike, as_classifier
from wsi_attention.defaults import BATCH, EXPORTS, FEATURE_STORE_GB, LIMIT
from wsi_attention.devices import Precision
from wsi_attention.errors import InputError, ResultsError
from wsi_attention.export.chosen import exporters_of, name_of, options_of
from wsi_attention.export.report import ReportExporter
from wsi_attention.files import given_path, given_paths
from wsi_attention.inference.batch.discovery import Found, SlideFile, with_mpp, with_series
from wsi_attention.inference.batch.job import Job, Settings
from wsi_attention.inference.batch.listener import Listener, Silent, Watch, Watching
from wsi_attention.inference.batch.names import assign_names, identity
from wsi_attention.inference.batch.outcomes import BatchRun
from wsi_attention.inference.batch.patients import check_features, together
from wsi_attention.inference.batch.runners import Runner, runner_for
from wsi_attention.inference.batch.slides_csv import gather_slides
from wsi_attention.inference.batch.summary import Report
from wsi_attention.inference.batch.wishes import Wishes
from wsi_attention.inference.certify import level_of
from wsi_attention.inference.effort import USUAL, Effort
from wsi_attention.inference.engine import used_on
from wsi_attention.inference.predict import versions
from wsi_attention.inference.quantised import settings_of
from wsi_attention.inference.results.folder import TABLE, Results, open_results
from wsi_attention.inference.results.mirror import workplace
from wsi_attention.inference.results.page import PAGE, part_of, write_page
from wsi_attention.inference.results.slide_key import first_look
from wsi_attention.inference.results.state import CERTAINTY, CERTAINTY_DIGEST, RunKey, State
from wsi_attention.inference.stored_features import bags_alone, with_features
from wsi_attention.protocols import Exporter
from wsi_attention.slide.urls import is_url, masked

Existing = Literal["resume", "overwrite"]


def classify(
    inputs: str | Path | Iterable[str | Path] | None,
    results: str | Path,
    classifier: ClassifierLike,
    *,
    slides_csv: str | Path | None = None,
    mpp: float | None = None,
    series: str | None = None,
    workers: int = 1,
    batch: int = BATCH,
    device: str = "auto",
    gpus: str | Sequence[int] = (),
    precision: Precision = "auto",
    limit: float = LIMIT,
    exact: bool = False,
    tolerance: float | None = None,
    budget: int | None = None,
    unread: float | None = None,
    certify: bool | float | str | None = None,
    snap: bool = True,
    what: str | Exporter | Iterable[str | Exporter] = EXPORTS,
    existing: Existing = "resume",
    executor: Runner | None = None,
    in_process: bool = False,
    watch: Watch | None = None,
    profile: bool = False,
    full_hash: bool = False,
    feature_store: str | Path | None = None,
    feature_store_gb: float = FEATURE_STORE_GB,
    features: str | Path | None = None,
) -> Report:
    """Classify slides into a results folder; a second call does only what is missing.

    Args:
        inputs: slides, folders of slides, URLs, slides CSVs; one of them or any number. None for the files of
            `features` alone, whose slides are not at hand.
        results: the results folder, created if need be; or a URL of fsspec that can be written, such as s3://. The run
            then works in a folder below WSI_ATTENTION_WORK, or below the system's folder for temporary files.
        classifier: what `load_model` returns, or what it loads: a model folder or a shipped name.
        slides_csv: slide[,mpp][,mask][,series][,patient]; `inputs` are then the folders that its paths lie in.
        mpp: µm per level-0 pixel of all slides for which the CSV has none.
        series: the number or name of the image that is the slide, likewise; needed where a file holds several.
        workers: slides computed side by side; one more is being opened meanwhile.
        batch: tiles that one task reads.
        device: where the model computes; "auto" is the first GPU, else the CPU.
        gpus: several GPUs of this machine in place of `device`: "all", "0,1" or (0, 1); each does `workers` slides.
        precision: "32", "bf16", "openvino", "int8" or "auto", as in `predict`.
        limit: seconds a slide may take before it counts as failed.
        exact, tolerance, budget, unread, certify, snap: as in `predict`; results of different wishes do not lie in one
            folder.
        what: exporters to run, one or several: registered names, or exporters with options of their own, such as
            `GeoJSONExporter(top=10)`. Where an earlier run had other options, its slides are done again.
        existing: "resume", or "overwrite" to remove the results of earlier runs first.
        executor: does the slides elsewhere: what `open_cluster` yields, whose workers need not see the results folder,
            or any other `Runner`; worker processes of this machine where None.
        in_process: does the slides in threads of this process instead: no second process holds the model, but a
            library that crashes on a slide ends this process too.
        watch: is told of each slide that is done.
        profile: measures where the time goes, for `Report.profile` and the record of the run.
        full_hash: hashes slides whole, however large, so that no change of a byte goes unnoticed; also when results are
            resumed. Files up to `own_files.SMALL` bytes are always hashed whole.
        feature_store: folder that keeps what the encoder says of tiles, so that a later run, or another model with the
            same encoder, neither reads nor encodes them again; on a cluster, one that all workers see.
        feature_store_gb: limit of its size in GB; slides used longest ago leave first.
        features: a folder of TRIDENT, CLAM, STAMP or LazySlide with features of the slides' tiles by the model's
            encoder, which are then not read, see `predict`; slides without a file there are read. Without `inputs` each
            of its files is classified; exporters that show pixels are left out then.

    Returns:
        How many slides have which status, and why those failed that did.

    Raises:
        InputError: no slides, or an argument is wrong.
        ModelError: the model cannot be loaded.
        ResultsError: the results folder cannot be written or holds something else; what is finished is kept.
        ClusterError: the workers cannot do the work, or are gone; what is finished is kept.
    """
    effort = Effort(exact, tolerance, budget, unread, level_of(certify))
    kept = None if feature_store is None else str(given_path(feature_store, "feature_store", "a folder"))
    stored = None if features is None else str(given_path(features, "features", "a folder"))
    known = kept, feature_store_gb, stored
    wishes = Wishes(exporters_of(what), device, precision, batch, limit, effort, snap, profile, full_hash, *known)
    wanted = "a slide, folder or slides CSV, or several of them"
    given = () if inputs is None and features is not None else given_paths(inputs, "inputs", wanted)
    table = None if slides_csv is None else given_path(slides_csv, "slides_csv", "a CSV")
    order, place = Order(given, table, mpp, series, workers, existing), given_path(results, "results", "a folder")
    model = as_classifier(classifier)
    with runner_for(executor, workers, in_process, gpus, device) as runner:
        return run_batch(order, place, model, wishes, runner, Watching(watch) if watch else None)


@dataclass(frozen=True)
class Order:
    """The slides of a batch and how they are done; the arguments of `classify` with the same names."""

    inputs: tuple[str | Path, ...]
    slides_csv: str | Path | None = None
    mpp: float | None = None
    series: str | None = None
    workers: int = 1
    existing: Existing = "resume"

    def alone(self, wishes: Wishes) -> bool:
        """Return whether files of features are to be classified, without their slides.

        Raises:
            InputError: an image of a slide is asked for, and there are none.
        """
        if self.inputs or self.slides_csv is not None or wishes.features is None:
            return False
        if self.series is not None:
            raise InputError("series chooses an image of a slide, and there are features alone: give slides (-i)")
        return True

    def bags(self, features: str) -> Found:
        """Return the files of features in place of slides, with the mpp that was given for all of them."""
        return Found(with_mpp(bags_alone(features), self.mpp))

    def found(self, outside: Path) -> Found:
        """Return the slides, with the mpp and series that were given for all of them.

        Raises:
            InputError: no slides are given, or there are none.
        """
        if not self.inputs and self.slides_csv is None:
            raise InputError("no slides are given (-i), and no features of them (--features): give one, or both")
        found = gather_slides(self.inputs, self.slides_csv, outside=outside)
        return replace(found, slides=with_series(with_mpp(found.slides, self.mpp), self.series))

    def facts(self) -> dict[str, object]:
        """Return what the record of a run says of the order, without secrets."""
        inputs = [masked(str(given)) for given in self.inputs]
        return {**asdict(self), "inputs": inputs, "slides_csv": self.slides_csv and str(self.slides_csv)}


def run_batch(
    order: Order,
    results: str | Path,
    classifier: Classifier,
    wishes: Wishes,
    runner: Runner,
    listener: Listener | None = None,
) -> Report:
    """Do an order with a runner; `listener` is told how it goes, other arguments and errors as in `classify`."""
    start, listener = time.monotonic(), listener or Silent()
    wishes = wishes.checked(classifier)
    check_features(classifier, wishes)
    with workplace(results) as (place, mirror):
        listener.stage("looking for slides")
        found, wishes, left_out = to_do(order, wishes, classifier, place)
        listener.stage(f"{len(found.slides)} slides found; preparing the model")
        settings = _prepared(runner, classifier, place, wishes, found.slides)
        report = Report.of(found, mirror.url if mirror else place, wishes.profile)
        report.left_out = left_out
        with _interruptible(report), open_results(place, settings.run, order.existing, mirror) as folder:
            try:
                told = _do_jobs(folder, found.slides, settings, report, runner, listener)
            finally:
                report.seconds = time.monotonic() - start
            listener.stage("writing the table and the report")
            _check_all_there(folder, report, told)
            folder.write_table()
            folder.write_run(_facts(report, settings, order, runner))
            _write_page(folder, wishes)
            folder.finish()
    return report


def to_do(order: Order, wishes: Wishes, classifier: Classifier, place: Path) -> tuple[Found, Wishes, tuple[str, ...]]:
    """Return what is to be classified, the wishes for it, and the names of exporters that cannot be had.

    Args:
        order: which slides.
        wishes: what is wanted of them.
        classifier: the model.
        place: the results folder, which is not searched.

    Raises:
        InputError: there are no slides, or the wishes cannot be fulfilled.
    """
    if wishes.features is not None and order.alone(wishes):
        return order.bags(wishes.features), *wishes.without_slides(classifier)
    found = order.found(place)
    if wishes.features is not None:
        found = replace(found, slides=with_features(found.slides, wishes.features))
    return found, wishes, ()


def _prepared(
    runner: Runner, classifier: Classifier, results: Path, wishes: Wishes, slides: Sequence[SlideFile]
) -> Settings:
    """Return the settings of all jobs, with the device and precision that the runner computes in."""
    seen_here = next((slide.key for slide in slides if Path(slide.key).exists()), None)
    device, precision = runner.prepare(classifier, results, wishes.device, wishes.precision, seen_here)
    run = run_key(classifier, precision, wishes.effort, wishes.snap)
    here = device == "cpu" and not runner.name
    _, why = used_on(classifier, torch.device("cpu"), wishes.precision) if here else ("", "")
    wishes = replace(wishes, device=device, precision=precision, chosen=why, run=uuid4().hex)
    return Settings(classifier, results, run, wishes, torch.get_num_threads())


def _do_jobs(
    folder: Results,
    slides: Sequence[SlideFile],
    settings: Settings,
    report: Report,
    runner: Runner,
    listener: Listener,
) -> Sequence[str]:
    """Do what is missing in the folder; return the names of the slides that are done, or were kept."""
    folder.clean(exporter.suffix.split("/")[0] for exporter in settings.wishes.what)
    if folder.states:
        listener.stage(f"comparing {len(slides)} slides with the results that are there")
    names = _names(folder, slides)
    patient_of = {name: slide.patient for name, slide in zip(names, slides, strict=True) if slide.patient}
    if settings.classifier.bag == "patient":
        slides, names = together(slides, names, folder)
    folder.assign(patient_of)
    waiting, kept = _waiting(folder, slides, names, settings)
    report.gone = tuple(sorted(folder.states.keys() - waiting.keys() - {*kept}))
    jobs = (_job(folder, slide, name, settings) for name, slide in waiting.items())
    batch_run = BatchRun(folder, report, listener)
    listener.stage(f"{len(waiting)} slides to do; starting the first")
    try:
        batch_run.run(jobs, runner, kept)
    except ResultsError:
        with suppress(ResultsError):  # the table lists what is there, and nothing else
            for name in folder.lost(batch_run.told):
                folder.states.pop(name)
            folder.write_table()
        raise
    return batch_run.told


@contextmanager
def _interruptible(report: Report) -> Iterator[None]:
    """End a run that Ctrl-C stops before the first slide or after the last as one that it stops in between."""
    try:
        yield
    except KeyboardInterrupt:
        report.interrupted = True


def _check_all_there(folder: Results, report: Report, names: Sequence[str]) -> None:
    """Turn finished slides whose files are missing into failures: they were removed while the run lasted."""
    failed = dict(report.failures)
    for name in folder.lost(names):
        state = folder.states[name]
        reason = "its files were removed while the run lasted; the same command does it again"
        folder.add(replace(state, status="failed", reason=failed.get(name, reason), row={}, exports=()))
        if name not in failed:
            report.failures.append((name, reason))
            report.statuses -= Counter([state.status])
            report.statuses["failed"] += 1


def _write_page(folder: Results, wishes: Wishes) -> None:
    """Write report.html where the report was asked for and the page does not say what it would say now."""
    if ReportExporter.suffix in {exporter.suffix for exporter in wishes.what} and not _page_is_current(folder):
        folder.fetch(part_of(Path(), name).as_posix() for name in folder.states)
        write_page(folder.folder)


def _page_is_current(folder: Results) -> bool:
    if folder.changed or not folder.holds(PAGE):
        return False
    page, table = folder.folder / PAGE, folder.folder / TABLE
    return not page.exists() or page.stat().st_mtime_ns >= table.stat().st_mtime_ns


def finished_and_missing(
    folder: Results, slides: Sequence[SlideFile], classifier: Classifier, wishes: Wishes, run: RunKey
) -> tuple[dict[str, SlideFile], Counter[str]]:
    """Return the slides that a run would do, by name, and why it would do finished ones again -> how many.

    A finished slide whose files have another size or time counts, although a look may show that its result stands.
    """
    settings = Settings(classifier, folder.folder, run, wishes, torch.get_num_threads())
    names = _names(folder, slides)
    if classifier.bag == "patient":
        slides, names = together(slides, names, folder)
    waiting, _ = _waiting(folder, slides, names, settings)
    finished = {name: slide for name, slide in waiting.items() if _is_finished(folder, name)}
    reasons = (_job(folder, slide, name, settings).why for name, slide in finished.items())
    return waiting, Counter(why or "their files have another size or time than before" for why in reasons)


def _names(folder: Results, slides: Sequence[SlideFile]) -> list[str]:
    """Return the name of each slide in the results folder."""
    own = [identity(slide.key, slide.image) for slide in slides]
    names = assign_names([(key, slide.place) for key, slide in zip(own, slides, strict=True)], folder.known())
    return [names[key] for key in own]


def _waiting(
    folder: Results, slides: Sequence[SlideFile], names: Sequence[str], settings: Settings
) -> tuple[dict[str, SlideFile], list[str]]:
    """Return what is to do, by name, and the names of finished slides whose files are untouched since."""
    waiting, kept = {}, []
    unfinished = {slide.patient for name, slide in zip(names, slides, strict=True) if not _is_finished(folder, name)}
    for name, given in zip(names, slides, strict=True):
        earlier = folder.states.get(name)  # whose slide it is stays known where the call does not say it
        slide = replace(given, patient=given.patient or (earlier.patient if earlier else None))
        job = _job(folder, slide, name, settings)
        alone = not slide.beside or slide.patient not in unfinished
        if job.finished is not None and alone and _untouched(job, folder.states[name]):
            kept.append(name)
        else:
            waiting[name] = slide
    return waiting, kept


def _is_finished(folder: Results, name: str) -> bool:
    earlier = folder.states.get(name)
    return earlier is not None and earlier.finished


def _untouched(job: Job, earlier: State) -> bool:
    """Return whether the slide's files, without opening it, show that its result still stands."""
    remote = any(is_url(one.path) for one in (job.slide, *job.slide.beside))
    if job.settings.wishes.full_hash or remote or earlier.path != job.slide.key:
        return False
    try:
        return earlier.slide.untouched(first_look(job.slide))
    except InputError:  # the mask cannot be read, which is the slide's failure
        return False


def _job(folder: Results, slide: SlideFile, name: str, settings: Settings) -> Job:
    """Return the job of a slide; made when it begins, because a key for each of thousands takes memory."""
    earlier = folder.states.get(name)
    if earlier is None or not earlier.finished:
        return Job(slide, name, settings)
    why = "" if earlier.status == "no_tissue" else _why_not_enough(folder, earlier, settings.wishes.what)
    if earlier.run.settings.get("purpose") != settings.run.settings.get("purpose"):
        why = "its results do not say what the model is for"
    return Job(slide, name, settings, None if why else earlier.slide, why)


def _why_not_enough(folder: Results, earlier: State, exporters: Sequence[Exporter]) -> str:
    """Return which of the wanted exports a finished result lacks, or has with other options; empty if none."""
    wanted = [(name_of(exporter), exporter.suffix.format(slide=earlier.name), exporter) for exporter in exporters]
    new = [name for name, path, _ in wanted if path not in earlier.exports]
    if new:
        return f"--what asks for {', '.join(new)} as well"
    lost = [name for name, path, _ in wanted if not folder.holds(path)]
    if lost:
        return f"its files are gone: {', '.join(lost)}"
    other = [name for name, path, exporter in wanted if options_of(exporter) != earlier.options.get(path, "")]
    return f"other options are asked for: {', '.join(other)}" if other else ""


def run_key(classifier: Classifier, precision: str, effort: Effort = USUAL, snap: bool = True) -> RunKey:
    """Return what must be the same for results to lie in one folder."""
    names = ("method", "options", "mpp", "mean", "std")
    settings: dict[str, object] = {name: classifier.config.get(name) for name in names}
    settings |= {"classes": list(classifier.classes), "precision": precision, "snap": snap, **effort.facts()}
    settings |= settings_of(classifier, precision)
    settings |= {"purpose": classifier.purpose} if classifier.purpose else {}
    known = classifier.certainty
    settings |= {CERTAINTY: list(known.sentences), CERTAINTY_DIGEST: known.digest} if known.digest else {}
    settings |= {"bag": classifier.bag} if classifier.bag != "slide" else {}
    part = classifier.encoder
    settings |= {"encoder_sha256": part.sha256} if part and not part.contained else {}
    members = classifier.config.get("members")
    settings |= {"members": [one["options"] for one in members]} if members else {}
    if target := classifier.target.as_dict():
        settings |= {"target": target, "columns": list(classifier.target.columns)}
    return RunKey(classifier.name, classifier.weights_sha256, settings)


def _facts(report: Report, settings: Settings, order: Order, runner: Runner) -> dict[str, object]:
    """Return the record of a run."""
    cluster = {"cluster": runner.name} if runner.name else {}
    return {
        "arguments": {**order.facts(), **cluster, **settings.wishes.facts()},
        "model": {
            "name": settings.run.model,
            "weights_sha256": settings.run.weights_sha256,
            "folder": str(settings.classifier.folder or ""),
        },
        "versions": versions(),
        "torch_threads": settings.threads,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        **report.facts(),
    }
