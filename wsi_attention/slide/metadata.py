"""µm per pixel, objective power and other numbers out of vendor and TIFF tags; what is not sure stays unknown."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import unescape

from wsi_attention.errors import InputError
from wsi_attention.geometry import same_scale

MICROMETRES = {
    "pm": 1e-6, "picometer": 1e-6,
    "Å": 1e-4, "angstrom": 1e-4,
    "nm": 1e-3, "nanometer": 1e-3,
    "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "micrometer": 1.0,
    "mm": 1e3, "millimeter": 1e3,
    "cm": 1e4, "centimeter": 1e4,
    "in": 25400.0, "inch": 25400.0,
    "dm": 1e5, "decimeter": 1e5,
    "m": 1e6, "meter": 1e6,
}  # fmt: skip
"""µm in one unit, under the names that TIFF, OME-XML and OME-Zarr use."""

PLACEHOLDER_DPI = (72, 96, 300)
"""Resolutions that programs write when they know none."""

_OME_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")
_OME_SIZE = re.compile(r"\bPhysicalSize([XY])(Unit)?\s*=\s*[\"']([^\"']*)[\"']")


@dataclass(frozen=True)
class Mpp:
    """µm per level-0 pixel in x and y (None where unknown), and the tag they come from."""

    xy: tuple[float, float] | None
    source: str


UNKNOWN = Mpp(None, "none")


def number(text: object) -> float | None:
    """A positive finite number, with a decimal point or comma; None for anything else."""
    try:
        value = float(str(text).strip().replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def given_mpp(mpp: float | None) -> float | None:
    """The caller's mpp, checked.

    Raises:
        InputError: it is no positive finite number.
    """
    if mpp is not None and number(mpp) is None:
        raise InputError(f"mpp must be a positive number of µm per pixel, got {mpp!r}")
    return None if mpp is None else float(mpp)


def file_mpp(properties: Mapping[str, str]) -> Mpp:
    """What the file says about the size of its pixels, from the most to the least specific tag."""
    for source, find in _SOURCES.items():
        pair = find(properties)
        if pair is not None:
            return Mpp(pair, source)
    return UNKNOWN


def objective_power(properties: Mapping[str, str]) -> float | None:
    """The objective's magnification as the file states it; None where it does not."""
    for key in ("openslide.objective-power", "aperio.AppMag", "hamamatsu.SourceLens"):
        power = number(properties.get(key))
        if power is not None:
            return power
    return None


def mpp_oddities(mpp: Mpp, stated: Mpp) -> tuple[str, ...]:
    """What is odd about a slide's mpp; `stated` is what the file says where the caller gave another one."""
    found = []
    if mpp.xy is None:
        return ("the file does not say how large a pixel is (no mpp)",)
    if not same_scale(*mpp.xy):
        found.append(f"pixels are not square: {mpp.xy[0]:.4g} µm wide, {mpp.xy[1]:.4g} µm high")
    dpi = 25400.0 / mpp.xy[0]
    if any(abs(dpi - placeholder) < 0.5 for placeholder in PLACEHOLDER_DPI):
        found.append(f"mpp {mpp.xy[0]:.4g} µm is {dpi:.0f} dpi, which programs write when they know no scale")
    elif mpp.xy[0] > 50 or mpp.xy[0] < 0.02:
        found.append(f"mpp {mpp.xy[0]:.4g} µm is outside what slide scanners give")
    if stated.xy is not None and not same_scale(mpp.xy[0], stated.xy[0]):
        found.append(f"mpp {mpp.xy[0]:.4g} was given, the file says {stated.xy[0]:.4g} ({stated.source})")
    return tuple(found)


def _pair(x: float | None, y: float | None) -> tuple[float, float] | None:
    """Both values; one stands for the other where only one is known."""
    if x is None or y is None:
        known = x or y
        return None if known is None else (known, known)
    return x, y


def _from_keys(key_x: str, key_y: str) -> Callable[[Mapping[str, str]], tuple[float, float] | None]:
    return lambda properties: _pair(number(properties.get(key_x)), number(properties.get(key_y)))


def _from_ome_xml(properties: Mapping[str, str]) -> tuple[float, float] | None:
    pixels = _OME_PIXELS.search(properties.get("tiff.ImageDescription", ""))
    if pixels is None:
        return None
    stated = {axis + unit: unescape(value) for axis, unit, value in _OME_SIZE.findall(pixels[0])}
    return _pair(*(scaled(stated.get(axis), stated.get(axis + "Unit", "µm")) for axis in "XY"))


def scaled(value: object, unit: str) -> float | None:
    """A length in µm; None where the number or the unit is not usable."""
    size, factor = number(value), MICROMETRES.get(unit.strip())
    return None if size is None or factor is None else size * factor


def _from_resolution(properties: Mapping[str, str]) -> tuple[float, float] | None:
    factor = MICROMETRES.get(properties.get("tiff.ResolutionUnit", "").strip().lower())
    if factor is None:
        return None
    x, y = (number(properties.get(f"tiff.{axis}Resolution")) for axis in "XY")
    return _pair(None if x is None else factor / x, None if y is None else factor / y)


_SOURCES: dict[str, Callable[[Mapping[str, str]], tuple[float, float] | None]] = {
    "ome-zarr scale": _from_keys("ome-zarr.mpp-x", "ome-zarr.mpp-y"),
    "ome physical size": _from_ome_xml,
    "openslide.mpp-x": _from_keys("openslide.mpp-x", "openslide.mpp-y"),
    "aperio.MPP": _from_keys("aperio.MPP", "aperio.MPP"),
    "tiff resolution": _from_resolution,
}
