"""Whether the tile that weighs most lies on an outlined lesion."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsi_attention.csv_table import read_table
from wsi_attention.errors import InputError
from wsi_attention.inference.batch.matching import SlideNames
from wsi_attention.json_values import parse
from wsi_attention.statistics.intervals import proportion_interval

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

BOX = ("minx", "miny", "width", "height")
"""Columns of a table of tiles that say where a tile lies."""


@dataclass(frozen=True)
class Localisation:
    """How often the highest-weighted tile of the last glimpse lies on a lesion.

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

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share, over slides."""
        return proportion_interval(np.arange(self.positives) < self.hits)


def locate(groundtruth: Path, results: Path, names: list[str]) -> Localisation:
    """Find out, for each slide with outlined lesions, whether the tile with the highest weight touches one.

    Where a model looked more than once, the last glimpse counts: earlier ones are larger views on the way.

    Raises:
        InputError: no such folder, a file in it is no GeoJSON, or there are lesions but no tables of tiles.
    """
    if not groundtruth.is_dir():
        raise InputError(f"{groundtruth} is no folder; -g takes a folder of <slide>.geojson")
    outlines = _outlines(groundtruth, names)
    lesions = {name: found for name, path in outlines.items() if (found := _lesions(path)) is not None}
    tables = {name: results / "tiles" / f"{name}.csv" for name in lesions}
    there = {name: _tiles(table) for name, table in tables.items() if table.is_file()}
    hits = {name: _touches(tiles, lesions[name]) for name, tiles in there.items() if tiles}
    if lesions and not there:
        raise InputError(f"{results / 'tiles'}: no table of tiles for any of {len(lesions)} slides with lesions")
    return Localisation(len(hits), sum(hits.values()), tuple(name for name, hit in hits.items() if not hit))


def _outlines(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the file of outlines of each slide that has one."""
    index = SlideNames(folder, "keep the folders of the slides")
    for file in sorted(folder.rglob("*.geojson")):
        index.add(str(file), (file.relative_to(folder).as_posix().removesuffix(".geojson"),))
    found: dict[str, str] = {}
    for name in names:
        path = index.find(name)
        if path in found:
            raise InputError(f"{path} could be about {found[path]} and about {name}; keep the folders of the slides")
        if path is not None:
            found[path] = name
    return {name: Path(path) for path, name in found.items()}


def _lesions(path: Path) -> BaseGeometry | None:
    import shapely

    try:
        features = list(_features(parse(path.read_text(encoding="utf-8-sig"))))
        union = shapely.union_all(
            [shapely.make_valid(shapely.geometry.shape(feature["geometry"])) for feature in features]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, shapely.lib.ShapelyError) as error:
        raise InputError(f"{path} cannot be read as GeoJSON: {error}") from error
    return None if union.is_empty else union


def _features(content: object) -> Iterator[Mapping[str, object]]:
    """Yield the features of a collection, of a bare list (older QuPath), or one feature alone."""
    if isinstance(content, Mapping) and content.get("type") == "Feature":
        content = [content]
    found = content["features"] if isinstance(content, Mapping) else content
    if not isinstance(found, list):
        raise TypeError("it has no list of features")
    yield from found


def _tiles(table: Path) -> list[Mapping[str, str]]:
    """Return the rows of a table of tiles; none where the method read none."""
    rows = read_table(table)
    missing = [column for column in (*BOX, "weight") if column not in rows.columns]
    if missing:
        raise InputError(f"{table}: column {missing[0]!r} is missing; found: {', '.join(rows.columns)}")
    return [cells for _, cells in rows.rows]


def _touches(tiles: Sequence[Mapping[str, str]], lesions: BaseGeometry) -> bool:
    import shapely

    read = [cells for cells in tiles if cells["weight"] and float(cells["weight"]) > 0]
    if not read:
        return False
    last = read[-1].get("glimpse")
    best = max((cells for cells in read if cells.get("glimpse") == last), key=lambda cells: float(cells["weight"]))
    x, y, w, h = (float(best[column]) for column in BOX)
    return bool(shapely.box(x, y, x + w, y + h).intersects(lesions))
