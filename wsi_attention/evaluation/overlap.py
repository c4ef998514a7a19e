"""Which of the slides that judge a model it has learnt from: by content, by file name, by patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wsi_attention.checkpoint import CONFIG, SHIPPED, model_folder, read_config, shipped_models
from wsi_attention.errors import ModelError
from wsi_attention.inference.batch.matching import file_name
from wsi_attention.inference.results.state import FOLDER, read_state
from wsi_attention.json_values import parse
from wsi_attention.learnt_from import SENTENCES, LearntFrom
from wsi_attention.model_card import ModelConfig
from wsi_attention.training.labels import LabelRow

OUT_OF_FOLD: Final = "out_of_fold"
"""Says in the record of a run, of its model, that each slide was predicted by a part of it that had not seen it."""
PATIENTS_GIVEN: Final = "patients_given"
"""Says there whether the labels told of every slide whose it is, so that patients were kept apart too."""
EARLIER_WEIGHTS: Final = "earlier_weights"
"""Says there whether training began with weights of an earlier model, of which nobody knows what it had seen."""
APART: Final = "out of fold: each slide was predicted by models that had seen neither it nor its patient"


@dataclass(frozen=True)
class Overlap:
    """Slides that the model has met before, by name; a slide stands in the first list that fits.

    Attributes:
        slides: how many judge.
        known: whether anything says which slides the model has learnt from.
        trained: their content trained it.
        chosen: their content chose its best epoch (validation).
        named: they are called as slides that trained it or chose its epoch, and contents do not tell them apart.
        related: other slides of their patients did.
        out_of_fold: each was predicted by models of a cross-validation whose training left it out.
        patients_given: then also other slides of its patient were left out.
        earlier_weights: these models began with weights of an earlier model, and what it had seen is not known.
    """

    slides: int
    known: bool = False
    trained: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    related: tuple[str, ...] = ()
    out_of_fold: bool = False
    patients_given: bool = False
    earlier_weights: bool = False

    @property
    def lines(self) -> tuple[str, ...]:
        """Sentences for the reader; one where there is nothing to warn of."""
        whats = (
            (self.trained, "trained this model"),
            (self.chosen, "validated this model (its epoch and its calibration may rest on them)"),
            (self.named, "are called as slides that this model was trained with"),
            (self.related, "are of patients whose other slides this model was trained with"),
        )
        lines = tuple(f"{len(own)} of these {self.slides} slides {what}: {_some(own)}" for own, what in whats if own)
        if lines:
            return (*lines, "the figures are too kind: judge a model by slides and patients that it has not seen")
        if self.out_of_fold:
            return (self._apart,)
        if not self.known:
            return ("whether some of these slides trained the model is not known; -m names its folder",)
        return ("none of these slides is known to have trained this model",)

    @property
    def remarks(self) -> tuple[str, ...]:
        """The lines; none where slides were held out with their patients, as they should be."""
        return tuple(line for line in self.lines if line != APART)

    @property
    def _apart(self) -> str:
        """Return what is known of models that were trained without the slides that they judge."""
        patient = " or its patient" if self.patients_given else ""
        if self.earlier_weights:
            return (
                f"out of fold: no model was trained here on a slide that it predicted{patient and ', nor its patient'};"
                " which slides trained the weights that they began with is not known"
            )
        if self.patients_given:
            return APART
        return (
            "out of fold: each slide was predicted by models that had not seen it; other slides of its patient they may"
            " have seen, as the labels do not say of every slide whose it is"
        )

    def as_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {name: list(own) if isinstance(own, tuple) else own for name, own in vars(self).items()}


NOBODY_KNOWS = Overlap(0)
"""What is said where nothing was looked up."""


def find_config(results: Path, model: str | Path | None = None) -> ModelConfig | None:
    """Return config.json of the model that made a results folder, None where it cannot be found.

    Args:
        results: the folder; the newest run_*.json in it names the model.
        model: the model's folder or shipped name, where the user gives it.

    Raises:
        ModelError: the given model is none, or another one than the results are of.
    """
    made_by = _last_run(results)
    sha256 = str(made_by.get("weights_sha256") or "")
    if model is not None:
        config = read_config(model_folder(model))
        if sha256 and config["weights_sha256"] != sha256:
            raise ModelError(
                f"{model} has weights {config['weights_sha256'][:12]}, the predictions in {results} are of "
                f"{sha256[:12]} ({made_by.get('name')}); give that model"
            )
        return config
    folders = [Path(str(made_by["folder"]))] if made_by.get("folder") else []
    for folder in (*folders, *(SHIPPED / name for name in shipped_models())):
        if sha256 and (folder / CONFIG).is_file():
            config = read_config(folder)
            if config["weights_sha256"] == sha256:
                return config
    return None


def find_overlap(
    rows: Mapping[str, LabelRow], notes: Mapping[str, str], results: Path, config: Mapping[str, object] | None
) -> Overlap:
    """Return which of the slides the model has learnt from.

    Args:
        rows: the label of each slide that judges, by its name in the results.
        notes: column `notes` of each, which `classify` has filled.
        results: the results folder, whose states know the contents.
        config: of the model, None where it is not at hand.
    """
    run = _last_run(results)
    apart = bool(run.get(OUT_OF_FOLD))
    seen = LearntFrom.from_config(config) if config and not apart else None
    found: dict[str, list[str]] = {kind: [] for kind in ("train", "val", "named", "related")}
    for name, row in rows.items():
        kind = _kind(name, row, notes.get(name, ""), results, seen)
        if kind:
            found[kind].append(name)
    known = apart or seen is not None or any(found.values())
    trained, chosen, named, related = (tuple(found[kind]) for kind in ("train", "val", "named", "related"))
    patients, earlier = bool(run.get(PATIENTS_GIVEN)), apart and bool(run.get(EARLIER_WEIGHTS, True))
    return Overlap(len(rows), known, trained, chosen, named, related, apart, patients, earlier)


def _kind(name: str, row: LabelRow, note: str, results: Path, seen: LearntFrom | None) -> str | None:
    said = next((part for part, sentence in SENTENCES.items() if sentence in note), None)
    if said or seen is None:
        return said
    state = results / FOLDER / f"{name}.json"
    known = read_state(state) if state.is_file() else None
    content = known.slide.fingerprint if known else None
    part = seen.part_of("slides", content) if content else None
    if part:
        return part
    if any(seen.is_called(file_name(called), content) for called in (row.slide, name)):
        return "named"
    return "related" if row.has_patient and seen.part_of("patients", row.patient) else None


def _last_run(results: Path) -> dict[str, object]:
    for path in sorted(results.glob("run_*.json"), reverse=True):
        try:
            found = parse(path.read_text(encoding="utf-8"))["model"]
            return dict(found)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
