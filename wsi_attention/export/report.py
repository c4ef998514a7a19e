"""A slide's part of `report.html`: its pictures and the text beside them, as one JSON file."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_attention.export.heatmap import overview_downsample
from wsi_attention.export.layers import Layer, ShownBox, attention_layer, boxes, jpeg_bytes, unseen_layer
from wsi_attention.export.legend import length_text, round_length, ticks
from wsi_attention.export.measures import area_read
from wsi_attention.json_values import JsonObject
from wsi_attention.structures import Prediction

FORMAT = 1
TOP = 5
"""Tiles that are shown at full resolution."""
LARGE, SMALL = 900, 240
"""Longer side in pixels of the overview, and of the thumbnail that a long report has instead."""
TILE_SIDE = 384
"""Longer side in pixels of a tile's picture, half as much again at most; a larger tile is shown coarser, and the page
says how coarse."""


class LayerPart(TypedDict):
    """A layer: a PNG in base64, and where it lies in level-0 pixels."""

    png: str
    name: str
    top: float
    x: float
    y: float
    w: float
    h: float


class TilePart(TypedDict):
    """A tile at full resolution: a JPEG in base64, None where it could not be read."""

    rank: int
    mpp: float
    jpeg: str | None


class Bar(TypedDict):
    """A scale bar: its text, and its length in level-0 pixels."""

    text: str
    pixels: float


class Part(TypedDict):
    """What a slide's file holds; pictures are in base64."""

    format: int
    width: int
    height: int
    mpp: float
    label: str
    called: NotRequired[bool]
    values: NotRequired[list[tuple[str, float]]]
    classes: list[str]
    probabilities: list[float]
    spread: float | None
    unread_mass: float | None
    among: list[str] | None
    unlike: float | None
    purpose: str
    tiles_read: int
    tiles_asked: int
    area_read: float
    bar: Bar
    notes: list[str]
    provenance: dict[str, object]
    overview: str
    thumbnail: str
    from_slide: bool
    attention: LayerPart | None
    ticks: list[tuple[float, float]]
    unseen: LayerPart | None
    boxes: list[ShownBox]
    tiles: list[TilePart]


def shown_boxes(prediction: Prediction) -> NDArray[np.int64]:
    """Return (n, 4) x, y, w, h in level-0 pixels of the tiles that weigh most, heaviest first, at most `TOP`."""
    top = [one for one in boxes(prediction) if one["rank"] is not None][:TOP]
    return np.array([[one["x"], one["y"], one["w"], one["h"]] for one in top], np.int64).reshape(-1, 4)


def shown_downsample(box: NDArray[np.int64]) -> float:
    """Return level-0 pixels per pixel of a tile's picture: a whole number, which makes it about `TILE_SIDE` large."""
    return float(max(1, round(int(max(box[2:])) / TILE_SIDE)))


class ReportExporter:
    """Writes the part; `inference.results.page` makes one page of all parts."""

    suffix: ClassVar[str] = "report/{slide}.json"

    def __call__(
        self,
        prediction: Prediction,
        path: str | Path,
        overview: NDArray[np.uint8] | None = None,
        tiles: Sequence[NDArray[np.uint8] | None] = (),
    ) -> None:
        """Write the file; the same prediction and pixels give the same bytes.

        Args:
            prediction: what to show.
            path: where to write.
            overview: (h, w, 3) uint8, the whole slide; without it the tissue mask stands in.
            tiles: pixels (h, w, 3) of each of `shown_boxes`, None where they could not be read.
        """
        part = _part(prediction, overview, tiles)
        if prediction.target != "label":
            part |= {"called": bool(prediction.called), "values": list(prediction.values)}
        Path(path).write_text(json.dumps(part, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def _part(
    prediction: Prediction, overview: NDArray[np.uint8] | None, tiles: Sequence[NDArray[np.uint8] | None]
) -> Part:
    read = [glimpse.valid for glimpse in prediction.glimpses]
    whole, attention = _whole(prediction, overview), attention_layer(prediction)
    marks = ticks(attention.top) if attention else []
    return {
        "format": FORMAT,
        "width": prediction.extent[0],
        "height": prediction.extent[1],
        "mpp": prediction.mpp,
        "label": prediction.label,
        "classes": list(prediction.classes),
        "probabilities": [float(share) for share in prediction.probabilities],
        "spread": prediction.spread,
        "unread_mass": prediction.unread_mass,
        "among": None if prediction.among is None else list(prediction.among),
        "unlike": prediction.unlike,
        "purpose": prediction.purpose,
        "tiles_read": sum(int(valid.sum()) for valid in read),
        "tiles_asked": sum(len(valid) for valid in read),
        "area_read": area_read(prediction),
        "bar": _scale_bar(prediction.extent[0], prediction.mpp),
        "notes": list(prediction.remarks),
        "provenance": dict(prediction.provenance),
        "overview": _encoded(jpeg_bytes(_within(whole, LARGE), 82)),
        "thumbnail": _encoded(jpeg_bytes(_within(whole, SMALL), 75)),
        "from_slide": overview is not None,
        "attention": _layer(attention),
        "ticks": [(mark, float(np.log(mark) / np.log(attention.top))) for mark in marks] if attention else [],
        "unseen": _layer(unseen_layer(prediction)),
        "boxes": boxes(prediction),
        "tiles": _tiles(prediction, tiles),
    }


def _scale_bar(width: int, mpp: float) -> Bar:
    """Return a round length of at most a fifth of the slide's width, as text and in level-0 pixels."""
    length = round_length(max(width * mpp / 5, 1e-3))
    return {"text": length_text(length), "pixels": length / mpp}


def _whole(prediction: Prediction, overview: NDArray[np.uint8] | None) -> Image.Image:
    """Return the overview, cut to the slide where its last row and column reach beyond; without one, tissue in pink."""
    if overview is None:
        tissue = np.array([[250, 250, 250], [232, 205, 218]], np.uint8)[prediction.tissue.mask.astype(np.uint8)]
        picture, downsample = Image.fromarray(tissue), prediction.tissue.downsample
    else:
        picture = Image.fromarray(np.ascontiguousarray(overview[..., :3]))
        downsample = overview_downsample(picture.size, prediction)
    shown = [min(e / downsample, float(p)) for e, p in zip(prediction.extent, picture.size, strict=True)]
    scale = min(1.0, LARGE / max(shown))
    size = max(1, round(shown[0] * scale)), max(1, round(shown[1] * scale))
    if scale == 1.0:
        return picture.crop((0, 0, *size))
    return picture.resize(size, Image.Resampling.BICUBIC, box=(0, 0, shown[0], shown[1]), reducing_gap=2.0)


def _within(picture: Image.Image, longest: int) -> NDArray[np.uint8]:
    scale = min(1.0, longest / max(picture.size))
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return np.asarray(picture if scale == 1.0 else picture.resize(size, Image.Resampling.BOX))


def _tiles(prediction: Prediction, tiles: Sequence[NDArray[np.uint8] | None]) -> list[TilePart]:
    """Return rank, mpp and picture of each of `shown_boxes`; their coordinates are in the list of boxes."""
    found: list[TilePart] = []
    for number, box in enumerate(shown_boxes(prediction)):
        pixels = tiles[number] if number < len(tiles) else None
        picture = None if pixels is None else _encoded(jpeg_bytes(pixels, 88))
        found.append({"rank": number + 1, "mpp": shown_downsample(box) * prediction.mpp, "jpeg": picture})
    return found


def _layer(layer: Layer | None) -> LayerPart | None:
    if layer is None:
        return None
    x, y, w, h = map(float, layer.place)
    return {"png": _encoded(layer.png), "name": layer.name, "top": layer.top, "x": x, "y": y, "w": w, "h": h}


def _encoded(picture: bytes) -> str:
    return base64.b64encode(picture).decode("ascii")


_BASE64 = (string.ascii_letters + string.digits + "+/").encode()
LARGEST = 2**25
"""Bytes of a part, at most: pictures of a few hundred kB are usual."""


def read_part(path: Path) -> Part | None:
    """Return the part in a file; None where it is missing, damaged, of another version, or no plain file."""
    try:
        if path.is_symlink() or path.stat().st_size > LARGEST:
            return None
        values = json.loads(path.read_text(encoding="utf-8"))
        return _with_values(_checked(values), values) if values["format"] == FORMAT else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _with_values(part: Part, values: JsonObject) -> Part:
    """Return the part with what it says of a target beyond one label."""
    if "values" in values:
        part["called"] = values["called"] is True
        part["values"] = [(str(name), _number(value)) for name, value in values["values"]]
    return part


def _checked(values: JsonObject) -> Part:
    """Return a parsed part, each value of its right type.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is damaged.
    """
    width, height, mpp = (_number(values[name]) for name in ("width", "height", "mpp"))
    if min(width, height, mpp) <= 0:
        raise ValueError("a slide without size")
    return {
        "format": FORMAT,
        "width": int(width),
        "height": int(height),
        "mpp": mpp,
        "label": str(values["label"]),
        "classes": [str(one) for one in values["classes"]],
        "probabilities": [_number(share) for share in values["probabilities"]],
        "spread": _spread(values),
        "unread_mass": _optional(values.get("unread_mass")),
        "among": None if values.get("among") is None else [str(one) for one in values["among"]],
        "unlike": _optional(values.get("unlike")),
        "purpose": str(values.get("purpose", "")),
        "tiles_read": int(_number(values["tiles_read"])),
        "tiles_asked": int(_number(values["tiles_asked"])),
        "area_read": _number(values["area_read"]),
        "bar": {"text": str(values["bar"]["text"]), "pixels": _number(values["bar"]["pixels"])},
        "notes": [str(one) for one in values["notes"]],
        "provenance": {str(name): value for name, value in values["provenance"].items()},
        "overview": _picture(values["overview"]),
        "thumbnail": _picture(values["thumbnail"]),
        "from_slide": values["from_slide"] is True,
        "attention": _checked_layer(values["attention"]),
        "ticks": [(_number(value), _number(place)) for value, place in values["ticks"]],
        "unseen": _checked_layer(values["unseen"]),
        "boxes": [_box(one) for one in values["boxes"]],
        "tiles": [
            {"rank": int(one["rank"]), "mpp": _number(one["mpp"]), "jpeg": one["jpeg"] and _picture(one["jpeg"])}
            for one in values["tiles"]
        ],
    }


def _spread(values: JsonObject) -> float | None:
    """Return the spread; None where nothing was drawn, for which versions without `unread_mass` wrote 0."""
    found = _optional(values["spread"])
    return found if found or "unread_mass" in values else None


def _optional(value: float | str | None) -> float | None:
    return None if value is None else _number(value)


def _box(values: JsonObject) -> ShownBox:
    rank = values["rank"]
    return {
        "x": int(values["x"]),
        "y": int(values["y"]),
        "w": int(values["w"]),
        "h": int(values["h"]),
        "weight": _number(values["weight"]),
        "glimpse": str(values["glimpse"]),
        "percentile": _optional(values["percentile"]),
        "rank": None if rank is None else int(rank),
    }


def _checked_layer(values: JsonObject | None) -> LayerPart | None:
    if values is None:
        return None
    x, y, w, h = (_number(values[side]) for side in ("x", "y", "w", "h"))
    top = _number(values["top"])
    return {"png": _picture(values["png"]), "name": str(values["name"]), "top": top, "x": x, "y": y, "w": w, "h": h}


def _picture(text: str) -> str:
    """Return a picture as text that needs no escaping, which a page of hundreds of them would do for seconds."""
    from markupsafe import Markup

    letters = text.encode("ascii")
    core = letters.rstrip(b"=")
    if core.translate(None, _BASE64) or len(letters) - len(core) > 2:
        raise ValueError("a picture is not base64")
    return Markup(text)


def _number(value: float | str) -> float:
    """Return a finite number; whole ones as int, so that they are written without a point."""
    number = float(value)
    if not abs(number) < 1e18:
        raise ValueError(f"{number} is no usable number")
    return int(number) if number.is_integer() else number
