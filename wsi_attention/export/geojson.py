"""What QuPath shows of a prediction: every tile that was read as a tile object, the heaviest regions as annotations.

QuPath crops a slide to its bounds, so coordinates are level-0 pixels minus the bounds offset; the offset stands in the
file's `metadata`, which QuPath skips.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from wsi_attention.errors import GeoJSONError, InputError
from wsi_attention.export.geos import GEOS
from wsi_attention.export.measures import clipped, deciding, heaviest, map_of, percentiles
from wsi_attention.export.qupath import is_byte, validate_parts
from wsi_attention.json_values import parse
from wsi_attention.structures import Glimpse, Prediction

Bounds = Literal["auto", "none"]

NAMESPACE = UUID("5b6ae4c3-30cf-5d0c-9d5c-8d2f9a1c7e40")
"""Ids are UUIDv5 in this namespace; changing it would change the ids of every export."""

DIGITS = 5
"""Significant digits of measurements: more than a reader needs, and 20,000 tiles stay below 8 MB."""

PART = 256
"""Objects that are checked together before they are written."""

INSPECTED = {"color": [0, 114, 178], "name": "Inspected"}
UNREADABLE = {"color": [128, 128, 128], "name": "Not readable"}

Colour = tuple[int, int, int]
CLASS_COLOURS: tuple[Colour, ...] = (
    *((0, 158, 115), (213, 94, 0), (204, 121, 167)),
    *((230, 159, 0), (86, 180, 233), (240, 228, 66)),
)
"""Colours that can be told apart with every kind of colour vision (Okabe and Ito)."""


def geojson_features(prediction: Prediction, bounds: Bounds = "auto", top: int = 5) -> dict[str, object]:
    """Return a prediction as a GeoJSON FeatureCollection in QuPath's terms.

    Tiles carry the numbers that they counted with. `Attention` is the raw attention of the cell a tile was drawn from,
    `Attention percentile` the percent of the map's tissue cells that are no higher, `Sampling probability` the chance
    of one draw to pick that cell, only where tiles were drawn at random, `Weight` the tile's share in the slide's
    feature. Numbers that are not finite are left out. The class of an annotation is the label, with the purpose of a
    model that is not one in earnest. A tile that could not be read carries no weight and the class "Not readable".
    Where a model looked more than once, a tile's name says in which glimpse it was read.

    Args:
        prediction: what to show.
        bounds: "auto" subtracts the offset of the slide's bounds, as QuPath shows it; "none" keeps level-0 pixels.
        top: how many of the heaviest tiles become annotations; those that touch become one.

    Raises:
        InputError: bounds is neither "auto" nor "none".
    """
    loaded: dict[str, object] = json.loads(GeoJSONExporter(bounds, top).text(prediction))
    return loaded


def bounds_of(text: str) -> Bounds:
    """Return the text as a choice of bounds.

    Raises:
        InputError: neither "auto" nor "none".
    """
    if text == "auto":
        return "auto"
    if text == "none":
        return "none"
    raise InputError(f"QuPath bounds {text!r} are unknown; possible: auto, none")


@dataclass(frozen=True)
class GeoJSONExporter:
    """Writes `geojson_features` for QuPath, never a file that QuPath would drop.

    Attributes:
        bounds: "auto" for coordinates as QuPath shows the slide, "none" for level-0 pixels.
        top: how many of the heaviest tiles become annotations.
        colours: (red, green, blue) of the classes; class k of the model has colour k, and they start again after the
            last one.
        least_weight: tiles of a lower weight are left out. Tiles that could not be read are always written.
        least_percentile: tiles whose attention percentile is lower, or unknown, are left out likewise.
        gzip: whether to compress the files; QuPath reads .geojson.gz too.
    """

    bounds: Bounds = "auto"
    top: int = 5
    colours: tuple[Colour, ...] = CLASS_COLOURS
    least_weight: float = 0.0
    least_percentile: float = 0.0
    gzip: bool = False

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            InputError: one of them is not possible.
        """
        bounds_of(self.bounds)
        if not self.colours or not all(_is_colour(colour) for colour in self.colours):
            raise InputError(f"colours {self.colours!r}: give (red, green, blue) of 0 to 255 for each class")
        if not 0 <= self.least_percentile <= 100:
            raise InputError(f"least_percentile must lie between 0 and 100, got {self.least_percentile}")

    @property
    def suffix(self) -> str:
        """Where files go in the results folder."""
        return "geojson/{slide}.geojson.gz" if self.gzip else "geojson/{slide}.geojson"

    def __call__(self, prediction: Prediction, path: str | Path) -> None:
        """Write the file; compressed where `gzip` is set or the path ends in .gz. Same prediction, same bytes.

        Raises:
            GeoJSONError: QuPath would drop or change an object; nothing is written.
        """
        raw = self.text(prediction, checked=True).encode("ascii")
        packed = self.gzip or Path(path).suffix == ".gz"
        Path(path).write_bytes(gzip.compress(raw, 6, mtime=0) if packed else raw)

    def text(self, prediction: Prediction, checked: bool = False) -> str:
        """Return the file's text.

        Args:
            prediction: what to show.
            checked: whether to raise where QuPath would not read it as it is meant.

        Raises:
            GeoJSONError: QuPath would drop or change an object.
        """
        offset = prediction.bounds if self.bounds == "auto" else (0, 0)
        found = [_dumped(region) for region in _regions(prediction, offset, self)]
        for number in range(len(prediction.glimpses)):
            found += _tiles(prediction, number, offset, self)
        if checked:
            _check(prediction, offset, found)
        return _collected(found, _metadata(prediction, offset))


def rewrite_patient(path: Path, target: Path, patient: str) -> bool:
    """Write a file of the exporter with another patient in its metadata, and not one other byte changed.

    Args:
        path: the file, compressed or not.
        target: where to write.
        patient: whose slide it is.

    Returns:
        Whether it could be done; False where the file is damaged.
    """
    packed = path.suffix == ".gz"
    raw = path.read_bytes()
    try:
        content = parse(gzip.decompress(raw) if packed else raw)
        content["metadata"]["patient"] = patient
        raw = _dumped(content).encode("ascii")
    except (ValueError, KeyError, TypeError, EOFError, gzip.BadGzipFile, zlib.error):
        return False
    target.write_bytes(gzip.compress(raw, 6, mtime=0) if packed else raw)
    return True


def _is_colour(colour: Sequence[int]) -> bool:
    return len(colour) == 3 and all(map(is_byte, colour))


def _check(prediction: Prediction, offset: tuple[int, int], found: list[str]) -> None:
    """Raise GeoJSONError unless QuPath reads all objects as they are meant."""
    parts = (json.loads(f"[{','.join(found[k : k + PART])}]") for k in range(0, len(found), PART))
    problems = validate_parts(parts, (prediction.extent[0] - offset[0], prediction.extent[1] - offset[1]))
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise GeoJSONError(f"{prediction.slide}: QuPath would not read the objects as meant: {problems[0]}{more}")


def _collected(found: list[str], facts: Mapping[str, object]) -> str:
    return f'{{"features":[{",".join(found)}],"metadata":{_dumped(facts)},"type":"FeatureCollection"}}'


def _tiles(prediction: Prediction, number: int, offset: tuple[int, int], options: GeoJSONExporter) -> list[str]:
    """Return the tiles of one glimpse as JSON; a box drawn several times is one object with its weights added."""
    glimpse = prediction.glimpses[number]
    boxes = _shown(prediction, glimpse, offset)
    _, first, member = np.unique(glimpse.tiles.locations[0], axis=0, return_index=True, return_inverse=True)
    total = np.bincount(member.ravel(), glimpse.weights, minlength=len(first))[member.ravel()]
    weights = np.where(glimpse.valid, total, np.nan).astype(np.float64)
    ranks = percentiles(glimpse.attention, map_of(prediction, number))
    wanted = ~glimpse.valid | (_reaches(weights, options.least_weight) & _reaches(ranks, options.least_percentile))
    order = np.sort(first[(boxes[first, 2] > 0) & (boxes[first, 3] > 0) & wanted[first]])
    drawn = {"Sampling probability": glimpse.attention[order]} if glimpse.drawn else {}
    measured = _measured(
        {
            "Attention": glimpse.attention[order],
            "Attention percentile": ranks[order],
            **drawn,
            "Weight": weights[order],
        }
    )
    names = _identities(prediction, number, glimpse, order)
    looks = _dumped(UNREADABLE), _dumped(INSPECTED)
    ending = f'"name":{_dumped(glimpse.name)},' if len(prediction.glimpses) > 1 else ""
    rows = zip(names, boxes[order].tolist(), glimpse.valid[order].tolist(), measured, strict=True)
    return [_tile(name, box, looks[valid], numbers, ending) for name, box, valid, numbers in rows]


def _reaches(values: NDArray[np.float64], least: float) -> NDArray[np.bool_]:
    """Return which values are at least as high; all of them where nothing is asked for."""
    return np.ones(len(values), np.bool_) if least <= 0 else np.nan_to_num(values, nan=-1.0) >= least


def _tile(name: str, box: list[int], look: str, numbers: str, more: str) -> str:
    """Return JSON as `json.dumps` writes it with sorted keys, in an eighth of the time."""
    x, y, w, h = box
    right, low = x + w, y + h
    return (
        f'{{"geometry":{{"coordinates":[[[{x},{y}],[{right},{y}],[{right},{low}],[{x},{low}],[{x},{y}]]],'
        f'"type":"Polygon"}},"id":"{name}","properties":{{"classification":{look},"measurements":{{{numbers}}},'
        f'{more}"objectType":"tile"}},"type":"Feature"}}'
    )


def _measured(columns: dict[str, NDArray[np.float64]]) -> list[str]:
    """Return each tile's measurements as the inside of a JSON object; numbers that are not finite are left out."""
    parts = [
        [f'"{key}":{value!r}' if math.isfinite(value) else "" for value in _short_numbers(values)]
        for key, values in columns.items()
    ]
    return [",".join(filter(None, row)) for row in zip(*parts, strict=True)]


def _dumped(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _regions(prediction: Prediction, offset: tuple[int, int], options: GeoJSONExporter) -> list[dict[str, object]]:
    """Return the heaviest tiles of the deciding glimpse, united where they touch, heaviest region first."""
    glimpse = deciding(prediction)
    if glimpse is None:
        return []
    boxes = _shown(prediction, glimpse, offset)
    picked = np.array([k for k in heaviest(glimpse, options.top) if boxes[k, 2] > 0 and boxes[k, 3] > 0], np.int64)
    if not len(picked):
        return []
    x, y, w, h = boxes[picked].T
    squares = GEOS.box(x, y, x + w, y + h)
    parts = GEOS.get_parts(GEOS.unary_union(squares))
    inside = np.array([GEOS.covers(part, squares) for part in parts])
    total = np.array([_weight_of(glimpse, picked[members]) for members in inside])
    order = np.lexsort((np.argmax(inside, axis=1), -total))
    return [
        _region(prediction, rank, parts[k], float(total[k]), picked[inside[k]], options.colours)
        for rank, k in enumerate(order, start=1)
    ]


UNDECIDED_COLOUR: Colour = (128, 128, 128)
"""Of regions whose label is undecided: no class's."""


def _region(
    prediction: Prediction,
    rank: int,
    shape: BaseGeometry,
    weight: float,
    tiles: NDArray[np.int64],
    colours: tuple[Colour, ...],
) -> dict[str, object]:
    at = prediction.classes.index(prediction.highest) if prediction.highest in prediction.classes else 0
    colour = list(colours[at % len(colours)]) if prediction.decided else list(UNDECIDED_COLOUR)
    number = next(n for n, one in enumerate(prediction.glimpses) if one is deciding(prediction))
    glimpse = prediction.glimpses[number]
    measurements = {"Rank": rank, "Tiles": len(tiles), "Weight": _short_numbers(np.array([weight]))[0]}
    highest = percentiles(glimpse.attention[tiles], map_of(prediction, number))
    if np.isfinite(highest).any():
        measurements["Attention percentile"] = _short_numbers(np.array([np.nanmax(highest)]))[0]
    properties = {
        "objectType": "annotation",
        "name": f"Attention rank {rank}",
        "classification": {"name": prediction.shown_label, "color": colour},
        "measurements": measurements,
    }
    shape = GEOS.normalize(GEOS.simplify(shape, 0))
    return {
        "type": "Feature",
        "id": _identity(f"{_origin(prediction)}/region/{rank}/{shape.wkt}"),
        "geometry": {"type": "Polygon", "coordinates": _rings(shape)},
        "properties": properties,
    }


def _rings(shape: BaseGeometry) -> list[list[list[int]]]:
    """Return whole-pixel rings of a polygon, outer ring first and turning as RFC 7946 asks, holes the other way."""
    shape = GEOS.geometry.polygon.orient(shape)
    return [[[int(x), int(y)] for x, y in ring.coords] for ring in (shape.exterior, *shape.interiors)]


def _weight_of(glimpse: Glimpse, tiles: NDArray[np.int64]) -> float:
    """Return the weight of some boxes together, every draw of them counted."""
    same = (glimpse.tiles.locations[0][:, None] == glimpse.tiles.locations[0][tiles]).all(axis=2).any(axis=1)
    return float(glimpse.weights[same & glimpse.valid].sum())


def _shown(prediction: Prediction, glimpse: Glimpse, offset: tuple[int, int]) -> NDArray[np.int64]:
    """Return (n, 4) boxes of a glimpse in QuPath's coordinates, clipped to what QuPath shows."""
    moved = glimpse.tiles.boxes[0] - np.array([*offset, 0, 0])
    return clipped(moved, (prediction.extent[0] - offset[0], prediction.extent[1] - offset[1]))


def _origin(prediction: Prediction) -> str:
    facts = prediction.provenance
    return f"{facts.get('fingerprint') or prediction.slide}/{facts.get('weights_sha256', '')}"


def _identities(prediction: Prediction, number: int, glimpse: Glimpse, order: NDArray[np.int64]) -> list[str]:
    """Return UUIDv5 of slide, weights, glimpse and box: the same tile has the same id in every run."""
    stem = f"{_origin(prediction)}/{number}/{glimpse.name}"
    boxes = glimpse.tiles.boxes[0][order].tolist()
    return [_identity(f"{stem}/{x},{y},{w},{h}") for x, y, w, h in boxes]


def _identity(name: str) -> str:
    """Return the UUIDv5 of a name, eight times as fast as the standard library, which matters with many tiles."""
    code = hashlib.sha1(NAMESPACE.bytes + name.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(code[16], 16) & 3]
    return f"{code[:8]}-{code[8:12]}-5{code[13:16]}-{variant}{code[17:20]}-{code[20:32]}"


def _short_numbers(values: NDArray[np.float64]) -> list[float]:
    """Round to at most `DIGITS` significant digits, so that JSON writes no more."""
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]


def _metadata(prediction: Prediction, offset: tuple[int, int]) -> dict[str, object]:
    probabilities = _short_numbers(np.asarray(prediction.probabilities, np.float64))
    facts = {
        "slide": Path(prediction.slide).name,
        "patient": prediction.patient,
        "label": prediction.label,
        "probabilities": dict(zip(prediction.classes, probabilities, strict=True)),
        **({"values": dict(prediction.values)} if prediction.values else {}),
        "status": prediction.status,
        "spread": prediction.spread,
        "unread_mass": prediction.unread_mass,
        "set": None if prediction.among is None else list(prediction.among),
        "unlike_training": prediction.unlike,
        "calibrated": prediction.calibrated or None,
        "certified": prediction.certified,
        "purpose": prediction.purpose,
        "notes": list(prediction.remarks),
        "extent": list(prediction.extent),
        "offset": [int(value) for value in offset],
        "units": "level-0 pixels minus offset",
        "use": "research use only",
    }
    facts = {key: value for key, value in facts.items() if value not in (None, "")}
    known = ["bounds", "fingerprint", "weights_sha256", "seed", "exact", "tolerance", "budget", "unread", "certify"]
    known += ["certificate", "versions"]
    return facts | {key: prediction.provenance[key] for key in known if key in prediction.provenance}
