"""All that a model folder says of how far to believe its labels, read from config.json and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsi_attention.certainty.calibration import Calibration
from wsi_attention.certainty.conformal import Conformal
from wsi_attention.certainty.familiar import Familiar

T = TypeVar("T")
NOT_CALIBRATED = "Probabilities are not calibrated: 0.9 need not mean that nine of ten such labels are right."
"""What is said where probabilities are explained."""


@dataclass(frozen=True)
class Judged:
    """What is said of one slide's logits.

    Attributes:
        probabilities: (classes,) calibrated where there is a calibration.
        spread: standard error of the highest of them; None where nothing was drawn.
        among: names of the classes of the conformal set; None where there are no sets.
        uncalibrated: what the model itself says, for the provenance; empty where there is no calibration.
    """

    probabilities: NDArray[np.float64]
    spread: float | None
    among: tuple[str, ...] | None
    uncalibrated: dict[str, object]


@dataclass(frozen=True)
class Certainty:
    """What is fitted on predictions and kept in the model's folder; each part may be missing.

    Attributes:
        calibration: None where probabilities are the model's own.
        conformal: None where every label is told.
        familiar: None where nobody knows what the slides of the training look like.
        missing: part -> why there is none, as far as training said it.
        folds: whether it was fitted on predictions by models of folds, whose mean the model is.
    """

    calibration: Calibration | None = None
    conformal: Conformal | None = None
    familiar: Familiar | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    folds: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, object], classes: int) -> Self:
        """Return what config.json says.

        Args:
            config: the file's content.
            classes: of the model.

        Raises:
            ValueError: an entry is damaged; the text names it and says what is wrong.
        """
        return cls(
            _part(config, "calibration", lambda found: Calibration.from_dict(found, classes)),
            _part(config, "conformal", lambda found: Conformal.from_dict(found, classes)),
            _part(config, "familiar", Familiar.from_dict),
            {name: why for name in PARTS if (why := _reason(config.get(name)))},
            bool(config.get("members")),
        )

    def as_config(self) -> dict[str, object]:
        """Return the entries of config.json; a part that is missing says why, or is left out where nobody said."""
        parts = {"calibration": self.calibration, "conformal": self.conformal, "familiar": self.familiar}
        told = {name: {"missing": reason} for name, reason in self.missing.items()}
        return {**told, **{name: part.as_dict() for name, part in parts.items() if part}}

    def judge(
        self, logits: ArrayLike, own: NDArray[np.float64], spread: float | None, classes: Sequence[str]
    ) -> Judged:
        """Return what to say of one slide.

        Args:
            logits: (classes,) float64, finite.
            own: (classes,) the uncalibrated probabilities, their softmax.
            spread: standard error of the highest uncalibrated probability; None where nothing was drawn.
            classes: their names.
        """
        among = None
        if self.conformal is not None:
            inside = self.conformal.sets(logits)
            among = tuple(name for name, there in zip(classes, inside, strict=True) if there)
        if self.calibration is None:
            return Judged(own, spread, among, {})
        told = {"probabilities": own.tolist(), "spread": spread}
        error = None if spread is None else self.calibration.spread(logits, spread)
        return Judged(self.calibration.probabilities(logits), error, among, {"uncalibrated": told})

    @property
    def digest(self) -> str:
        """What tells one fit from another; empty where nothing is fitted."""
        parts = {name: part for name, part in self.as_config().items() if not _reason(part)}
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest() if parts else ""

    @property
    def sentences(self) -> tuple[str, ...]:
        """What people should know where probabilities and labels are explained, one sentence each."""
        why = self.missing
        plain = NOT_CALIBRATED + (f" ({why['calibration']}.)" if why.get("calibration") else "")
        no_sets = f"No label is withheld: {why['conformal']}." if why.get("conformal") else ""
        no_traits = f"No slide is called unlike the training: {why['familiar']}." if why.get("familiar") else ""
        found = (
            self.calibration.sentence if self.calibration else plain,
            self.conformal.told(self.folds) if self.conformal else no_sets,
            self.familiar.sentence if self.familiar else no_traits,
        )
        return tuple(filter(None, found))


NOTHING = Certainty()
"""Of a model whose folder says nothing."""
PARTS = ("calibration", "conformal", "familiar")
"""Entries of config.json."""


def _part(config: Mapping[str, object], name: str, read: Callable[[object], T]) -> T | None:
    found = config.get(name)
    if found is None or _reason(found):
        return None
    try:
        return read(found)
    except ValueError as error:
        raise ValueError(f"{name!r} is damaged: {error}") from error


def _reason(found: object) -> str:
    """Return why a part is missing; empty where it is there, or nobody says."""
    reason = found.get("missing") if isinstance(found, Mapping) else None
    return reason if isinstance(reason, str) else ""
