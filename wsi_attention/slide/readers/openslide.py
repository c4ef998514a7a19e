"""Slides through OpenSlide: the widest coverage of vendor formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import openslide
from numpy.typing import NDArray

from wsi_attention.errors import SlideOpenError, TileReadError
from wsi_attention.geometry import Box
from wsi_attention.slide.failures import opening
from wsi_attention.slide.images import Series, StoredImage, choose
from wsi_attention.slide.metadata import OME_IMAGE
from wsi_attention.slide.readers.limits import check_dimensions
from wsi_attention.slide.readers.tiff.second_look import Seen, check_openslide_tiff, compression_of, explain_tiff
from wsi_attention.slide.readers.tiff.tags import APERIO, NotReadHereError
from wsi_attention.slide.resample import on_white


def vendor_of(path: str) -> str | None:
    """Return the vendor that OpenSlide detects; None where it does not know the file."""
    try:
        vendor: str | None = openslide.OpenSlide.detect_format(path)
    except Exception:  # a probe must not fail on any file
        return None
    return vendor


class OpenSlideReader:
    """One open slide; a DICOM series is opened by any of its instances or by its folder.

    OpenSlide latches errors: after one damaged tile a handle fails for good. `Slide` then opens a fresh one.
    """

    name: ClassVar[str] = "openslide"

    def __init__(self, path: str, series: Series = None) -> None:
        file = dicom_instance(path) if Path(path).is_dir() else path
        with opening(path, self.name):
            self._slide = _opened(file, path, series)
        with opening(path, self.name, self._slide.close):
            self.properties: Mapping[str, str] = dict(self._slide.properties)
            self.level_dimensions: tuple[tuple[int, int], ...] = self._slide.level_dimensions
            seen = check_openslide_tiff(file, self.level_dimensions, self.properties.get("openslide.vendor"), series)
            found = (seen.images, seen.image, seen.notes) if seen else self._own_images(path, series)
            self.images, self.image, self.notes = found
            check_dimensions(path, self.level_dimensions)
            if seen and seen.xml:
                self.properties = {**self.properties, OME_IMAGE: seen.xml}
        self.level_downsamples: tuple[float, ...] = self._slide.level_downsamples
        self.tile_sizes = tuple(self._tile_size(level) for level in range(len(self.level_dimensions)))
        self._redrawn = self.properties.get("openslide.vendor") == APERIO
        self._missing = _missing(seen, self._redrawn) if seen else {}
        self.bounds = _bounds(self.properties)
        self.associated: tuple[str, ...] = tuple(self._slide.associated_images)

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Tell whether OpenSlide detects a vendor's format, or the folder holds a DICOM series."""
        try:
            if Path(path).is_dir():
                return any(vendor_of(str(file)) == "dicom" for file in Path(path).glob("*.dcm"))
        except OSError:
            return False
        return vendor_of(path) is not None

    def read(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return RGBA pixels (h, w, 4); outside the slide and in holes they are transparent.

        Raises:
            TileReadError: OpenSlide could not read or decode; the handle is of no more use.
        """
        try:
            return np.asarray(self._slide.read_region(location, level, size))
        except (openslide.OpenSlideError, ValueError, MemoryError) as error:
            raise TileReadError(str(error)) from error

    def absent(self, level: int, tiles: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Tell whether stored tiles (column, row) are not in the file; None where no index of a TIFF says so alone."""
        missing = self._missing.get(self.level_dimensions[level])
        return None if missing is None else np.asarray(missing[tiles[:, 1], tiles[:, 0]])

    def emptied_by(self, level: int) -> int:
        """Return the level whose missing tiles leave a level empty.

        Of an Aperio file OpenSlide draws missing tiles of coarser levels from the finer ones, and nothing at any level
        where the finest has none.
        """
        return 0 if self._redrawn else level

    def read_associated(self, name: str) -> NDArray[np.uint8]:
        """Return a label, macro or thumbnail image, (h, w, 3)."""
        return on_white(np.asarray(self._slide.associated_images[name]))

    def close(self) -> None:
        """Close the file."""
        self._slide.close()

    def _own_images(self, path: str, series: Series) -> tuple[tuple[StoredImage, ...], int, tuple[str, ...]]:
        """Return the slide and its associated images; OpenSlide opens nothing else of a vendor's file."""
        slide = StoredImage(0, "", self.level_dimensions[0], len(self.level_dimensions))
        others = [
            StoredImage(number, name, _associated_size(self.properties, name))
            for number, name in enumerate(self._slide.associated_images, 1)
        ]
        index = choose((slide, *others), series, path).number if series is not None else 0
        if index:
            raise SlideOpenError(f"{path}: {others[index - 1]} is no slide; of this format only image 0 can be taken")
        return (slide, *others), 0, ()

    def _tile_size(self, level: int) -> tuple[int, int] | None:
        w, h = (self.properties.get(f"openslide.level[{level}].tile-{side}") for side in ("width", "height"))
        return (int(w), int(h)) if w and h else None


def _missing(seen: Seen, redrawn: bool) -> dict[tuple[int, int], NDArray[np.bool_]]:
    """Return which stored tiles are not in the file, by the size of their level; of the finest alone if `redrawn`."""
    pairs = list(zip(seen.sizes, seen.missing, strict=True))[: 1 if redrawn else None]
    return {size: missing for size, missing in pairs if seen.sizes.count(size) == 1}


def _opened(file: str, path: str, series: Series) -> openslide.OpenSlide:
    try:
        return openslide.OpenSlide(file)
    except openslide.OpenSlideError as error:
        if "Unsupported TIFF compression" in str(error):
            why = f"{compression_of(file)} tiles that OpenSlide cannot decode"
            raise NotReadHereError(path, why, OpenSlideReader.name) from error
        explain_tiff(file, series)  # its index often says more plainly what is wrong
        raise


def _associated_size(properties: Mapping[str, str], name: str) -> tuple[int, int]:
    w, h = (properties.get(f"openslide.associated.{name}.{side}", "0") for side in ("width", "height"))
    return int(w), int(h)


def dicom_instance(folder: str) -> str:
    """Return a file that stands for the one DICOM series in a folder.

    Raises:
        SlideOpenError: the folder holds no DICOM slide, or several.
    """
    found: dict[str, str] = {}
    problem = "no DICOM slide in this folder"
    for file in sorted(Path(folder).glob("*.dcm")):
        if vendor_of(str(file)) != "dicom":
            continue
        try:
            with openslide.OpenSlide(str(file)) as slide:
                found.setdefault(slide.properties.get("dicom.SeriesInstanceUID", ""), str(file))
        except openslide.OpenSlideError as error:
            problem = str(error)
        if len(found) > 1:
            raise SlideOpenError(f"{folder}: the folder holds several DICOM series; give one instance (.dcm) of one")
    if not found:
        raise SlideOpenError(f"{folder}: {problem}; give a slide file, an OME-Zarr store or the folder of a series")
    return next(iter(found.values()))


def _bounds(properties: Mapping[str, str]) -> Box | None:
    try:
        x, y, w, h = (int(properties[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height"))
    except (KeyError, ValueError):
        return None
    return Box(x, y, w, h)
