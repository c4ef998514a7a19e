"""How finely a slide is shown behind its heatmap."""

from __future__ import annotations

from wsi_attention.slide.slide import Slide
from wsi_attention.structures import Prediction

ENOUGH = 800
"""Longer side in pixels above which the overview that was read anyway will do."""
SHARP = 1500
"""Longer side of the finer overview read where it does not."""
AFFORDABLE = 16_000_000
"""Pixels of a stored level that may be read for the picture alone."""


def picture_downsample(slide: Slide, prediction: Prediction) -> float:
    """Level-0 pixels per pixel of the overview behind a heatmap; the same for the same slide and prediction.

    The overview that tissue was found on will do where it is large enough. A small slide's would be a blur: it is read
    once more, as finely as the picture shows it, unless the file stores no level that is small enough for that.
    """
    longest = max(slide.dimensions)
    known = prediction.tissue.downsample if prediction.tissue.source == "computed" else longest / ENOUGH
    if longest / known >= ENOUGH:
        return max(1.0, known)
    sizes = zip(slide.level_downsamples, slide.level_dimensions, strict=True)
    stored = [downsample for downsample, (w, h) in sizes if w * h <= AFFORDABLE]
    return max(1.0, longest / SHARP, min(stored)) if stored else max(1.0, known)
