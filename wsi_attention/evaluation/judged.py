"""The slides that judge, as arrays: probabilities, labels, and whose slides they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Judged:
    """Slides with a label and a prediction, sorted by name.

    Attributes:
        classes: their names.
        names: (n,) of the slides.
        probabilities: (n, classes).
        labels: (n,) class indices.
        owners: (n,) whose slide each is; the slide's own name where nobody says.
        parts: (n,) what the column `split` says, None where there is none.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    probabilities: NDArray[np.float64]
    labels: NDArray[np.int64]
    owners: tuple[str, ...]
    parts: tuple[str | None, ...]

    @property
    def patients(self) -> NDArray[np.int64]:
        """(n,) numbers of the patients."""
        found: NDArray[np.int64] = np.unique(np.asarray(self.owners), return_inverse=True)[1].astype(np.int64)
        return found

    @property
    def n_patients(self) -> int:
        """How many patients there are."""
        return len(set(self.owners))

    def taken(self, chosen: Sequence[bool] | NDArray[np.bool_]) -> Judged:
        """Return some of the slides; (n,), True for those to keep."""
        kept = np.flatnonzero(np.asarray(chosen, bool))
        return Judged(
            self.classes,
            tuple(self.names[i] for i in kept),
            self.probabilities[kept],
            self.labels[kept],
            tuple(self.owners[i] for i in kept),
            tuple(self.parts[i] for i in kept),
        )
