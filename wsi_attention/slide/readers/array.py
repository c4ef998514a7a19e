"""A slide in memory: NumPy arrays as levels, for tests and for images that are already loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import InputError, UnsupportedSlideError
from wsi_attention.geometry import Box
from wsi_attention.slide.failures import opening
from wsi_attention.slide.readers.limits import check_dimensions, downsamples
from wsi_attention.slide.resample import level_location, padded


@dataclass(frozen=True, eq=False)
class ArrayLevels:
    """The levels of a slide in memory, and what a file would say about them. Pickles with its pixels.

    Attributes:
        levels: (h, w, 3 or 4) uint8 arrays, finest first.
        downsamples: one a level; None takes them from the shapes.
        bounds: as a scanner would state them; None for the whole extent.
        tile_size: (w, h) of the stored tiles to report; None for none.
        properties: tags, e.g. {"openslide.mpp-x": "0.25"}.
        associated: label, macro … by name.
        name: what stands for a path in messages and results.
    """

    levels: tuple[NDArray[np.uint8], ...]
    downsamples: tuple[float, ...] | None = None
    bounds: Box | None = None
    tile_size: tuple[int, int] | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    associated: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    name: str = "array"


class ArrayReader:
    """Reads from arrays, or from one `.npy` file (memory-mapped; object arrays are refused, nothing is unpickled)."""

    name: ClassVar[str] = "array"

    def __init__(self, source: str | ArrayLevels) -> None:
        with opening(str(getattr(source, "name", source)), self.name):
            self._source = source if isinstance(source, ArrayLevels) else _from_npy(source)
        _check_levels(self._source)
        self.level_dimensions = tuple((level.shape[1], level.shape[0]) for level in self._source.levels)
        check_dimensions(self._source.name, self.level_dimensions)
        self.level_downsamples = self._source.downsamples or downsamples(self.level_dimensions)
        self.tile_sizes = (self._source.tile_size,) * len(self.level_dimensions)
        self.properties: Mapping[str, str] = self._source.properties
        self.bounds = self._source.bounds
        self.associated = tuple(self._source.associated)

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Return False: arrays are given as such, and a `.npy` file only opens with `reader="array"`."""
        del path
        return False

    def read(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return pixels (h, w, 3 or 4); outside the slide they are white."""
        pixels = self._source.levels[level]
        corner = level_location(location, self.level_downsamples[level])
        return padded(lambda rows, cols: pixels[rows, cols], self.level_dimensions[level], corner, size).copy()

    def read_associated(self, name: str) -> NDArray[np.uint8]:
        """Return a label, macro or thumbnail image, (h, w, 3)."""
        return self._source.associated[name]

    def close(self) -> None:
        """Do nothing: there is no file to close."""


def as_levels(source: NDArray[np.uint8] | Sequence[NDArray[np.uint8]] | ArrayLevels) -> ArrayLevels:
    """Return one array, or several from fine to coarse, as the levels of a slide.

    Raises:
        InputError: something else was given.
    """
    if isinstance(source, ArrayLevels):
        return source
    arrays = (source,) if isinstance(source, np.ndarray) else tuple(source) if isinstance(source, Sequence) else ()
    if not arrays or not all(isinstance(level, np.ndarray) for level in arrays):
        raise InputError(f"a slide is a path, a NumPy array or a list of them, got {type(source).__name__}")
    return ArrayLevels(arrays)


def _from_npy(path: str) -> ArrayLevels:
    return ArrayLevels((np.load(Path(path), mmap_mode="r", allow_pickle=False),), name=path)


def _check_levels(source: ArrayLevels) -> None:
    for level in source.levels:
        if level.dtype != np.uint8 or level.ndim != 3 or level.shape[2] not in (3, 4):
            raise UnsupportedSlideError(
                f"{source.name}: an array of {level.dtype} {level.shape}; a slide is (h, w, 3) or (h, w, 4) uint8"
            )
    if source.downsamples is not None and len(source.downsamples) != len(source.levels):
        raise InputError(f"{source.name}: {len(source.downsamples)} downsamples for {len(source.levels)} levels")
