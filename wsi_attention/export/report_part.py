"""Reads what `export.report` wrote; a file from elsewhere is checked before any of it stands on a page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from wsi_attention.export.report import FORMAT

_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_NUMBERS = ("width", "height", "mpp", "tiles_read", "tiles_asked", "area_read")
_SIDES = ("x", "y", "w", "h")
LARGEST = 2**25
"""Bytes of a part, at most: pictures of a few hundred kB are usual."""


def read_part(path: Path) -> dict[str, Any] | None:
    """The part in a file; None where it is missing, damaged, of another version, or no plain file."""
    try:
        if path.is_symlink() or path.stat().st_size > LARGEST:
            return None
        values = json.loads(path.read_text(encoding="utf-8"))
        return _checked(values) if values["format"] == FORMAT else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    part: dict[str, Any] = {name: _number(values[name]) for name in _NUMBERS}
    if min(part["width"], part["height"], part["mpp"]) <= 0:
        raise ValueError("a slide without size")
    part |= {"label": str(values["label"]), "from_slide": values["from_slide"] is True}
    part |= {"spread": _spread(values), "unread_mass": _optional(values.get("unread_mass"))}
    part["purpose"] = str(values.get("purpose", ""))
    part |= {name: [str(one) for one in values[name]] for name in ("classes", "notes")}
    part["probabilities"] = [_number(share) for share in values["probabilities"]]
    part |= {name: _picture(values[name]) for name in ("overview", "thumbnail")}
    part |= {name: _layer(values[name]) for name in ("attention", "unseen")}
    part["ticks"] = [(_number(value), _number(place)) for value, place in values["ticks"]]
    part["bar"] = {"text": str(values["bar"]["text"]), "pixels": _number(values["bar"]["pixels"])}
    part["boxes"] = [_box(one) for one in values["boxes"]]
    part["tiles"] = [
        {"rank": int(one["rank"]), "mpp": _number(one["mpp"]), "jpeg": one["jpeg"] and _picture(one["jpeg"])}
        for one in values["tiles"]
    ]
    part["provenance"] = {str(name): value for name, value in values["provenance"].items()}
    return part


def _spread(values: dict[str, Any]) -> float | None:
    """None where nothing was drawn, for which earlier versions, without `unread_mass`, wrote 0."""
    found = _optional(values["spread"])
    return found if found or "unread_mass" in values else None


def _optional(value: Any) -> float | None:
    return None if value is None else _number(value)


def _box(values: dict[str, Any]) -> dict[str, Any]:
    percent, rank = values["percentile"], values["rank"]
    return {
        **{side: int(values[side]) for side in _SIDES},
        **{"weight": _number(values["weight"]), "glimpse": str(values["glimpse"])},
        "percentile": None if percent is None else _number(percent),
        "rank": None if rank is None else int(rank),
    }


def _layer(values: dict[str, Any] | None) -> dict[str, Any] | None:
    if values is None:
        return None
    place = {side: _number(values[side]) for side in _SIDES}
    return {"png": _picture(values["png"]), "name": str(values["name"]), "top": _number(values["top"]), **place}


def _picture(text: str) -> str:
    if not _BASE64.fullmatch(text):
        raise ValueError("a picture is not base64")
    return text


def _number(value: Any) -> float:
    """A finite number; whole ones as int, so that they are written without a point."""
    number = float(value)
    if not abs(number) < 1e18:
        raise ValueError(f"{number} is no usable number")
    return int(number) if number.is_integer() else number
