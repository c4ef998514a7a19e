"""What runs in a worker: coordinates and paths come in, a state and small export files go out."""

from __future__ import annotations

import io
import socket
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Self

import torch

from wsi_attention import __version__
from wsi_attention.checkpoint import CONFIG, WEIGHTS, Classifier, load_model
from wsi_attention.devices import Precision, Used, device_of, precision_on
from wsi_attention.errors import ModelError, ResultsError, WsiAttentionError
from wsi_attention.files import results_errors, temporary
from wsi_attention.inference.batch.discovery import SlideFile
from wsi_attention.inference.batch.job import Job, Outcome, Settings, classify_slide
from wsi_attention.inference.batch.wishes import Wishes
from wsi_attention.inference.engine import used_by_all
from wsi_attention.inference.results.state import RunKey, SlideKey

ModelKey = tuple[str, str]
"""The sha256 of a model's weights, and of its configuration."""
_loading = Lock()
_loaded: dict[ModelKey, Classifier] = {}
_carried: dict[ModelKey, dict[str, bytes]] = {}


@dataclass(frozen=True)
class ModelSource:
    """Where a worker finds the model: a folder, and the sha256 that its weights and its configuration must have."""

    folder: str
    weights: str
    config: str

    @classmethod
    def of(cls, classifier: Classifier) -> Self:
        """Return where another process finds a loaded model."""
        return cls(str(classifier.folder), classifier.weights_sha256, classifier.config_sha256)

    @property
    def key(self) -> ModelKey:
        """What tells it from other models, wherever it lies."""
        return self.weights, self.config

    def load(self) -> Classifier:
        """Return the model, loaded once in each process and kept until another is asked for.

        Raises:
            ModelError: this worker cannot see the folder, or it holds another model.
        """
        with _loading:
            if self.key not in _loaded:
                _loaded.clear()
                _loaded[self.key] = self._read()
            return _loaded[self.key]

    def files(self) -> dict[str, bytes]:
        """Return the model's files by name, for workers that cannot see the folder."""
        return {name: (Path(self.folder) / name).read_bytes() for name in (CONFIG, WEIGHTS)}

    def _read(self) -> Classifier:
        files = _carried.get(self.key)
        if files is None:
            classifier = load_model(self.folder)
        else:
            with TemporaryDirectory(prefix="wsi-attention-model-") as folder:
                _write_all(Path(folder), files)
                classifier = replace(load_model(folder), name=Path(self.folder).name, folder=None)
        if (classifier.weights_sha256, classifier.config_sha256) != self.key:
            raise ModelError(f"model {self.folder} has changed since it was loaded first; start again")
        return classifier


@dataclass(frozen=True)
class Task:
    """A `Job` as it travels: without the loaded model and this machine's results folder."""

    slide: SlideFile
    name: str
    finished: SlideKey | None
    why: str
    model: ModelSource
    run: RunKey
    wishes: Wishes
    threads: int

    def job(self, results: Path) -> Job:
        """Return the job in this process."""
        settings = Settings(self.model.load(), results, self.run, self.wishes, self.threads)
        return Job(self.slide, self.name, settings, self.finished, self.why)


def task_of(job: Job, model: ModelSource) -> Task:
    """Return the job ready to travel."""
    all_slides = job.settings
    return Task(
        job.slide, job.name, job.finished, job.why, model, all_slides.run, all_slides.wishes, all_slides.threads
    )


@dataclass(frozen=True)
class Parcel:
    """What comes back: an outcome, and its export files by path below the results folder."""

    outcome: Outcome
    files: dict[str, bytes] = field(default_factory=dict)

    def unpack(self, results: Path) -> Outcome:
        """Write the files under their temporary names; return the outcome as if the slide had been done here."""
        state = self.outcome.state
        for export in state.exports if state else ():
            with results_errors(results / export):
                _write_all(results, {name: self.files[name] for name in self.files if _below(name, export)})
        return self.outcome


def run(task: Task) -> Parcel:
    """Do one slide in this process; nothing is written outside a temporary folder of this worker."""
    with TemporaryDirectory(prefix="wsi-attention-", dir=_own_folder(), ignore_cleanup_errors=True) as folder:
        outcome = classify_slide(task.job(Path(folder)), nullcontext())
        files = _read_all(Path(folder)) if outcome.state and outcome.state.exports else {}
    error = outcome.error and ResultsError(f"worker on {socket.gethostname()}: {outcome.error}")
    return Parcel(replace(outcome, left_behind=False, error=error), files)


@dataclass(frozen=True)
class Survey:
    """A worker's description of itself.

    Attributes:
        host: its machine.
        folder: its working directory.
        version: of this package.
        precision: what it would compute in.
        missing_model: why it cannot load the model by path; empty if it can.
        missing_slide: whether it does not see the slide that was asked about.
        error: why it cannot work at all; empty if it can.
    """

    host: str
    folder: str
    version: str = __version__
    precision: Used = "32"
    missing_model: str = ""
    missing_slide: bool = False
    error: str = ""


def survey(model: ModelSource, device: str, precision: Precision, slide: str | None) -> Survey:
    """Describe this worker, after loading the model."""
    found = Survey(socket.gethostname(), str(Path.cwd()), missing_slide=slide is not None and not Path(slide).exists())
    try:
        precision_on(where := device_of(device), precision)
    except WsiAttentionError as error:
        return replace(found, error=str(error))
    try:
        classifier = model.load()
    except (ModelError, OSError) as error:
        return replace(found, missing_model=str(error))
    return replace(found, precision=used_by_all(classifier, where, precision))


def handed(classifier: Classifier) -> bytes:
    """Pack a loaded model for another process of this machine.

    Raises:
        ModelError: its network cannot be packed.
    """
    facts = {one.name: getattr(classifier, one.name) for one in fields(Classifier)} | {"folder": None}
    packed = io.BytesIO()
    try:
        torch.save(facts, packed)
    except Exception as error:  # whatever its layers hold
        raise ModelError(
            f"model {classifier.name} has no folder and cannot be handed to a worker process ({error}); save it first,"
            " or do the slides in this process (in_process=True)"
        ) from error
    return packed.getvalue()


def keep(source: ModelSource, packed: bytes) -> None:
    """Keep a model that was handed over, for `ModelSource.load`.

    Raises:
        ModelError: it cannot be unpacked here.
    """
    try:
        facts = torch.load(io.BytesIO(packed), map_location="cpu", weights_only=False)
    except Exception as error:  # most likely its class stands in the caller's script
        raise ModelError(
            f"the model has no folder and cannot be handed to a worker process ({type(error).__name__}: {error}); save"
            " it first, or do the slides in this process (in_process=True)"
        ) from error
    _loaded[source.key] = Classifier(**facts)


def carry(key: ModelKey, files: dict[str, bytes]) -> None:
    """Keep a model's files in this process, for `ModelSource.load`."""
    _carried[key] = files


def _own_folder() -> str | None:
    from distributed import get_worker

    try:
        return str(get_worker().local_directory)  # its nanny removes it when the worker dies
    except ValueError:
        return None


def _read_all(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _write_all(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _below(name: str, export: str) -> bool:
    finished = temporary(Path(export)).as_posix()
    return name == finished or name.startswith(f"{finished}/")
