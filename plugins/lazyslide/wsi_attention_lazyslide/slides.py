"""A `WSIData` as our slide, and the readers of wsidata as one of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from wsidata import READERS, WSIData
from wsidata.reader import ReaderBase, SpatialDataImage2DReader

from wsi_attention import Slide, open_slide
from wsi_attention.errors import InputError, SlideOpenError, TileReadError
from wsi_attention.geometry import Box
from wsi_attention.slide import level_location, padded
from wsi_attention_lazyslide.reader import WsiAttentionReader

SAME_MPP = 1e-3
"""Relative difference below which two readers mean the same µm per pixel; beyond it the `WSIData`'s counts."""
MAX_PIXELS = 2**28
"""The most level-0 pixels of an image element that is taken into memory (0.8 GB)."""


def as_slide(wsi: WSIData, reader: str = "auto") -> Slide:
    """The slide of a `WSIData`, for `wsi_attention.predict` and all else that takes a slide.

    A file is opened afresh by our readers, or by wsidata's where ours do not know it; an image element of a
    SpatialData object is taken into memory. µm per pixel set with `wsi.set_mpp` holds.

    Args:
        wsi: with its reader.
        reader: one of our readers; "wsidata" reads through wsidata.

    Raises:
        SlideError: neither can open the file.
        InputError: one scene of several, an image too large for memory, or a file that is not the slide of `wsi`.
    """
    if wsi.n_scenes > 1:
        raise InputError(
            f"{wsi.reader.file}: {wsi.n_scenes} scenes; only slides of one scene can be read, save scene {wsi.scene}"
            " as a file of its own"
        )
    if isinstance(wsi.reader, SpatialDataImage2DReader):
        return open_slide(_levels(wsi), mpp=wsi.properties.mpp)
    if isinstance(wsi.reader, WsiAttentionReader) and reader == "auto":
        reader = wsi.reader.slide.reader
    path = str(wsi.reader.file)
    slide = _opened(path, reader)
    if slide.mpp_xy is None or _differ(slide.mpp, wsi.properties.mpp):
        slide.close()
        slide = open_slide(path, reader=slide.reader, mpp=wsi.properties.mpp)
    expected = tuple(wsi.properties.shape[::-1])
    if slide.dimensions != expected:
        raise InputError(f"{path}: {slide.dimensions} pixels, the WSIData is of {expected}; reader='wsidata' may help")
    return slide


class WsidataReader:
    """One file through the readers of wsidata: `open_slide(path, reader="wsidata")`. Only used when asked for.

    Outside the slide all is white; holes inside it are what wsidata's reader makes of them, often black.
    """

    name: ClassVar[str] = "wsidata"

    def __init__(self, path: str) -> None:
        self._path, self._lock = path, Lock()
        self._reader = _of_wsidata(path)
        facts = self._reader.properties
        self.level_dimensions = tuple((int(w), int(h)) for h, w in facts.level_shape)
        self.level_downsamples = tuple(float(one) for one in facts.level_downsample)
        self.tile_sizes: tuple[tuple[int, int] | None, ...] = (None,) * len(self.level_dimensions)
        self.properties: Mapping[str, str] = _tags(facts)
        whole = (0, 0, *self.level_dimensions[0])
        self.bounds = None if facts.bounds is None or tuple(facts.bounds) == whole else Box(*map(int, facts.bounds))
        self.associated = tuple(self._reader.associated_images or ())

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Never: installing this package changes no reader that "auto" takes."""
        del path
        return False

    def read(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Pixels (h, w, 3), white outside the slide.

        Raises:
            TileReadError: wsidata's reader failed.
        """
        downsample = self.level_downsamples[level]

        def crop(rows: slice, columns: slice) -> NDArray[np.uint8]:
            # the first level-0 pixel that readers which round down take for this pixel of the level
            x, y = (int(np.ceil(one.start * downsample)) for one in (columns, rows))
            width, height = columns.stop - columns.start, rows.stop - rows.start
            with self._lock:
                return np.asarray(self._reader.get_region(x, y, width, height, level=level), np.uint8)

        try:
            return padded(crop, self.level_dimensions[level], level_location(location, downsample), size)
        except Exception as error:  # each library behind wsidata has errors of its own
            raise TileReadError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error

    def read_associated(self, name: str) -> NDArray[np.uint8]:
        """A label, macro or thumbnail image, (h, w, 3)."""
        return np.asarray(self._reader.associated_images[name])

    def close(self) -> None:
        """Close the file."""
        self._reader.detach_reader()


def _opened(path: str, reader: str) -> Slide:
    try:
        return open_slide(path, reader=reader)
    except SlideOpenError:
        if reader != "auto":
            raise
    return open_slide(path, reader=WsidataReader.name)


def _of_wsidata(path: str) -> ReaderBase:
    if not Path(path).exists():
        raise SlideOpenError(f"{path}: no such file or folder; check the path")
    try:
        return READERS.try_open(path)
    except Exception as error:  # wsidata's readers raise what their libraries raise
        reason = " ".join(str(error).split())
        raise SlideOpenError(
            f"{path}: wsidata cannot open it ({reason}); leave it out, or install its reader"
        ) from error


def _tags(facts: Any) -> dict[str, str]:
    raw = json.loads(facts.raw) if facts.raw else {}
    tags = {str(key): str(value) for key, value in raw.items() if value is not None}
    found = {
        "openslide.mpp-x": facts.mpp,
        "openslide.mpp-y": facts.mpp,
        "openslide.objective-power": facts.magnification,
    }
    return {key: str(value) for key, value in found.items() if value is not None} | tags


def _differ(ours: float, theirs: float | None) -> bool:
    return theirs is not None and abs(theirs / ours - 1) > SAME_MPP


def _levels(wsi: WSIData) -> list[NDArray[np.uint8]]:
    height, width = wsi.properties.shape
    if height * width > MAX_PIXELS:
        raise InputError(
            f"image {wsi.reader.file!r}: {width}×{height} pixels are too many to hold in memory;"
            " open the slide's file with open_wsi(path) instead"
        )
    return [np.ascontiguousarray(wsi.reader.get_level(level)) for level in range(wsi.properties.n_level)]
