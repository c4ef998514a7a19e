"""How good a results folder is: its table against known labels, its tiles against outlined lesions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wsi_attention.errors import InputError
from wsi_attention.training.labels import Table, bare_name, read_labels, read_table
from wsi_attention.training.metrics import Scores, auroc_interval, score

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

JUDGED = ("done", "partial")
"""Statuses of slides that have a prediction."""
BOX = ("minx", "miny", "width", "height")
"""Columns of a table of tiles that say where a tile lies."""


@dataclass(frozen=True)
class Localisation:
    """Whether the highest-weighted tile of the last glimpse lies on a lesion.

    Attributes:
        positives: slides with outlined lesions and a table with tiles; methods that read none have none.
        hits: of these, those whose highest-weighted tile touches a lesion.
        missed: the others, by name.
    """

    positives: int
    hits: int
    missed: tuple[str, ...]

    @property
    def share(self) -> float:
        """hits / positives; NaN where there are none."""
        return self.hits / self.positives if self.positives else math.nan


@dataclass(frozen=True)
class Evaluation:
    """A results folder against the truth.

    Attributes:
        classes: in the order of the confusion table.
        scores: over the slides that have a label and a prediction.
        interval: 95 % bootstrap interval of the AUROC.
        unpredicted: labelled slides without a prediction, by name.
        unlabelled: predicted slides without a label, by name.
        localisation: None where no ground truth was given.
    """

    classes: tuple[str, ...]
    scores: Scores
    interval: tuple[float, float]
    unpredicted: tuple[str, ...]
    unlabelled: tuple[str, ...]
    localisation: Localisation | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN is None."""
        found = self.localisation
        low, high = (value if math.isfinite(value) else None for value in self.interval)
        return {
            "classes": list(self.classes),
            **self.scores.as_dict(),
            "auroc_interval_95": [low, high],
            "unpredicted": list(self.unpredicted),
            "unlabelled": list(self.unlabelled),
            "localisation": None
            if found is None
            else {"positives": found.positives, "hits": found.hits, "missed": list(found.missed)},
        }


def evaluate(
    predictions: str | Path,
    labels: str | Path,
    groundtruth: str | Path | None = None,
    results: str | Path | None = None,
) -> Evaluation:
    """Compares predictions.csv with labels, and with ground truth the tiles that were read.

    Args:
        predictions: the table, or the results folder that holds it.
        labels: CSV slide,label; names with or without suffix and folder.
        groundtruth: folder of `<slide>.geojson` with lesions in level-0 pixels.
        results: results folder with tiles/<slide>.csv; that of the table where None.

    Raises:
        InputError: a file is missing or has no such column, a label is no class of the table, nothing can be compared.
    """
    path = Path(predictions) / "predictions.csv" if Path(predictions).is_dir() else Path(predictions)
    table = read_table(path)
    classes, shares = _shares(path, table)
    truth, unpredicted = _truth(labels, shares, classes)
    if not truth:
        raise InputError(f"no slide has both a label in {labels} and a prediction in {path}")
    names = sorted(truth)
    probabilities = torch.tensor([shares[name] for name in names], dtype=torch.float64)
    index = torch.tensor([truth[name] for name in names])
    found = None
    if groundtruth is not None:
        found = locate(Path(groundtruth), Path(results) if results else path.parent, names)
    return Evaluation(
        classes,
        score(probabilities, index),
        auroc_interval(probabilities, index),
        unpredicted,
        tuple(sorted(set(shares) - set(truth))),
        found,
    )


def locate(groundtruth: Path, results: Path, names: list[str]) -> Localisation:
    """For each slide with outlined lesions, whether the tile with the highest weight touches one.

    Where a model looked more than once, the last glimpse counts: earlier ones are larger views on the way.

    Raises:
        InputError: no such folder, a file in it is no GeoJSON, or there are lesions but no tables of tiles.
    """
    if not groundtruth.is_dir():
        raise InputError(f"{groundtruth} is no folder; -g takes a folder of <slide>.geojson")
    lesions = {name: found for name in names if (found := _lesions(groundtruth, name)) is not None}
    tables = {name: results / "tiles" / f"{name}.csv" for name in lesions}
    there = {name: _tiles(table) for name, table in tables.items() if table.is_file()}
    hits = {name: _touches(tiles, lesions[name]) for name, tiles in there.items() if tiles}
    if lesions and not there:
        raise InputError(f"{results / 'tiles'}: no table of tiles for any of {len(lesions)} slides with lesions")
    return Localisation(len(hits), sum(hits.values()), tuple(name for name, hit in hits.items() if not hit))


def _shares(path: Path, table: Table) -> tuple[tuple[str, ...], dict[str, list[float]]]:
    columns = [column for column in table.columns if column.startswith("prob_")]
    if "slide" not in table.columns or len(columns) < 2:
        raise InputError(
            f"{path}: needs a column slide and two columns prob_<class>; found: {', '.join(table.columns)}"
        )
    shares = {}
    for line, cells in table.rows:
        if cells.get("status", "done") in JUDGED:
            try:
                shares[cells["slide"]] = [float(cells[column]) for column in columns]
            except ValueError as error:
                raise InputError(f"{path}, line {line}: {error}") from error
    return tuple(column.removeprefix("prob_") for column in columns), shares


def _truth(
    labels: str | Path, shares: Mapping[str, Any], classes: tuple[str, ...]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Class index by the predictions' slide names, and the labels' names that have no prediction."""
    known: dict[str, list[str]] = {}
    for name in shares:
        for alias in {name, bare_name(name), Path(name).name, bare_name(Path(name).name)}:
            known.setdefault(alias, []).append(name)
    folded = {label.lower(): i for i, label in enumerate(classes)}
    truth: dict[str, int] = {}
    unpredicted = []
    for row in read_labels(labels):
        if row.label.lower() not in folded:
            raise InputError(f"{labels}: label {row.label!r} is no class of the predictions ({', '.join(classes)})")
        forms = (row.slide, bare_name(row.slide))
        exact = [form for form in forms if form in shares][:1]
        names = exact or next((known[form] for form in (*forms, bare_name(Path(row.slide).name)) if form in known), [])
        if not names:
            unpredicted.append(row.slide)
        elif len(names) > 1:
            raise InputError(f"{labels}: slide {row.slide!r} could be {', '.join(names[:3])}; write its relative path")
        elif truth.setdefault(names[0], folded[row.label.lower()]) != folded[row.label.lower()]:
            raise InputError(f"{labels}: two rows give slide {names[0]} different labels; keep one of them")
    return truth, tuple(unpredicted)


def _lesions(folder: Path, name: str) -> BaseGeometry | None:
    candidates = [folder / f"{form}.geojson" for form in (name, Path(name).name, bare_name(Path(name).name))]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        return None
    import shapely
    from shapely.geometry import shape

    geos: Any = shapely
    outline: Any = shape
    try:
        features = list(_features(json.loads(path.read_text(encoding="utf-8-sig"))))
        union = geos.union_all([geos.make_valid(outline(feature["geometry"])) for feature in features])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, geos.errors.ShapelyError) as error:
        raise InputError(f"{path} cannot be read as GeoJSON: {error}") from error
    return None if union.is_empty else union


def _features(content: Any) -> Iterator[Mapping[str, Any]]:
    """Features of a collection, of a bare list (older QuPath), or one feature alone."""
    if isinstance(content, Mapping) and content.get("type") == "Feature":
        content = [content]
    yield from content["features"] if isinstance(content, Mapping) else content


def _tiles(table: Path) -> list[Mapping[str, str]]:
    """The rows of a table of tiles; none where the method read none."""
    rows = read_table(table)
    missing = [column for column in (*BOX, "weight") if column not in rows.columns]
    if missing:
        raise InputError(f"{table}: column {missing[0]!r} is missing; found: {', '.join(rows.columns)}")
    return [cells for _, cells in rows.rows]


def _touches(tiles: Sequence[Mapping[str, str]], lesions: BaseGeometry) -> bool:
    import shapely

    geos: Any = shapely
    read = [cells for cells in tiles if cells["weight"] and float(cells["weight"]) > 0]
    if not read:
        return False
    last = read[-1].get("glimpse")
    best = max((cells for cells in read if cells.get("glimpse") == last), key=lambda cells: float(cells["weight"]))
    x, y, w, h = (float(best[column]) for column in BOX)
    return bool(geos.box(x, y, x + w, y + h).intersects(lesions))
