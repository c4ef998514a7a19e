"""What mypy --strict must make of the package in someone else's code; checked by tox env `types`, run by the suite."""

from __future__ import annotations

from typing import assert_type

import numpy as np
from numpy.typing import NDArray

from wsi_attention import Classifier, Glimpse, Prediction, Slide, TissueMask, WsiAttentionError

from wsi_attention import load_model, open_slide, predict  # isort: skip


def step(path: str, classifier: Classifier, tissue: TissueMask | None = None) -> Prediction | None:
    """A slide's prediction; None where it cannot be had."""
    try:
        with open_slide(path) as slide:
            assert_type(slide, Slide)
            assert_type(slide.dimensions, tuple[int, int])
            return predict(slide, classifier, tissue=tissue, device="cpu")
    except WsiAttentionError:
        return None


def boxes(prediction: Prediction) -> NDArray[np.int64]:
    """(1, n, 4) level-0 boxes of the first glimpse."""
    assert_type(prediction.label, str)
    assert_type(prediction.glimpses, tuple[Glimpse, ...])
    return prediction.glimpses[0].tiles.boxes


def classifier() -> Classifier:
    """The shipped model."""
    return load_model("demo")
