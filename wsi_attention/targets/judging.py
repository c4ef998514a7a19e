"""Figures of a set of slides with their intervals over patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from wsi_attention.statistics.figures import Figure, Judgement
from wsi_attention.statistics.resampling import Weighted, bootstrap_interval, whole


def judgement(loss: float, figures: Mapping[str, Weighted], n: int, patients: Sequence[str] | None) -> Judgement:
    """Return the figures of n slides, each with its interval.

    Args:
        loss: the mean loss.
        figures: name -> figure; the first one tells the best epoch.
        n: slides.
        patients: (n,), whose slide each is; each its own where None.
    """
    own = np.arange(n) if patients is None else np.unique(np.asarray(patients), return_inverse=True)[1]
    found = tuple(Figure(name, whole(one, n), bootstrap_interval(one, own)) for name, one in figures.items())
    return Judgement(n, len(np.unique(own)), loss, found)
