"""What survives a kill: the whole state of a training run in one safetensors file, replaced at the end of each epoch.

Chance needs no state of its own: every draw is seeded by the recipe's seed, the epoch and the slide (`seed_of`), so an
epoch that starts anew after a kill goes exactly as it would have gone. Nothing is pickled.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from wsi_attention.errors import InputError
from wsi_attention.files import publish, results_errors, temporary, write_text
from wsi_attention.json_values import parse
from wsi_attention.statistics.figures import Figure, Judgement
from wsi_attention.statistics.metrics import Scores

FORMAT = 1
STATE = "state.safetensors"
METRICS = "metrics.csv"


@dataclass(frozen=True)
class EpochRecord:
    """A row of metrics.csv; NaN where a value does not exist.

    A target beyond one label has `figures` in place of AUROC, accuracy and F1. `val_auroc_low` and so on are the ends
    of 95 % intervals (`statistics.intervals`), over patients where they repeat. `parts` are figures of parts of the
    model by themselves, such as one scale.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    val_loss: float
    val_auroc: float
    val_accuracy: float
    val_f1: float
    slides: int
    failed: int
    val_auroc_low: float = math.nan
    val_auroc_high: float = math.nan
    val_accuracy_low: float = math.nan
    val_accuracy_high: float = math.nan
    val_slides: int = 0
    val_patients: int = 0
    figures: tuple[Figure, ...] = ()
    parts: tuple[Figure, ...] = ()

    @property
    def merit(self) -> float:
        """What tells the best epoch: the AUROC, or the first figure of another target."""
        return self.figures[0].value if self.figures else self.val_auroc

    def as_dict(self) -> dict[str, object]:
        """Return plain values, figures and parts only where there are some."""
        values: dict[str, object] = dict(_numbers(self))
        several = {"figures": self.figures, "parts": self.parts}
        return values | {name: [asdict(one) for one in found] for name, found in several.items() if found}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> EpochRecord:
        """Return the record that `as_dict` made plain, NaN for None."""
        plain: dict[str, Any] = {name: math.nan if value is None else value for name, value in values.items()}
        plain |= {name: tuple(map(_figure, plain.get(name, ()))) for name in ("figures", "parts")}
        return cls(**plain)


def _numbers(record: EpochRecord) -> dict[str, float]:
    """Return the values of a record that are one number each."""
    return {one.name: getattr(record, one.name) for one in fields(record) if one.name not in ("figures", "parts")}


def _figure(one: Mapping[str, Any]) -> Figure:
    low, high = one["interval"]
    return Figure(one["name"], _or_nan(one["value"]), (_or_nan(low), _or_nan(high)))


def recorded(epoch: int, rate: float, loss: float, scores: Scores | Judgement, slides: int, failed: int) -> EpochRecord:
    """Return the record of an epoch.

    Args:
        epoch: its number, from 1.
        rate: the learning rate at its end.
        loss: of training.
        scores: of validation.
        slides: that it trained on.
        failed: slides that are left out.
    """
    if isinstance(scores, Judgement):
        nothing = math.nan, math.nan, math.nan
        record = EpochRecord(epoch, rate, loss, scores.loss, *nothing, slides, failed)
        return replace(record, val_slides=scores.n, val_patients=scores.patients, figures=scores.figures)
    return EpochRecord(
        epoch,
        rate,
        loss,
        scores.loss,
        scores.auroc,
        scores.accuracy,
        scores.f1,
        slides,
        failed,
        *scores.auroc_interval,
        *scores.accuracy_interval,
        scores.n,
        scores.patients,
    )


@dataclass(frozen=True, eq=False)
class TrainingState:
    """A run after a whole number of epochs.

    Attributes:
        plan: digests of what decides the run, by name; another plan is another run.
        precision: "32" or "bf16", as resolved when the run began.
        weights: the model's state dict.
        best: the state dict of the best epoch so far.
        best_epoch: which one that was; 0 before the first.
        optimiser: tensors of the optimiser's state, named "<parameter>.<quantity>".
        history: a record for each finished epoch.
        failed: slide name -> why it is left out.
        arguments: what the model was built with.
    """

    plan: Mapping[str, str]
    precision: str
    weights: Mapping[str, Tensor]
    best: Mapping[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    optimiser: Mapping[str, Tensor] = field(default_factory=dict)
    history: tuple[EpochRecord, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, object] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return len(self.history)


def save_state(folder: Path, state: TrainingState) -> None:
    """Replace the state and metrics.csv in a folder, each whole.

    Raises:
        ResultsError: disk full, or writing is not permitted.
    """
    from safetensors.torch import save

    groups = {"weights": state.weights, "optimiser": state.optimiser}
    groups |= {} if state.best_epoch == state.epoch else {"best": state.best}
    tensors = {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}
    facts = {
        "format": FORMAT,
        "plan": dict(state.plan),
        "precision": state.precision,
        "best_epoch": state.best_epoch,
        "history": [record.as_dict() for record in state.history],
        "failed": dict(state.failed),
        "arguments": dict(state.arguments),
    }
    path = folder / STATE
    with results_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        temporary(path).write_bytes(save(tensors, metadata={"training": json.dumps(facts, sort_keys=True)}))
    publish(path)
    write_metrics(folder, state.history)


def load_state(folder: Path) -> TrainingState | None:
    """Return the state in a folder, None where there is none.

    Raises:
        InputError: the file is broken or of another version of this package.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / STATE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            facts = parse(file.metadata()["training"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if facts["format"] != FORMAT:
            raise InputError(
                f"{path} has format {facts['format']}, this version writes {FORMAT}; train with --overwrite"
            )
        del facts["format"]
        history = tuple(EpochRecord.from_dict(record) for record in facts.pop("history"))
        groups = {key: _group(tensors, key) for key in ("weights", "best", "optimiser")}
        state = TrainingState(**facts, history=history, **groups)  # type: ignore[arg-type]
        return replace(state, best=state.weights) if state.best_epoch == state.epoch else state
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be used ({error}); train with --overwrite to begin anew") from error


def write_metrics(folder: Path, history: tuple[EpochRecord, ...]) -> None:
    """Replace metrics.csv, a row an epoch."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    rows = [_columns(record) for record in history]
    writer.writerow(rows[0] if rows else _columns(_NOTHING))
    for row in rows:
        writer.writerow(map(_cell, row.values()))
    write_text(folder / METRICS, text.getvalue())


def optimiser_tensors(optimiser: Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's state as named tensors, on the CPU."""
    state = optimiser.state_dict()["state"]
    return {f"{i}.{name}": copied(value) for i, values in state.items() for name, value in values.items()}


def restore_optimiser(optimiser: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put named tensors back; learning rates are not part of it, every step sets its own."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        position, _, quantity = name.partition(".")
        state.setdefault(int(position), {})[quantity] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def copied(tensor: Tensor) -> Tensor:
    """Return a copy of the values in memory of their own, on the CPU."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def seed_of(*parts: object) -> int:
    """Return a seed below 2^63 that depends on every part."""
    digest = hashlib.sha256("\0".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def plan_of(**parts: object) -> dict[str, str]:
    """Return the sha256 of each part that decides a run, as sorted JSON."""
    texts = {name: json.dumps(part, sort_keys=True) for name, part in parts.items()}
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def _group(tensors: Mapping[str, Tensor], group: str) -> dict[str, Tensor]:
    return {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{group}/")}


_NOTHING = EpochRecord(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)
_OF_ONE_LABEL = re.compile("val_(auroc|accuracy|f1).*")


def _columns(record: EpochRecord) -> dict[str, float]:
    """Return a row of metrics.csv, by column."""
    values = _numbers(record)
    kept = {name: value for name, value in values.items() if not (record.figures and _OF_ONE_LABEL.fullmatch(name))}
    for one in (*record.figures, *record.parts):
        low, high = one.interval
        kept |= {f"val_{one.key}": one.value, f"val_{one.key}_low": low, f"val_{one.key}_high": high}
    return kept


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"
