"""Exports made again from a results folder: what classify recorded is enough, no model and no slide is needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import InputError, SlideError
from wsi_attention.inference.job import exporter_of
from wsi_attention.inference.picture import picture_downsample, pixels_for, shown_tiles
from wsi_attention.inference.states import stored_predictions
from wsi_attention.inference.superseded import twin
from wsi_attention.inference.writing import publish, remove, results_errors, temporary
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.slide.view import View
from wsi_attention.structures import Prediction


def export_again(
    results: str | Path, exporter: Any = "geojson", names: Iterable[str] = (), ending: str = ""
) -> Iterator[Path]:
    """Writes one kind of export for the slides of a results folder, giving each path once it is whole.

    A heatmap shows the slide where it can still be opened, the tissue mask where it cannot. The same export in its
    other form, compressed or not, is removed.

    Args:
        results: the folder that classify wrote.
        exporter: an `Exporter`, or the name of a registered one.
        names: slides as predictions.csv names them; all if empty.
        ending: put behind every path, e.g. ".gz" for compressed GeoJSON.

    Raises:
        ResultsError: no results there, no such slide, or the folder cannot be written.
        InputError: no such exporter.
    """
    chosen = exporter_of(exporter) if isinstance(exporter, str) else exporter
    for name, prediction in stored_predictions(results, names):
        path = Path(results) / f"{chosen.suffix.format(slide=name)}{ending}"
        unfinished = temporary(path)
        with results_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove(unfinished)
            sources = partial(reopened_overview, prediction), partial(reopened_tiles, prediction)
            chosen(prediction, unfinished, **pixels_for(chosen, overview=sources[0], tiles=sources[1]))
            publish(path)
            remove(Path(twin(str(path))))
        yield path


def reopened_overview(prediction: Prediction) -> NDArray[np.uint8] | None:
    """The slide for its heatmap, (h, w, 3) uint8; None where it has moved, changed or cannot be read."""
    try:
        with _reopened(prediction) as slide:
            return View(slide, picture_downsample(slide, prediction)).read_whole() if slide else None
    except (SlideError, InputError, OSError):
        return None


def reopened_tiles(prediction: Prediction) -> list[NDArray[np.uint8] | None]:
    """The tiles that weigh most, as the report shows them; empty where the slide moved, changed or cannot be read."""
    try:
        with _reopened(prediction) as slide:
            return shown_tiles(slide, prediction) if slide else []
    except (SlideError, InputError, OSError):
        return []


@contextmanager
def _reopened(prediction: Prediction) -> Iterator[Slide | None]:
    options = {"series": prediction.provenance.get("series")}
    with open_slide(prediction.slide, mpp=prediction.mpp, options=options) as slide:
        same = slide.fingerprint == prediction.provenance.get("fingerprint", slide.fingerprint)
        yield slide if same else None
