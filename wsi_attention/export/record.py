"""A `Prediction` as plain JSON and back, exactly; nothing is unpickled, and a hostile record stays small."""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import InputError, ResultsError
from wsi_attention.geometry import Grid
from wsi_attention.structures import AttentionMap, Counters, Glimpse, Prediction, TileSet, TissueMask

FORMAT = 1
"""Increased whenever the meaning of a record changes."""

MAX_BYTES = 256 * 2**20
"""The most bytes that all arrays of a record take together, inflated; enough for a mask of 16,000 x 16,000."""

_DTYPES = {"bool": "|b1", "float32": "<f4", "float64": "<f8", "int64": "<i8"}
_T = TypeVar("_T")


def to_record(prediction: Prediction) -> dict[str, object]:
    """Return a prediction as JSON-able values; arrays as zlib + base64, so `from_record` gives back the same bits.

    Raises:
        InputError: provenance holds something JSON cannot carry. Tuples there come back as lists.
    """
    record: dict[str, object] = {
        "format": FORMAT,
        "slide": prediction.slide,
        "extent": list(prediction.extent),
        "mpp": _plain(prediction.mpp),
        "bounds": list(prediction.bounds),
        "classes": list(prediction.classes),
        "probabilities": _pack(prediction.probabilities, "float64"),
        "spread": None if prediction.spread is None else _plain(prediction.spread),
        "unread_mass": prediction.unread_mass,
        "purpose": prediction.purpose,
        **({"certified": prediction.certified} if prediction.certified else {}),
        "glimpses": [_glimpse_record(glimpse) for glimpse in prediction.glimpses],
        "maps": [_map_record(found) for found in prediction.maps],
        "tissue": {
            "mask": _pack(prediction.tissue.mask, "bool"),
            "downsample": _plain(prediction.tissue.downsample),
            "source": prediction.tissue.source,
        },
        "counters": {name: _plain(value) for name, value in asdict(prediction.counters).items()},
        "overview_pixels": int(prediction.overview_pixels),
        "provenance": prediction.provenance,
        "notes": list(prediction.notes),
        "shortfalls": list(prediction.shortfalls),
        **_judgement(prediction),
    }
    record |= {"patient": prediction.patient} if prediction.patient else {}
    if prediction.target != "label":
        record |= {"target": prediction.target, "called": prediction.called}
        record["values"] = [[name, _plain(value)] for name, value in prediction.values]
    try:
        json.dumps(record, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{prediction.slide}: not JSON-able ({error}); keep provenance to plain values") from None
    return record


def from_record(record: object) -> Prediction:
    """Return the prediction that `to_record` recorded.

    Raises:
        ResultsError: another format, a missing or mistyped field, arrays that are damaged, too large or do not fit
            each other.
    """
    if not isinstance(record, dict):
        raise ResultsError(f"record: expected an object, found {type(record).__name__}; classify the slide again")
    if record.get("format") != FORMAT:
        found = str(record.get("format"))[:40]
        raise ResultsError(f"record: format {found!r}, this version reads {FORMAT}; classify the slide again")
    try:
        return _Reader().prediction(record)
    except KeyError as error:
        raise ResultsError(f"record: field {error} is missing; classify the slide again") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise ResultsError(f"record: {str(error)[:200]}; classify the slide again") from None


def _plain(value: float) -> float | str:
    """Return the number, or a text for NaN and infinity, which JSON lacks."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if math.isfinite(value) else repr(float(value))


def _pack(array: NDArray[np.generic], kind: str) -> dict[str, object]:
    raw = np.ascontiguousarray(array, _DTYPES[kind])
    return {
        "dtype": kind,
        "shape": list(np.shape(array)),
        "zlib": base64.b64encode(zlib.compress(raw.tobytes(), 6)).decode("ascii"),
    }


def _glimpse_record(glimpse: Glimpse) -> dict[str, object]:
    return {
        "name": glimpse.name,
        "locations": _pack(glimpse.tiles.locations, "int64"),
        "size": list(glimpse.tiles.size),
        "downsample": _plain(glimpse.tiles.downsample),
        "weights": _pack(glimpse.weights, "float64"),
        "attention": _pack(glimpse.attention, "float64"),
        "valid": _pack(glimpse.valid, "bool"),
        "drawn": bool(glimpse.drawn),
    }


def _judgement(prediction: Prediction) -> dict[str, object]:
    """Return what only models say that know their sets of classes, or the slides of their training."""
    among = {} if prediction.among is None else {"among": list(prediction.among)}
    return {**among, **({} if prediction.unlike is None else {"unlike": _plain(prediction.unlike)})}


def _map_record(found: AttentionMap) -> dict[str, object]:
    grid = {"step": [_plain(v) for v in found.grid.step], "origin": [_plain(v) for v in found.grid.origin]}
    return {"name": found.name, "values": _pack(found.values, "float32"), "grid": grid}


class _Reader:
    """Reads one record; counts the bytes its arrays may still take."""

    def __init__(self) -> None:
        self._left = MAX_BYTES

    def prediction(self, record: dict[str, object]) -> Prediction:
        classes = tuple(_text(name, "classes") for name in _list(record, "classes"))
        probabilities = self._array(record, "probabilities", "float64", (len(classes),))
        values = tuple(_named_number(one) for one in _list(record, "values")) if "values" in record else ()
        if not (classes or values) or not np.isfinite(probabilities).all():
            raise ValueError(f"probabilities of {len(classes)} classes are not all finite numbers")
        return Prediction(
            slide=_text(record["slide"], "slide"),
            extent=_pair(record, "extent", _count),
            mpp=_positive(record["mpp"], "mpp"),
            bounds=_pair(record, "bounds", _integer),
            classes=classes,
            probabilities=probabilities,
            spread=_spread(record),
            glimpses=tuple(
                self._glimpse(_object(one, "glimpses"), _spread(record) is not None)
                for one in _list(record, "glimpses")
            ),
            maps=tuple(self._map(_object(one, "maps")) for one in _list(record, "maps")),
            tissue=self._tissue(_object(record["tissue"], "tissue")),
            counters=_counters(_object(record["counters"], "counters")),
            overview_pixels=_count(record["overview_pixels"], "overview_pixels"),
            provenance=_object(record["provenance"], "provenance"),
            notes=_texts(record, "notes") if "shortfalls" in record else (),
            shortfalls=_texts(record, "shortfalls" if "shortfalls" in record else "notes"),  # 0.1 knew notes alone
            unread_mass=_share(record, "unread_mass"),
            purpose=_text(record.get("purpose", ""), "purpose"),
            patient=_text(record.get("patient", ""), "patient"),
            among=None if record.get("among") is None else _texts(record, "among"),
            unlike=None if record.get("unlike") is None else _float(record["unlike"], "unlike"),
            certified=_text(record.get("certified", ""), "certified"),
            target=_text(record.get("target", "label"), "target"),
            values=values,
            called=_text(record.get("called", ""), "called"),
        )

    def _glimpse(self, record: dict[str, object], drawn: bool) -> Glimpse:
        locations = self._array(record, "locations", "int64", (1, None, 2))
        tiles = TileSet(locations, _pair(record, "size", _count), _positive(record["downsample"], "downsample"))
        return Glimpse(
            tiles=tiles,
            weights=self._array(record, "weights", "float64", (len(tiles),)),
            attention=self._array(record, "attention", "float64", (len(tiles),)),
            valid=self._array(record, "valid", "bool", (len(tiles),)),
            name=_text(record["name"], "name"),
            drawn=bool(record.get("drawn", drawn)),
        )

    def _map(self, record: dict[str, object]) -> AttentionMap:
        values = self._array(record, "values", "float32", (None, None))
        grid = _object(record["grid"], "grid")
        step, origin = _pair(grid, "step", _positive), _pair(grid, "origin", _float)
        if not values.size or not np.isfinite(origin).all():
            raise ValueError("an attention map is empty or lies nowhere")
        return AttentionMap(values, Grid(values.shape[0], values.shape[1], step, origin), _text(record["name"], "name"))

    def _tissue(self, record: dict[str, object]) -> TissueMask:
        mask = self._array(record, "mask", "bool", (None, None))
        return TissueMask(mask, _positive(record["downsample"], "downsample"), _text(record["source"], "source"))

    def _array(self, record: dict[str, object], name: str, kind: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
        packed = _object(record[name], name)
        found = tuple(_count(size, f"{name}: shape") for size in _list(packed, "shape"))
        fits = len(found) == len(shape) and all(a in (None, b) for a, b in zip(shape, found, strict=True))
        if packed["dtype"] != kind or not fits:
            wanted = " x ".join("any" if size is None else str(size) for size in shape)
            raise ValueError(f"{name}: expected {kind} of shape {wanted}, found {str(packed['dtype'])[:20]} {found}")
        size = math.prod(found) * np.dtype(_DTYPES[kind]).itemsize
        self._left -= size
        if self._left < 0:
            raise ValueError(f"{name}: the arrays would take more than {MAX_BYTES // 2**20} MiB")
        raw = _inflate(_text(packed["zlib"], name), size, name)
        if kind == "bool" and raw.translate(None, b"\x00\x01"):
            raise ValueError(f"{name}: damaged data")
        return np.frombuffer(raw, _DTYPES[kind]).reshape(found).copy()


def _inflate(text: str, size: int, name: str) -> bytes:
    """Inflate exactly `size` bytes, and never more than one byte beyond."""
    try:
        stream = zlib.decompressobj()
        raw = stream.decompress(base64.b64decode(text, validate=True), size + 1)
    except (zlib.error, binascii.Error) as error:
        raise ValueError(f"{name}: damaged data ({error})") from None
    if len(raw) != size or not stream.eof:
        raise ValueError(f"{name}: expected {size} bytes, the data hold another number")
    return raw


def _counters(record: dict[str, object]) -> Counters:
    whole = {name: _count(record[name], name) for name in ("tiles", "pixels", "bytes", "failed")}
    return Counters(seconds=_float(record["seconds"], "seconds"), **whole)


def _object(value: object, name: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"{name}: expected an object, found {type(value).__name__}")
    return value


def _list(record: dict[str, object], name: str) -> list[object]:
    value = record[name]
    if not isinstance(value, list):
        raise TypeError(f"{name}: expected a list, found {type(value).__name__}")
    return list(value)


def _texts(record: dict[str, object], name: str) -> tuple[str, ...]:
    return tuple(_text(value, name) for value in _list(record, name))


def _named_number(value: object) -> tuple[str, float]:
    if not isinstance(value, list) or len(value) != 2 or not math.isfinite(number := _float(value[1], "values")):
        raise ValueError(f"values: expected a name and a finite number, found {str(value)[:40]}")
    return _text(value[0], "values"), number


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected text, found {type(value).__name__}")
    return value


def _integer(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > 2**53:
        raise TypeError(f"{name}: expected a whole number, found {str(value)[:40]!r}")
    return value


def _count(value: object, name: str) -> int:
    number = _integer(value, name)
    if number < 0:
        raise ValueError(f"{name}: expected 0 or more, found {number}")
    return number


def _float(value: object, name: str) -> float:
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number, found {str(value)[:40]!r}")
    return float(value)


def _spread(record: dict[str, object]) -> float | None:
    """Return the standard error; None where nothing was drawn, for which records before `unread_mass` had 0 or NaN."""
    if record["spread"] is None:
        return None
    value = _float(record["spread"], "spread")
    return None if math.isnan(value) or (value == 0 and "unread_mass" not in record) else value


def _share(record: dict[str, object], name: str) -> float | None:
    if record.get(name) is None:
        return None
    value = _float(record[name], name)
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a share between 0 and 1, found {value}")
    return value


def _positive(value: object, name: str) -> float:
    number = _float(value, name)
    if not 0 < number < math.inf:
        raise ValueError(f"{name}: expected a number above 0, found {number}")
    return number


def _pair(record: dict[str, object], name: str, read: Callable[[object, str], _T]) -> tuple[_T, _T]:
    values = _list(record, name)
    if len(values) != 2:
        raise ValueError(f"{name}: expected two numbers, found {len(values)}")
    return read(values[0], name), read(values[1], name)
