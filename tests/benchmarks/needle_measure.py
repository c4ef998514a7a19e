"""What every row of the needle benchmark says of a slide whose every tumour cell is known."""

from __future__ import annotations

import json
import resource
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from needle_baselines import BASELINES, drawn, restore
from needle_remembered import Slides, recall
from needle_slides import CELLS
from needle_tiles import SIDE
from numpy.typing import NDArray

from wsi_attention.checkpoint import Classifier
from wsi_attention.inference.predict import predict
from wsi_attention.slide.slide import open_slide
from wsi_attention.statistics.curves import average_precision
from wsi_attention.structures import Prediction

if TYPE_CHECKING:
    from needle import Place

FINE = 4
"""Points per cell and axis at which a map is looked up."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What a row says of a slide.

    Attributes:
        probability: of tumour.
        tiles: how many were read.
        read: their area, of the tissue's.
        hit: 1 where the tile with the highest weight touches tumour, NaN without tiles.
        cells: the row's map on the cells of the slide, (56, 56).
    """

    probability: float
    tiles: int
    read: float
    hit: float
    cells: NDArray[np.float64]


Looker = Callable[[Path], Seen]


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


def measured(look: Looker, folder: Path, negatives: dict[str, Seen]) -> dict[str, Any]:
    """Look at every slide of a set: lists, a value a slide; of negatives, hit, pointing and AUPRC are None.

    Negatives that were looked at in another set are not looked at again; those that are new are added.

    `lesion` is the number of tumour cells, `pointing` whether the highest cell of the map is one of them, `auprc` the
    area under precision-recall of the map over tissue, `seconds` the median a slide with opening and overview.
    """
    paths = sorted(folder.glob("needle_*.tiff"))
    truths, seconds, seen = [truth_of(path) for path in paths], [], []
    for path in paths:
        start = time.perf_counter()
        seen.append(negatives.get(path.stem) or look(path))
        if path.stem not in negatives:
            seconds.append(time.perf_counter() - start)
    negatives |= {path.stem: one for path, one, truth in zip(paths, seen, truths, strict=True) if not truth.label}
    both = list(zip(seen, truths, strict=True))
    return {
        "names": [path.stem for path in paths],
        "label": [truth.label for truth in truths],
        "lesion": [int(truth.tumour.sum()) for truth in truths],
        "tissue": [int(truth.tissue.sum()) for truth in truths],
        "probability": [one.probability for one in seen],
        "tiles": [one.tiles for one in seen],
        "read": [one.read for one in seen],
        "hit": [_where_positive(one.hit, truth) for one, truth in both],
        "pointing": [_where_positive(float(truth.tumour.flat[one.cells.argmax()]), truth) for one, truth in both],
        "auprc": [_where_positive(_precision(one.cells, truth), truth) if truth.label else None for one, truth in both],
        "seconds": float(np.median(seconds)),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _where_positive(value: float, truth: Truth) -> float | None:
    return value if truth.label and not np.isnan(value) else None


def method_looker(classifier: Classifier, exact: bool = False, draws: int | None = None) -> Looker:
    """Return what predicts as the product does.

    Args:
        classifier: a trained model.
        exact: every cell is evaluated.
        draws: tiles a slide in place of the model's own number.
    """
    if draws is not None:
        with_budget(classifier, draws)

    def look(path: Path) -> Seen:
        with open_slide(str(path)) as slide:
            found = predict(slide, classifier, device="cpu", exact=exact)
        truth = truth_of(path)
        tiles = sum(int(glimpse.valid.sum()) for glimpse in found.glimpses)
        read = _read(found) / (truth.tissue.sum() * SIDE**2)
        return Seen(float(found.probabilities[1]), tiles, float(read), hits(found, truth), evidence_map(found))

    return look


def with_budget(classifier: Classifier, tiles: int) -> None:
    """Make a model read another number of tiles a slide, drawn and grown ones in the shares that it has.

    Raises:
        TypeError: it has no such number.
    """
    model = classifier.model
    own, options = getattr(model, "draws", None), getattr(model, "options", None)
    if not isinstance(own, int):
        raise TypeError(f"{classifier.name} has no number of draws that could be changed")
    grown = int(getattr(options, "growth", 0)) * int(getattr(options, "rounds", 0))
    share = tiles / (own + grown)
    model.draws = max(1, round(own * share))
    if grown:
        model.options = replace(options, growth=max(1, round(options.growth * share)))


def baseline_looker(place: Place, row: str, folder: Path, draws: int | None = None) -> Looker:
    """Look with a head on remembered features; random cells are the same each time.

    Args:
        place: where things lie.
        row: which description its cells have.
        folder: of the trained head.
        draws: cells a slide in place of the row's own number.
    """
    baseline, head = BASELINES[row], restore(folder / "head.safetensors")
    if draws is not None:
        baseline = replace(baseline, draws=draws)

    @cache
    def remembered(name: str) -> Slides:
        return recall(place.features, name, place.encoder if baseline.reads else "")

    @torch.inference_mode()
    def look(path: Path) -> Seen:
        slides = remembered(path.parent.name)
        at = slides.names.index(path.stem)
        bag, noise = baseline.describe(slides, at), _noise(folder, path)
        taken = drawn(baseline, bag, noise)
        scores, attention = head(bag[taken])
        cells, tiles = np.zeros(CELLS**2), len(taken) if baseline.reads else 0
        cells[slides.cells(at)[taken.numpy()]] = attention.numpy()
        hit = float(slides.tumour[at].flat[cells.argmax()]) if tiles else float("nan")
        read = tiles / float(slides.tissue[at].sum())
        return Seen(float(scores.softmax(dim=-1)[1]), tiles, read, hit, cells.reshape(CELLS, CELLS))

    return look


def _noise(folder: Path, path: Path) -> torch.Generator:
    """Chance that is the same each time a trained row looks at a slide."""
    return torch.Generator().manual_seed(zlib.crc32(f"{folder.name} {path.stem}".encode()))


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
