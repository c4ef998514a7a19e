"""What is measured of every row of the needle benchmark, on slides whose every tumour cell is known."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from needle_slides import CELLS
from needle_tiles import SIDE
from numpy.typing import NDArray

from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.statistics.curves import average_precision
from wsi_attention.statistics.intervals import auroc_interval
from wsi_attention.statistics.metrics import score
from wsi_attention.structures import Prediction

Predictor = Callable[[Slide], Prediction]
FINE = 4
"""Points per cell and axis at which a map is looked up."""


@dataclass(frozen=True)
class Row:
    """One method on one set of test slides.

    Attributes:
        slides: how many.
        auroc: slide label.
        interval: 95 %, over slides (`statistics.intervals`).
        tissue_read: area of the tiles read, of the tissue's; mean.
        hit: share of positives whose highest-weighted tile touches tumour; NaN without tiles.
        pointing: share of positives where the highest cell of the map is tumour.
        auprc: area under precision-recall of the map over tissue cells, mean over positives.
        chance: what a constant map would reach there.
        seconds: median a slide, opening and overview included.
        megabytes: peak memory of the process.
    """

    slides: int
    auroc: float
    interval: tuple[float, float]
    tissue_read: float
    hit: float
    pointing: float
    auprc: float
    chance: float
    seconds: float
    megabytes: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Truth:
    """What a slide holds: `tissue` and `tumour`, (56, 56) bool."""

    tissue: NDArray[np.bool_]
    tumour: NDArray[np.bool_]

    @property
    def label(self) -> int:
        """1 with tumour."""
        return int(self.tumour.any())


def truth_of(path: Path) -> Truth:
    """The layout that was written beside the slides."""
    about = json.loads((path.parent / "layout" / f"{path.stem}.json").read_text(encoding="utf-8"))
    masks = []
    for name in ("tissue", "tumour"):
        mask = np.zeros((CELLS, CELLS), np.bool_)
        mask[tuple(np.array(about[name], np.int64).reshape(-1, 2).T)] = True
        masks.append(mask)
    return Truth(*masks)


def measure(predictor: Predictor, folder: Path, limit: int | None = None) -> Row:
    """Predicts every slide of a folder."""
    paths = sorted(folder.glob("*.tiff"))[:limit]
    truths = [truth_of(path) for path in paths]
    seconds, seen = [], []
    for path in paths:
        start = time.perf_counter()
        with open_slide(str(path)) as slide:
            seen.append(predictor(slide))
        seconds.append(time.perf_counter() - start)
    probabilities = torch.tensor(np.stack([one.probabilities for one in seen]))
    labels = torch.tensor([truth.label for truth in truths])
    positive = [(one, truth) for one, truth in zip(seen, truths, strict=True) if truth.label]
    drawn = [(evidence_map(one), truth) for one, truth in positive]
    return Row(
        len(paths),
        score(probabilities, labels).auroc,
        auroc_interval(probabilities.numpy(), labels.numpy()),
        float(np.mean([_read(one) / (truth.tissue.sum() * SIDE**2) for one, truth in zip(seen, truths, strict=True)])),
        float(np.mean([hits(one, truth) for one, truth in positive])),
        float(np.mean([truth.tumour.flat[cells.argmax()] for cells, truth in drawn])),
        float(np.mean([_precision(cells, truth) for cells, truth in drawn])),
        float(np.mean([truth.tumour.sum() / truth.tissue.sum() for _, truth in drawn])),
        float(np.median(seconds)),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def hits(prediction: Prediction, truth: Truth) -> float:
    """1 where the tile with the highest weight overlaps a tumour cell; NaN where no tile was read."""
    if not prediction.glimpses:
        return float("nan")
    glimpse = prediction.glimpses[-1]
    x, y, w, h = (float(value) for value in glimpse.tiles.boxes[0, glimpse.weights.argmax()])
    rows, cols = (_touched(start, length) for start, length in ((y, h), (x, w)))
    return float(truth.tumour[rows, cols].any())


def _touched(start: float, length: float) -> slice:
    return slice(max(0, int(start // SIDE)), max(0, int(-(-(start + length) // SIDE))))


def evidence_map(prediction: Prediction) -> NDArray[np.float64]:
    """The method's own map on the cells of the slide, (56, 56): its class map where it has one, else its attention.

    Maps become densities, so that a finer map inside some cells of a coarser one can take its place there.
    """
    named = {found.name: found for found in prediction.maps}
    chosen: Sequence[str] = next(
        (names for names in (("class-1",), ("localisation",), ("attention", "zoom")) if names[0] in named), ()
    )
    points = (np.arange(CELLS * FINE) + 0.5) * SIDE / FINE
    canvas = np.zeros((CELLS * FINE, CELLS * FINE))
    for name in chosen:
        if name in named:
            grid = named[name].grid
            cols = np.floor((points - grid.origin[0]) / grid.step[0]).astype(int)
            rows = np.floor((points - grid.origin[1]) / grid.step[1]).astype(int)
            inside = np.ix_((rows >= 0) & (rows < grid.rows), (cols >= 0) & (cols < grid.cols))
            values = np.full(canvas.shape, np.nan)
            values[inside] = named[name].values[np.ix_(rows[_in(rows, grid.rows)], cols[_in(cols, grid.cols)])]
            density = values / (grid.step[0] * grid.step[1])
            canvas = np.where(np.isnan(density), canvas, density)
    return canvas.reshape(CELLS, FINE, CELLS, FINE).mean(axis=(1, 3))


def _in(index: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    return np.asarray((index >= 0) & (index < count))


def _precision(cells: NDArray[np.float64], truth: Truth) -> float:
    """Average precision of the map over the tissue; a constant map gets the tumour's share."""
    return average_precision(cells[truth.tissue].astype(np.float64), truth.tumour[truth.tissue].astype(bool))


def _read(prediction: Prediction) -> float:
    """Pixels of all tiles that were read, at the scale they were read at."""
    return float(
        sum(glimpse.valid.sum() * glimpse.tiles.size[0] * glimpse.tiles.size[1] for glimpse in prediction.glimpses)
    )
