"""What is known of a set of predictions: named figures, each with its interval, and the mean loss."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from wsi_attention.statistics.intervals import NONE


@dataclass(frozen=True)
class Figure:
    """One number about many predictions.

    Attributes:
        name: as people read it, such as "C-index".
        value: NaN where it does not exist.
        interval: 95 %.
    """

    name: str
    value: float
    interval: tuple[float, float] = NONE

    @property
    def key(self) -> str:
        """The name as a column or a key, such as "c_index"."""
        return re.sub(r"\W+", "_", self.name.casefold()).strip("_")


@dataclass(frozen=True)
class Judgement:
    """How predictions fit the truth.

    Attributes:
        n: slides.
        patients: whose slides they are; as many as slides where nobody says.
        loss: the mean loss that training makes small.
        figures: the first one tells the best epoch: the higher, the better.
    """

    n: int
    patients: int
    loss: float
    figures: tuple[Figure, ...]

    def as_dict(self) -> dict[str, object]:
        """Return plain JSON values; NaN is None."""
        found: dict[str, object] = {"n": self.n, "patients": self.patients, "loss": _finite(self.loss)}
        for one in self.figures:
            found[one.key] = _finite(one.value)
            found[f"{one.key}_interval_95"] = [_finite(end) for end in one.interval]
        return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
