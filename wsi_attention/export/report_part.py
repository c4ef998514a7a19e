"""What the report shows of a slide: pictures and the text beside them, kept in the slide's own page and read from it.

The page's text and its pictures are HTML for people. What else is known stands in the same file as JSON, without the
pictures, which are so heavy that no file holds them twice.
"""

from __future__ import annotations

import json
import re
import string
from pathlib import Path
from typing import NotRequired, TypedDict

from wsi_attention.export.layers import ShownBox
from wsi_attention.json_values import JsonObject

FORMAT = 2
TOP = 5
"""Tiles that are shown at full resolution."""
MARK = f"<!doctype html>\n<!-- wsi-attention slide, format {FORMAT} -->\n"
"""How a slide's page begins."""
END = "</html>\n"
"""How it ends."""
DATA = '<script type="application/json" id="part">'
"""What stands before the JSON."""


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
    from_slide: bool
    attention: LayerPart | None
    ticks: list[tuple[float, float]]
    unseen: LayerPart | None
    boxes: list[ShownBox]
    tiles: list[TilePart]


def data_of(part: Part) -> str:
    """Return a part without its pictures as JSON that may stand inside a script element."""
    values: dict[str, object] = {**part, "overview": ""}
    for name, layer in (("attention", part["attention"]), ("unseen", part["unseen"])):
        values[name] = {**layer, "png": ""} if layer else None
    values["tiles"] = [{**tile, "jpeg": tile["jpeg"] and ""} for tile in part["tiles"]]
    return json.dumps(values, sort_keys=True, allow_nan=False).replace("<", "\\u003c")


_BASE64 = (string.ascii_letters + string.digits + "+/").encode()
LARGEST = 2**25
"""Bytes of a slide's page, at most: pictures of a few hundred kB are usual."""
_PICTURE = re.compile('data-picture="([a-z0-9-]+)" (?:href|src)="data:image/(?:jpeg|png);base64,([A-Za-z0-9+/]+=*)"')


def is_whole(path: Path) -> bool:
    """Return whether a file is a slide's page of this version, from its first and last bytes alone."""
    try:
        if path.is_symlink():
            return False
        with path.open("rb") as file:
            begins = file.read(len(MARK)) == MARK.encode()
            file.seek(-len(END), 2)
            return begins and file.read() == END.encode()
    except OSError:
        return False


def read_part(path: Path) -> Part | None:
    """Return the part in a slide's page; None where it is missing, damaged, of another version, or no plain file."""
    try:
        if path.is_symlink() or path.stat().st_size > LARGEST:
            return None
        text = path.read_text(encoding="utf-8")
        if not (text.startswith(MARK) and text.endswith(END)):
            return None
        page, _, data = text.partition(DATA)
        values = _with_pictures(json.loads(data.partition("</script>")[0]), dict(_PICTURE.findall(page)))
        return _with_values(_checked(values), values) if values["format"] == FORMAT else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _with_pictures(values: JsonObject, pictures: dict[str, str]) -> JsonObject:
    """Put the pictures of a page back into its part.

    Raises:
        KeyError: one is missing.
    """
    values["overview"] = pictures["overview"]
    for name in ("attention", "unseen"):
        if values[name] is not None:
            values[name]["png"] = pictures[name]
    for tile in values["tiles"]:
        if tile["jpeg"] is not None:
            tile["jpeg"] = pictures[f"tile-{int(tile['rank'])}"]
    return values


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
