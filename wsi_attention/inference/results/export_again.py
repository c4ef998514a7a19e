"""Exports made again from a results folder: the recorded predictions are enough, no model and no slide is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import InputError, SlideError
from wsi_attention.export.chosen import exporter_of, exporters_of
from wsi_attention.files import given_path, publish, remove, results_errors
from wsi_attention.inference.batch.discovery import SlideFile
from wsi_attention.inference.pictures import picture_downsample, shown_tiles, write_unfinished
from wsi_attention.inference.results.folder import remove_earlier, twin
from wsi_attention.inference.results.slide_key import first_look, second_look
from wsi_attention.inference.results.state import State, stored_results
from wsi_attention.protocols import Exporter
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.slide.view import View
from wsi_attention.structures import Prediction


def export_results(
    results: str | Path,
    what: str | Exporter | Iterable[str | Exporter] = "geojson",
    names: str | Iterable[str] = (),
    tell: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write exports for the slides of a results folder again, from the recorded predictions alone.

    Args:
        results: the folder that classify wrote.
        what: exporters, one or several: registered names, or exporters with options such as `GeoJSONExporter(top=10)`.
        names: slides as predictions.csv names them, one or several; all if empty.
        tell: is given a sentence about each slide that is there and has changed since; its picture shows no pixels.

    Returns:
        The files and folders that were written, kind by kind.

    Raises:
        ResultsError: no results there, no such slide, or the folder cannot be written.
        InputError: no such exporter.
    """
    folder = given_path(results, "results", "a folder that classify wrote")
    chosen = [names] if isinstance(names, str) else list(names)
    return [path for exporter in exporters_of(what) for path in export_again(folder, exporter, chosen, tell)]


def export_again(
    results: str | Path,
    exporter: str | Exporter = "geojson",
    names: Iterable[str] = (),
    tell: Callable[[str], None] | None = None,
) -> Iterator[Path]:
    """Write one kind of export for the slides of a results folder; yield each path once its file is whole.

    A heatmap shows the slide where it can still be opened and is what was classified: scale, levels, tags and content
    are compared as in a second run of classify. Elsewhere it shows the tissue mask. The same export in its other form,
    compressed or not, is removed.

    Args:
        results: the folder that classify wrote.
        exporter: an exporter, or the name of a registered one, which then has its default options.
        names: slides as predictions.csv names them; all if empty.
        tell: is given a sentence about each slide that is there and has changed since.

    Raises:
        ResultsError: no results there, no such slide, or the folder cannot be written.
        InputError: no such exporter.
    """
    chosen = exporter_of(exporter)
    for state, prediction in stored_results(results, names):
        path = Path(results) / chosen.suffix.format(slide=state.name)
        slide = Reopened(state, prediction, tell)
        pixels = {"overview": slide.overview, "tiles": slide.tiles}
        write_unfinished(chosen, prediction, path, slide_name=partial(str, state.name), **pixels)
        with results_errors(path):
            publish(path)
            remove(Path(twin(str(path))))
            remove_earlier(Path(results), state.name)
        yield path


def with_geojson(results: str | Path, names: Iterable[str] = (), tell: Callable[[str], None] | None = None) -> None:
    """Write GeoJSON for the slides of a results folder that have a prediction and none yet; as `export_again`.

    Raises:
        ResultsError: no results there, no such slide, or the folder cannot be written.
    """
    root, exporter = Path(results), exporter_of("geojson")
    paths = ((state.name, root / exporter.suffix.format(slide=state.name)) for state, _ in stored_results(root, names))
    missing = [name for name, path in paths if not path.is_file() and not Path(twin(str(path))).is_file()]
    for _ in export_again(root, exporter, missing, tell) if missing else ():
        pass


@dataclass
class Reopened:
    """The slide of a stored result, opened again for its pixels as long as it is what was classified.

    Attributes:
        state: of the result.
        prediction: the result.
        tell: is given a sentence where the slide has changed since; once.
    """

    state: State
    prediction: Prediction
    tell: Callable[[str], None] | None = None

    def overview(self) -> NDArray[np.uint8] | None:
        """Return the slide for its heatmap, (h, w, 3) uint8; None where it has moved, changed or cannot be read."""
        try:
            with self._open() as slide:
                return View(slide, picture_downsample(slide, self.prediction)).read_whole() if slide else None
        except (SlideError, InputError, OSError):
            return None

    def tiles(self) -> list[NDArray[np.uint8] | None]:
        """Return the tiles that weigh most, as the report shows them; none where `overview` returns None."""
        try:
            with self._open() as slide:
                return shown_tiles(slide, self.prediction) if slide else []
        except (SlideError, InputError, OSError):
            return []

    @contextmanager
    def _open(self) -> Iterator[Slide | None]:
        key, path = self.state.slide, self.prediction.slide
        first = first_look(SlideFile(path, "", mpp=key.mpp, series=key.series))
        with open_slide(path, mpp=key.mpp, options={"series": key.series}) as slide:
            now = replace(second_look(first, slide, path, key.content is not None), mask_sha256=key.mask_sha256)
            now = replace(now, features=key.features, beside=key.beside, beside_changed=key.beside_changed)
            why = key.difference(now)
            if why and self.tell:
                self.tell(f"{path}: {why}; exported without its pixels until classify has done it again")
                self.tell = None
            yield None if why else slide
