"""µm per pixel and other numbers out of tags, whether other tags agree, and tags of slides that are not brightfield."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import unescape

from wsi_attention.errors import InputError, UnsupportedSlideError
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

FINEST, COARSEST = 0.02, 50.0
"""µm per pixel that a slide can have; what lies beyond is no scale of a microscope or scanner."""
PLACEHOLDER_DPI = (72, 75, 90, 96, 100, 120, 144, 150, 180, 200, 240, 250, 300, 350, 360, 400, 500, 600, 720, 800, 1000,
                   1200, 1440, 2400, 4800)  # fmt: skip
"""Resolutions for printers and screens, which programs write when they know no scale."""
ROUNDED = 0.001
"""How far a resolution may lie from a whole one that was stored in pixels a centimetre."""
ABSURD = 2.0
"""How many times longer than wide a pixel may not be."""

OME_IMAGE = "ome.image"
"""The property that holds the slide's own part of an OME-XML."""
_OME_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")
_OME_SIZE = re.compile(r"\bPhysicalSize([XY])(Unit)?\s*=\s*[\"']([^\"']*)[\"']")


@dataclass(frozen=True)
class Mpp:
    """µm per level-0 pixel in x and y.

    Attributes:
        xy: None where unknown.
        source: the tag that it comes from; "given" by the caller, or "none".
        disbelieved: what a tag says that cannot be the slide's scale, and why; empty where there is none, and where a
            scale is known and no scanner wrote that tag.
    """

    xy: tuple[float, float] | None
    source: str
    disbelieved: str = ""

    @property
    def why_unknown(self) -> str:
        """Why there is none, as a clause."""
        silent = "the file does not say how large a pixel is"
        return f"{silent}: {self.disbelieved}" if self.disbelieved else silent


UNKNOWN = Mpp(None, "none")
_SCANNERS = {"aperio", "hamamatsu", "leica", "mirax", "philips", "ventana", "sakura", "trestle", "zeiss"}
"""Vendors whose files have tags of their own for the scale, which no program fills in for want of a better."""
_OWN = {"openslide.mpp-x", "aperio.MPP"}
"""Where those tags end up."""


def number(text: object) -> float | None:
    """Return a positive finite number, with a decimal point or comma; None for anything else."""
    try:
        value = float(str(text).strip().replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def given_mpp(mpp: float | str | None, where: str = "") -> float | None:
    """Check the caller's mpp; None where nothing was given.

    Args:
        mpp: µm per pixel, or the text of it.
        where: it stands, for the message.

    Raises:
        InputError: it is no number, or not one that a slide can have.
    """
    if mpp is None or mpp == "":
        return None
    value = number(mpp)
    if value is None or not FINEST <= value <= COARSEST:
        place = f"{where}: " if where else ""
        raise InputError(f"{place}mpp must be a number of µm per pixel from {FINEST:g} to {COARSEST:g}, got {mpp!r}")
    return value


def file_mpp(properties: Mapping[str, str]) -> Mpp:
    """Find what the file says about the size of its pixels, in the most specific tag that can be believed."""
    vendor, doubts, scanners = properties.get("openslide.vendor"), "", ""
    for source, find in _SOURCES.items():
        pair, own = find(properties), source in _OWN and vendor in _SCANNERS
        doubt = None if pair is None else _doubt(pair, own)
        if pair is not None and doubt is None:
            return Mpp(pair, source, scanners)
        told = "tiff resolution" if vendor == "generic-tiff" and source in _OWN else source
        doubts = doubts or (f"its {told} says {doubt}" if doubt else "")
        scanners = doubts if own else scanners
    return Mpp(None, "none", doubts)


def other_scales(properties: Mapping[str, str], taken: Mpp) -> dict[str, tuple[float, float]]:
    """Find scales that other tags state, could be right, and are more than 5 % off the one taken, by tag."""
    found = {}
    for source, find in _SOURCES.items():
        pair = find(properties)
        if taken.xy is None or source == taken.source or pair is None or _doubt(pair, own=False):
            continue
        if not all(map(same_scale, pair, taken.xy)):
            found[source] = pair
    return found


def _doubt(xy: tuple[float, float], own: bool) -> str | None:
    """Say why a scale that a file states, in a scanner's own tag or not, cannot be the slide's; None where it can."""
    x, y = xy
    text = f"{x:.4g} µm" if same_scale(x, y) else f"{x:.4g} × {y:.4g} µm"
    if not own and (dpi := _placeholder(x)) and same_scale(x, y):
        return f"{text}, which is {dpi} dpi, as programs write it when they know no scale"
    if max(xy) > COARSEST or min(xy) < FINEST:
        return f"{text}, which is outside what slides have ({FINEST:g} to {COARSEST:g} µm)"
    if max(x / y, y / x) > ABSURD:
        return f"{text}, pixels that no scanner makes"
    return None


def _placeholder(mpp: float) -> int | None:
    dpi = MICROMETRES["inch"] / mpp
    return next((known for known in PLACEHOLDER_DPI if abs(dpi / known - 1) < ROUNDED), None)


def objective_power(properties: Mapping[str, str]) -> float | None:
    """Return the objective's magnification as the file states it; None where it does not."""
    for key in ("openslide.objective-power", "aperio.AppMag", "hamamatsu.SourceLens"):
        power = number(properties.get(key))
        if power is not None:
            return power
    return None


def mpp_notes(mpp: Mpp, stated: Mpp) -> tuple[str, ...]:
    """Say what a reader should know of a slide's mpp; `stated` is what the file says where the caller gave another."""
    if mpp.xy is None:
        return ()
    found = []
    if mpp.disbelieved:
        found.append(f"{mpp.disbelieved}; its scale is taken from {mpp.source}")
    if not same_scale(*mpp.xy):
        found.append(f"pixels are not square: {mpp.xy[0]:.4g} µm wide, {mpp.xy[1]:.4g} µm high")
    if stated.xy is not None and not same_scale(mpp.xy[0], stated.xy[0]):
        found.append(f"mpp {mpp.xy[0]:.4g} was given, the file says {stated.xy[0]:.4g} ({stated.source})")
    return tuple(found)


def _pair(x: float | None, y: float | None) -> tuple[float, float] | None:
    """Return both values; one stands for the other where only one is known."""
    if x is None or y is None:
        known = x or y
        return None if known is None else (known, known)
    return x, y


def _from_keys(key_x: str, key_y: str) -> Callable[[Mapping[str, str]], tuple[float, float] | None]:
    return lambda properties: _pair(number(properties.get(key_x)), number(properties.get(key_y)))


def _from_ome_xml(properties: Mapping[str, str]) -> tuple[float, float] | None:
    pixels = _OME_PIXELS.search(properties.get(OME_IMAGE) or properties.get("tiff.ImageDescription", ""))
    if pixels is None:
        return None
    stated = {axis + unit: unescape(value) for axis, unit, value in _OME_SIZE.findall(pixels[0])}
    return _pair(*(scaled(stated.get(axis), stated.get(axis + "Unit", "µm")) for axis in "XY"))


def scaled(value: object, unit: str) -> float | None:
    """Return a length in µm; None where the number or the unit is not usable."""
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


AT_ONE_POWER = 10.0
"""µm per pixel times magnification of Aperio's scanners: 0.25 at 40x, 0.5 at 20x."""
FAR = 1.5
"""Factor by which the two may be apart."""


def scale_doubts(mpp: Mpp, properties: Mapping[str, str], extent: tuple[int, int]) -> tuple[str, ...]:
    """Say what in a file contradicts its scale, a sentence each.

    Args:
        mpp: what the file's scale is taken to be.
        properties: the file's tags.
        extent: (w, h) of level 0 in pixels.
    """
    if mpp.xy is None or mpp.source == "given":
        return ()
    return tuple(
        f"mpp {mpp.xy[0]:.4g} ({mpp.source}) is in doubt: {doubt}"
        for doubt in (*_by_other_tags(mpp, properties), *_by_other_facts(mpp.xy, properties, extent))
    )


def _by_other_tags(mpp: Mpp, properties: Mapping[str, str]) -> Iterator[str]:
    for source, (x, y) in other_scales(properties, mpp).items():
        yield f"its {source} says {x:.4g} × {y:.4g} µm"


def _by_other_facts(xy: tuple[float, float], properties: Mapping[str, str], extent: tuple[int, int]) -> Iterator[str]:
    power = number(properties.get("aperio.AppMag"))
    if power is not None and not 1 / FAR < xy[0] * power / AT_ONE_POWER < FAR:
        yield f"at its magnification of {power:g}x a pixel has about {AT_ONE_POWER / power:.2g} µm"
    for axis, name, pixels, side in zip("xy", ("Width", "Height"), extent, xy, strict=True):
        length = number(properties.get(f"dicom.ImagedVolume{name}"))
        if length is not None and not same_scale(length * 1e3 / pixels, side):
            yield f"the {name.lower()} of its volume, {length:.4g} mm, makes {length * 1e3 / pixels:.4g} µm in {axis}"
            return


_WAVELENGTH = re.compile(r"\bExcitationWave[Ll]ength=([1-9]\d*)")
_OME_FLUORESCENT = re.compile(r"\b(?:ExcitationWavelength|Fluor|IlluminationType)\s*=\s*[\"']([^\"']+)[\"']")
_CHANNEL_NAME = re.compile(r"<(?:\w+:)?Channel\b[^>]*\bName\s*=\s*[\"']([^\"']+)[\"']")
_FLUOROPHORE = re.compile(
    r"\b(dapi|hoechst|fitc|tritc|cy ?[357]|alexa|gfp|rfp|yfp|cfp|mcherry|texas ?red|autofluorescence)\b", re.IGNORECASE
)
_ILLUMINATION = (".illumination-source", "SLIDE_TYPE", "IlluminationTypeCodeSequence[0].CodeMeaning")


def check_metadata(path: str, properties: Mapping[str, str]) -> None:
    """Refuse a slide that its own tags call fluorescent.

    Raises:
        UnsupportedSlideError: Hamamatsu excitation wavelengths, Leica, MIRAX, DICOM or OME illumination say so.
    """
    reason = _fluorescence(properties)
    if reason:
        raise UnsupportedSlideError(
            f"{path}: a fluorescence slide ({reason}); only RGB brightfield slides can be classified, leave it out"
        )


def _fluorescence(properties: Mapping[str, str]) -> str:
    for key, value in properties.items():
        if key.startswith("hamamatsu.") and (found := _WAVELENGTH.search(value)):
            return f"its tags name an excitation wavelength of {found[1]} nm"
        if key.endswith(_ILLUMINATION) and "fluorescen" in value.lower():
            return f"{key.rpartition('.')[2]} is {value.strip()!r}"
    description = properties.get(OME_IMAGE) or properties.get("tiff.ImageDescription", "")
    if OME_IMAGE in properties or "<OME" in description or "<ome:OME" in description:
        for value in _OME_FLUORESCENT.findall(description):
            if value not in {"Transmitted", "Oblique", "NonLinear", "Other"}:
                return f"its OME-XML names {value!r}"
    channels = ", ".join((properties.get("ome-zarr.channels", ""), *_CHANNEL_NAME.findall(description)))
    if dye := _FLUOROPHORE.search(channels):
        return f"a channel is called {dye[0]!r}"
    return ""
