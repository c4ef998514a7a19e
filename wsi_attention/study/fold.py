"""One fold: a model is trained on its labels, then it predicts the slides that the fold holds out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from wsi_attention.checkpoint import load_model
from wsi_attention.config import parse_recipe
from wsi_attention.defaults import FEATURE_STORE_GB
from wsi_attention.devices import precision_named
from wsi_attention.errors import WsiAttentionError
from wsi_attention.export.chosen import exporters_of
from wsi_attention.inference.batch import discovery
from wsi_attention.inference.batch.classify import Order, run_batch
from wsi_attention.inference.batch.discovery import Found, SlideFile
from wsi_attention.inference.batch.listener import Watching
from wsi_attention.inference.batch.runners import runner_for
from wsi_attention.inference.batch.wishes import Wishes
from wsi_attention.inference.stored_features import bags_alone
from wsi_attention.nn.encoders import Frozen
from wsi_attention.options import Options
from wsi_attention.protocols import contract_of
from wsi_attention.training.bags import find_bags
from wsi_attention.training.features import BESIDE
from wsi_attention.training.labels import LabelRow, find_slides, read_labels, with_series
from wsi_attention.training.listener import Listener
from wsi_attention.training.run import train

LABELS = "labels.csv"
HELD_OUT = "held_out"
"""Folder, in that of a fold, with the results of the slides that it holds out."""
EXPORTS = ("geojson", "tiles")
"""What is written of each held-out slide besides its row."""


@dataclass(frozen=True, kw_only=True)
class FoldJob(Options):
    """All that one fold needs to know, as plain values that go to another process as JSON.

    Attributes:
        folder: of the fold, with its labels in it.
        recipe: all numbers, as `Recipe.as_dict` gives them.
        slides: folders, files or URLs with the labelled slides; empty where there are features alone.
        device: where it computes.
        series: as in `training.train`.
        feature_store: likewise; None for the one that all folds share.
        feature_store_gb: likewise.
        features: likewise.
        command: likewise.
        threads: of torch; 0 leaves their number as it is.
    """

    folder: str
    recipe: Mapping[str, object]
    slides: tuple[str, ...] = ()
    device: str = "auto"
    series: str | None = None
    feature_store: str | None = None
    feature_store_gb: float = FEATURE_STORE_GB
    features: str | None = None
    command: str = ""
    threads: int = 0

    @property
    def name(self) -> str:
        """The fold's, e.g. "1-3"."""
        return Path(self.folder).name


@dataclass(frozen=True)
class HeldOut(Order):
    """An order of the slides that a fold holds out, wherever they lie among all slides.

    Attributes:
        rows: their labels.
        labels: where these stand, for errors.
    """

    rows: tuple[LabelRow, ...] = ()
    labels: str = ""

    def found(self, outside: Path) -> Found:
        """Return the slides with what the labels say of each."""
        paths = find_slides([row.slide for row in self.rows], self.inputs, self.labels)
        there = {slide.path: slide for slide in discovery.find_slides(self.inputs, outside).slides}
        return Found(tuple(_told(there[str(paths[row.slide])], row) for row in self.rows))

    def bags(self, features: str) -> Found:
        """Return their files of features in place of slides."""
        files = find_bags(features, self.rows, self.labels)
        there = {slide.path: slide for slide in bags_alone(features)}
        known = (row for row in self.rows if row.slide in files)
        return Found(tuple(replace(_told(there[str(files[row.slide])], row), series=None) for row in known))


def do_fold(job: FoldJob, listener: Listener) -> None:
    """Train the fold's model and predict its held-out slides; what is finished is not done again.

    Raises:
        WsiAttentionError: as `training.train` and `inference.classify` say; the text begins with the fold's name.
    """
    if job.threads:
        torch.set_num_threads(job.threads)
    try:
        _train(job, listener)
        _predict(job, listener)
    except WsiAttentionError as error:
        raise type(error)(f"fold {job.name}: {error}") from error


def _train(job: FoldJob, listener: Listener) -> None:
    done = train(
        Path(job.folder) / LABELS,
        job.slides or None,
        job.folder,
        parse_recipe(job.recipe, "the recipe"),
        device=job.device,
        series=job.series,
        feature_store=job.feature_store,
        feature_store_gb=job.feature_store_gb,
        features=job.features,
        command=job.command,
        listener=listener,
    )
    if done.finished_before:
        listener.line("its model was trained before")


def _predict(job: FoldJob, listener: Listener) -> None:
    folder, recipe = Path(job.folder), parse_recipe(job.recipe, "the recipe")
    classifier = load_model(folder)
    rows = tuple(row for row in with_series(read_labels(folder / LABELS), job.series) if row.part == "test")
    frozen = isinstance(contract_of(classifier.model).encoder, Frozen) and job.feature_store_gb > 0
    store = job.feature_store or str(folder.absolute().parent / BESIDE)
    wishes = Wishes(
        exporters_of(EXPORTS),
        device=job.device,
        precision=precision_named(recipe.precision),
        snap=recipe.snap,
        feature_store=store if frozen and job.slides else None,
        feature_store_gb=job.feature_store_gb,
        features=job.features,
    )
    order = HeldOut(job.slides, rows=rows, labels=str(folder / LABELS))

    def told(name: str, done: int, total: int) -> None:
        listener.progress("held-out slides", done, total)

    listener.line(f"predicting the {len(rows)} slides that it holds out")
    with runner_for(None, 1, in_process=True) as runner:
        report = run_batch(order, folder / HELD_OUT, classifier, wishes, runner, Watching(told))
    if report.interrupted:
        raise KeyboardInterrupt
    for name, reason in report.failures:
        listener.line(f"failed: {name}: {reason}")


def _told(slide: SlideFile, row: LabelRow) -> SlideFile:
    return replace(slide, mpp=row.mpp, series=row.series, patient=row.patient if row.has_patient else None)
