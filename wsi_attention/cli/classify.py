"""`wsi-attention classify`: a folder of slides in, a results folder out."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from wsi_attention.cli.export import kinds
from wsi_attention.cli.feature_store import FeatureStoreGb
from wsi_attention.cli.interrupts import starting
from wsi_attention.cli.progress import watching
from wsi_attention.cli.say import say
from wsi_attention.cli.voice import Quiet, Verbose, Voice, voice_of
from wsi_attention.defaults import BATCH, EXPORTS, FEATURE_STORE_GB, LIMIT, PICTURES
from wsi_attention.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsi_attention.checkpoint import Classifier
    from wsi_attention.inference.batch.summary import Report


def classify(
    inputs: Inputs = None,
    more: More = None,
    results: Results = "results",
    model: Model = None,
    workers: Workers = 1,
    batch: Batch = BATCH,
    device: Device = "auto",
    gpus: Gpus = None,
    precision: Precision = "auto",
    mpp: Mpp = None,
    series: Series = None,
    slides_csv: SlidesCsv = None,
    limit: Limit = LIMIT,
    exact: Exact = False,
    tolerance: Tolerance = None,
    budget: Budget = None,
    unread: Unread = None,
    certify: Certify = None,
    draws: Draws = None,
    no_snap: NoSnap = False,
    what: What = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    profile: Profile = False,
    full_hash: FullHash = False,
    features: Features = None,
    cache: Cache = None,
    feature_store: FeatureStore = None,
    feature_store_gb: FeatureStoreGb = FEATURE_STORE_GB,
    scheduler: Scheduler = None,
    local_cluster: LocalCluster = None,
    slurm: Slurm = None,
    in_process: InProcess = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Label slides, and show the regions each label rests on. A second run does only what is missing.

    Exit status: 0 all slides done, 1 some failed or have no tissue (the table says which), 2 the call was wrong,
    130 interrupted.

    Example: wsi-attention classify -i slides/ -o results/ -m model/
    """
    folder, voice = given(model), voice_of(quiet, verbose)
    with coming_workers(not (in_process or scheduler or local_cluster or slurm)), watching(voice) as listener:
        if listener:
            listener.stage(f"loading the model {folder}")
        classifier = loaded(folder, cache, draws)
        from wsi_attention.devices import precision_named
        from wsi_attention.export.chosen import exporters_of
        from wsi_attention.inference.batch.classify import Existing, Order, run_batch
        from wsi_attention.inference.batch.runners import runner_for
        from wsi_attention.inference.batch.wishes import Wishes
        from wsi_attention.inference.certify import level_of
        from wsi_attention.inference.cluster.open import open_cluster
        from wsi_attention.inference.effort import Effort

        existing: Existing = "overwrite" if overwrite else "resume"
        order = Order((*(inputs or ()), *(more or ())), slides_csv, mpp, series, workers, existing)
        effort = Effort(exact, tolerance, budget, unread, level_of(certify))
        exporters = exporters_of(EXPORTS if what is None else kinds(what))
        place = device, precision_named(precision)
        wishes = Wishes(
            exporters,
            *place,
            batch,
            limit,
            effort,
            not no_snap,
            profile,
            full_hash,
            feature_store=None if feature_store is None else str(feature_store),
            feature_store_gb=feature_store_gb,
            features=None if features is None else str(features),
        )
        if dry_run:
            from wsi_attention.inference.batch.forecast import foresee

            with runner_for(None, 1, in_process, device=device) as runner:  # few processes, soon warm
                forecast = foresee(order, results, classifier, wishes, runner, listener)
        else:
            check_draws(draws, scheduler, local_cluster, slurm)
            with (
                open_cluster(scheduler, local_cluster, slurm, device) as cluster,
                runner_for(cluster, workers, in_process, gpus or "", device) as runner,
            ):
                report = run_batch(order, results, classifier, wishes, runner, listener)
    if dry_run:
        say(*forecast.lines())
        return
    end(report, voice)


Inputs = Annotated[list[str] | None, Option("-i", "--input", help="Slides, folders of slides, URLs, or slides CSVs.")]
More = Annotated[list[str] | None, Argument(help="More inputs: -i slides/*.svs works.")]
Results = Annotated[str, Option("-o", "--output", help="The results folder, or a URL such as s3://bucket/results.")]
Model = Annotated[
    str | None,
    Option("-m", "--model", help="A model folder (required); demo is a demonstration, for painted slides only."),
]
Workers = Annotated[int, Option("-n", "--workers", help="Slides computed side by side.")]
Batch = Annotated[int, Option("-b", "--batch", help="Tiles read by one task.")]
Device = Annotated[str, Option(help="cpu, cuda:1 …; auto is the first GPU, else the CPU.")]
Gpus = Annotated[str | None, Option(help="Several GPUs of this machine: all, or numbers such as 0,1.")]
Precision = Annotated[
    str, Option(help="32, bf16, openvino, int8 (after quantise), or auto: bf16 where the hardware has it.")
]
Mpp = Annotated[float | None, Option(help="µm per level-0 pixel, if the files are wrong or silent.")]
Series = Annotated[str | None, Option(help="Which image of a file is the slide: its number or name (see info).")]
SlidesCsv = Annotated[Path | None, Option(help="CSV slide[,mpp][,mask][,series][,patient]: which slides of -i.")]
Limit = Annotated[float, Option(help="Seconds a slide may take before it counts as failed.")]
Exact = Annotated[bool, Option("--exact", help="Read every tile instead of a sample: minutes a slide.")]
Tolerance = Annotated[
    float | None, Option(help="Read until standard error and unread attention are at most this, e.g. 0.02.")
]
Budget = Annotated[int | None, Option(help="The most tiles a slide for --tolerance or --certify.")]
Unread = Annotated[
    float | None,
    Option(help="The most attention on unread tiles for --tolerance to stop; 1: any. [default: the tolerance]"),
]
Certify = Annotated[
    str | None,
    Option(
        metavar="[proof|0.99]",
        help="Read until the label that --exact would give is settled: by proof, or with a confidence such as 0.99.",
    ),
]
What = Annotated[
    str | None, Option(help=f"{', '.join(EXPORTS + PICTURES)}, or all; commas between. [default: {','.join(EXPORTS)}]")
]
Draws = Annotated[
    int | None, Option(help="Tiles drawn from each slide, in place of the model's own number; more is less noisy.")
]
DryRun = Annotated[
    bool, Option("--dry-run", help="Say what would be done and what it costs; a few slides are tried, nothing is kept.")
]
NoSnap = Annotated[bool, Option("--no-snap", help="Leave sampled tiles off the file's own tile grid: slower.")]
Profile = Annotated[bool, Option("--profile", help="Print where the time went.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Remove earlier results first.")]
FullHash = Annotated[
    bool, Option("--full-hash", help="Hash slides whole, also large ones, so that any change of a byte is noticed.")
]
Features = Annotated[
    Path | None,
    Option(help="Folder of TRIDENT, CLAM, STAMP or LazySlide with features of slides' tiles; -i may be left out then."),
]
Cache = Annotated[
    Path | None,
    Option(help="Folder that keeps what is fetched from URLs; needed where a server sends whole files only."),
]
FeatureStore = Annotated[
    Path | None, Option(help="Folder that keeps what the encoder says of tiles; later runs do not read those again.")
]
Scheduler = Annotated[str | None, Option(help="Workers of this dask scheduler: tcp://…, tls://…, a scheduler file.")]
LocalCluster = Annotated[int | None, Option(help="That many worker processes on this machine.")]
InProcess = Annotated[
    bool,
    Option("--in-process", help="No worker processes: less memory, but a slide that crashes a library ends the run."),
]
Slurm = Annotated[Path | None, Option(help="Workers as jobs of Slurm: a TOML file with jobs and [job].")]


@contextmanager
def coming_workers(wanted: bool) -> Iterator[None]:
    """Let worker processes import what they need while this process does, where they are wanted."""
    from wsi_attention.inference.isolation import nursery

    with nursery.prepared() if wanted else nullcontext():
        yield


def check_draws(draws: int | None, *clusters: object) -> None:
    """Refuse another number of draws for workers that read the model's folder themselves.

    Raises:
        InputError: both were asked for.
    """
    if draws is not None and any(clusters):
        raise InputError("--draws is for this machine: the workers of a cluster read the model's folder; leave it out")


def loaded(folder: str, cache: Path | None, draws: int | None = None) -> Classifier:
    """Return the model, with a warning where its labels mean nothing; Ctrl-C ends the program at once meanwhile."""
    with starting():
        from wsi_attention.checkpoint import load_model, with_draws
        from wsi_attention.inference.batch import classify  # noqa: F401  # imported here, where Ctrl-C does no harm

        classifier = load_model(folder)
        classifier = classifier if draws is None else with_draws(classifier, draws)
    warn(classifier.purpose)
    use_cache(cache)
    return classifier


def given(model: str | None) -> str:
    """Return the model that was asked for; there is no default, as a label of the wrong model looks like any other.

    Raises:
        InputError: none was.
    """
    if model:
        return model
    raise InputError(
        "no model was given: name the folder that wsi-attention train wrote with -m; -m demo is a demonstration whose"
        " label means nothing on real tissue"
    )


def use_cache(folder: Path | None) -> None:
    """Keep what is fetched from URLs in a folder, for this process and its workers; None changes nothing."""
    from wsi_attention.slide.readers.remote.cache import FOLDER_VARIABLE

    if folder is None:
        return
    os.environ[FOLDER_VARIABLE] = str(folder.absolute())
    log = logging.getLogger("wsi_attention.download")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("wsi-attention: %(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)


def warn(purpose: str) -> None:
    """Print what labels are worth where the model's purpose is another than to label slides."""
    from wsi_attention.structures import purpose_warning

    if purpose:
        say(f"wsi-attention: {purpose_warning(purpose)}", err=True)


def end(report: Report, voice: Voice = Voice.USUAL) -> None:
    """Print the outcome of a batch and leave with its exit status, even where a library's thread hangs."""
    from wsi_attention.inference.batch.summary import complaints, summary

    say(*(f"wsi-attention: {line}" for line in complaints(report)), err=True)
    if voice is not Voice.QUIET:
        say(*summary(report).splitlines())
    if report.threads_left:  # a slide that hangs in a library must not keep the command from ending
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(report.exit_status)
    raise typer.Exit(report.exit_status)
