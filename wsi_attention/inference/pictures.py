"""Pixels for exporters that show some, and the tissue that `classify` looks for as a picture."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import ResultsError, SlideError
from wsi_attention.export.report import shown_boxes, shown_downsample
from wsi_attention.export.tissue_picture import draw_tissue, tissue_words
from wsi_attention.files import remove, results_errors, temporary
from wsi_attention.geometry import OVERVIEW_PIXELS
from wsi_attention.protocols import Exporter
from wsi_attention.slide.description import TissueDescription
from wsi_attention.slide.overviews import coarse_enough, pixels_at
from wsi_attention.slide.slide import Slide
from wsi_attention.slide.view import View
from wsi_attention.structures import Prediction, TissueMask
from wsi_attention.tiles.source import SlideSource

ENOUGH = 600
"""Longer side in pixels above which the overview that was read anyway will do."""
SHARP = 1500
"""Longer side of the finer overview read where it does not."""
AFFORDABLE = 16_000_000
"""Pixels of a stored level that may be read for the picture alone."""
AS_IT_IS = 4_000_000
"""Pixels of a stored level that is shown without being averaged."""


def picture_downsample(slide: Slide, prediction: Prediction) -> float:
    """Return level-0 pixels per pixel of the overview behind a heatmap; the same for the same slide and prediction."""
    return downsample_beside(slide, prediction.tissue)


def downsample_beside(slide: Slide, tissue: TissueMask) -> float:
    """Return level-0 pixels per pixel of the overview that is shown with a tissue mask.

    The overview that tissue was found on will do where it is large enough. A small slide's would be a blur: it is read
    once more, at the coarsest stored level that is large enough, or averaged to the size of a picture, unless the file
    stores no level that is small enough for that. An overview that was seen in strips is shown by the finest one that
    is whole.
    """
    longest = max(slide.dimensions)
    known = tissue.downsample if tissue.source == "computed" else longest / ENOUGH
    if pixels_at(slide.dimensions, known) > OVERVIEW_PIXELS:
        known = coarse_enough(slide, OVERVIEW_PIXELS)
    if longest / known >= ENOUGH:
        return max(1.0, known)
    sizes = [(slide.level_downsamples[level], slide.level_dimensions[level]) for level in slide.levels]
    ready = [downsample for downsample, (w, h) in sizes if max(w, h) >= ENOUGH and w * h <= AS_IT_IS]
    if ready:
        return max(ready)
    stored = [downsample for downsample, (w, h) in sizes if w * h <= AFFORDABLE]
    return max(1.0, longest / SHARP, min(stored)) if stored else max(1.0, known)


def shown_tiles(slide: Slide, prediction: Prediction) -> list[NDArray[np.uint8] | None]:
    """Return pixels (h, w, 3) of the tiles that weigh most, as `export.report` shows them; None for unreadable ones.

    Raises:
        SlideOpenError: the slide cannot be opened any more.
    """
    return [_shown(slide, box) for box in shown_boxes(prediction)]


def _shown(slide: Slide, box: NDArray[np.int64]) -> NDArray[np.uint8] | None:
    downsample = shown_downsample(box)
    size = max(1, round(int(box[2]) / downsample)), max(1, round(int(box[3]) / downsample))
    try:
        return View(slide, downsample).read((int(box[0]), int(box[1])), size)
    except SlideError:
        return None


def shows_pixels(exporter: Exporter) -> bool:
    """Return whether an exporter shows pixels of the slide."""
    return bool({"overview", "tiles"} & inspect.signature(exporter).parameters.keys())


def write_unfinished(exporter: Exporter, prediction: Prediction, final: Path, **sources: Callable[[], object]) -> None:
    """Write an export under the temporary name of its final path; `files.publish` then renames it.

    Args:
        exporter: writes.
        prediction: what to write.
        final: where the export will lie.
        sources: what some exporters show, pixels or the slide's name, by the name of their argument; asked only where
            the exporter has it.

    Raises:
        ResultsError: disk full, or writing is not permitted.
    """
    path = temporary(final)
    with results_errors(final):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(path)
        write: Callable[..., None] = exporter
        taken = inspect.signature(exporter).parameters
        write(prediction, path, **{name: source() for name, source in sources.items() if name in taken})


def write_tissue(slide: Slide, path: str | Path) -> TissueDescription:
    """Find tissue as `classify` does, and write a picture of the mask over the overview as PNG.

    Raises:
        MissingMppError: the size of a pixel is not known.
        UnsupportedSlideError: not brightfield.
        TileReadError: the overview could not be read.
        ResultsError: the picture cannot be written.
    """
    source = SlideSource(slide)
    tissue, extent, mpp = source.tissue_mask, slide.dimensions, slide.mpp
    downsample = downsample_beside(slide, tissue)
    image = draw_tissue(tissue, source.overview_rgb(downsample), downsample, extent, mpp, slide.path)
    try:
        image.save(path, "PNG")
    except OSError as error:
        raise ResultsError(f"{path}: the picture cannot be written ({error.strerror or error})") from error
    return {
        "share": tissue.area / (extent[0] * extent[1]),
        "mm2": tissue.area * mpp**2 / 1e6,
        "mpp": tissue.downsample * mpp,
        "words": tissue_words(tissue, extent, mpp),
        "notes": list(tissue.notes),
        "picture": str(path),
    }
