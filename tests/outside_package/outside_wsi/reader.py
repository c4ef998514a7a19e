"""Slides as `.npz` archives: arrays "0", "1" … (h, w, 3), finest first, each half as large as the last, and "mpp"."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import SlideOpenError
from wsi_attention.geometry import Box

SUFFIX = ".slide.npz"


class NpzReader:
    """All levels in memory; nothing is unpickled."""

    name: ClassVar[str] = "npz"

    def __init__(self, path: str) -> None:
        try:
            with np.load(path, allow_pickle=False) as archive:
                self._levels = [archive[str(k)] for k in range(len(archive.files) - 1)]
                mpp = float(archive["mpp"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise SlideOpenError(f"{path}: not a slide of arrays ({error}); write it again") from error
        self.level_dimensions = tuple((level.shape[1], level.shape[0]) for level in self._levels)
        self.level_downsamples = tuple(2.0**k for k in range(len(self._levels)))
        self.tile_sizes: tuple[tuple[int, int] | None, ...] = (None,) * len(self._levels)
        self.properties: Mapping[str, str] = {"openslide.mpp-x": str(mpp), "openslide.mpp-y": str(mpp)}
        self.bounds: Box | None = None
        self.associated: tuple[str, ...] = ()

    @classmethod
    def recognises(cls, path: str) -> bool:
        return path.endswith(SUFFIX) and Path(path).is_file()

    def read(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        pixels, canvas = self._levels[level], np.full((size[1], size[0], 3), 255, np.uint8)
        x, y = (int(np.floor(value / self.level_downsamples[level] + 0.5)) for value in location)
        h, w = pixels.shape[:2]
        top, left = min(max(y, 0), h), min(max(x, 0), w)
        inside = pixels[top : max(y + size[1], 0), left : max(x + size[0], 0)]
        canvas[top - y :, left - x :][: inside.shape[0], : inside.shape[1]] = inside
        return canvas

    def read_associated(self, name: str) -> NDArray[np.uint8]:
        raise KeyError(name)

    def close(self) -> None:
        self._levels = []
