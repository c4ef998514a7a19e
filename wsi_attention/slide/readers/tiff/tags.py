"""A TIFF's tags, under OpenSlide's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsi_attention.errors import SlideOpenError
from wsi_attention.slide.metadata import MICROMETRES, OME_IMAGE, number

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

MAX_PAGES = 1000
APERIO, PHILIPS, GENERIC = "aperio", "philips", "generic-tiff"
"""OpenSlide's names of the vendors whose files are read here."""
IN_TEXT = -1
"""Stands for the directory of a picture that the XML of the first one holds."""
_TEXTS = ("ImageDescription", "Make", "Model", "Software", "DateTime", "Artist", "HostComputer", "Copyright",
          "DocumentName")  # fmt: skip
_RATIOS = ("XResolution", "YResolution", "XPosition", "YPosition")
_UNITS = {1: "none", 2: "inch", 3: "centimeter"}
_OTHERS = ("ndpi", "scn", "bif", "vsi", "ventana", "qpi", "avs", "trestle", "mrxs")


class NotReadHereError(SlideOpenError):
    """A TIFF of a kind that a reader leaves to others."""

    def __init__(self, path: str, why: str, reader: str = "tiff") -> None:
        super().__init__(f"{path}: {why}, which the {reader} reader leaves to others; use reader='auto'")
        self.why = why


def pages_of(parent: TiffFile | TiffPage, path: str) -> list[TiffPage]:
    """Return the directories of a file, or those below one of them, in their order.

    Raises:
        SlideOpenError: more of them than any slide has.
    """
    from tifffile import TiffPage

    found: list[TiffPage] = []
    for page in parent.pages or ():
        if len(found) == MAX_PAGES:
            raise SlideOpenError(f"{path}: more than {MAX_PAGES} TIFF directories, more than any slide has")
        if isinstance(page, TiffPage):
            found.append(page)
    return found


def vendor_of(tif: TiffFile, path: str) -> str:
    """Return `APERIO`, `PHILIPS` or `GENERIC`.

    Raises:
        NotReadHereError: a scanner's own kind of TIFF, which has its own rules.
    """
    for kind in _OTHERS:
        if getattr(tif, f"is_{kind}", False):
            raise NotReadHereError(path, f"a {kind} file")
    first = tif.pages.first
    if str(first.software).startswith("MedScan"):
        raise NotReadHereError(path, "a Trestle file")
    if str(first.software).startswith("Philips") and "DPUfsImport" in first.description:
        return PHILIPS
    return APERIO if first.description.startswith("Aperio") else GENERIC


def properties_of(page: TiffPage, vendor: str, xml: str = "") -> dict[str, str]:
    """Return the finest level's tags, and what OpenSlide makes of them; of an OME-TIFF the image's part of the XML."""
    found = {"openslide.vendor": vendor} | ({OME_IMAGE: xml} if xml else {})
    for name in _TEXTS:
        value = page.tags.valueof(name)
        if isinstance(value, str) and value:
            found[f"tiff.{name}"] = value
    for name in _RATIOS:
        ratio = _ratio(page.tags.valueof(name))
        if ratio is not None:
            found[f"tiff.{name}"] = f"{ratio:.17g}"
    found["tiff.ResolutionUnit"] = _UNITS.get(int(page.tags.valueof("ResolutionUnit", 2)), "unknown")
    if vendor == PHILIPS:  # its text is a long XML, which `tiff.philips` reads
        found.pop("tiff.ImageDescription", None)
        return found
    if "tiff.ImageDescription" in found:
        found["openslide.comment"] = found["tiff.ImageDescription"]
    return found | (_of_aperio(page.description) if vendor == APERIO else _of_resolution(found))


def _ratio(value: object) -> float | None:
    if not isinstance(value, tuple) or len(value) != 2 or not value[1]:
        return None
    return float(value[0] / value[1])


def _of_resolution(tags: dict[str, str]) -> dict[str, str]:
    found, unit = {}, MICROMETRES.get(tags["tiff.ResolutionUnit"])
    for axis in "XY":
        resolution = number(tags.get(f"tiff.{axis}Resolution"))
        if unit is not None and resolution is not None:
            found[f"openslide.mpp-{axis.lower()}"] = f"{unit / resolution:.17g}"
    return found


def _of_aperio(description: str) -> dict[str, str]:
    """Return the "key = value" pairs that follow the first bar."""
    pairs = [part.split("=", 1) for part in description.split("|")[1:] if "=" in part]
    found = {f"aperio.{key.strip()}": value.strip() for key, value in pairs}
    for key, names in {"AppMag": ("objective-power",), "MPP": ("mpp-x", "mpp-y")}.items():
        value = number(found.get(f"aperio.{key}"))
        for name in names if value is not None else ():
            found[f"openslide.{name}"] = f"{value:.17g}"
    return found


def associated_of(pages: Sequence[TiffPage], vendor: str) -> dict[str, int]:
    """Return the directory of each associated image: Aperio's thumbnail is the second, texts name the others."""
    found: dict[str, int] = {}
    for index, page in enumerate(pages):
        if vendor == PHILIPS and not page.is_tiled:
            kind = page.description.strip().lower()
            found |= {name: index for name in ("label", "macro") if kind.startswith(name)}
        if vendor == APERIO and not page.is_tiled:
            lines = page.description.replace("\r", "\n").split("\n")
            name = "thumbnail" if index == 1 else lines[1].split(" ")[0] if len(lines) > 1 else ""
            if name:
                found[name] = index
    return found
