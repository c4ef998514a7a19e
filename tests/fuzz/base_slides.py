"""The sound slides that mutants are made from: one painted scene of less than a megapixel in every format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from dicom_file import write_series
from numpy.typing import NDArray
from tiff_kinds import write_kind

from wsi_attention.testing import slide_levels, slide_writers
from wsi_attention.testing.slides import SlideSpec, paint_slide

Pixels = NDArray[np.uint8]

MPP = 0.5
SCENE = SlideSpec(size=(1000, 900), mpp=MPP, seed=5, label="lesion", coverage=0.5, lesions=((500, 450, 80),))
"""Tissue on half of it, a lesion in the middle: the demo model is sure of it, and reads nearly all of it."""


@dataclass(frozen=True, eq=False)
class Scene:
    """The pixels that mutants have, and those of another slide.

    Attributes:
        levels: (h, w, 3) uint8, finest first: downsamples 1, 2, 4.
        other: the same of another slide of the same size.
    """

    levels: tuple[Pixels, ...]
    other: tuple[Pixels, ...]

    def tissue(self, box: tuple[int, int, int, int]) -> float:
        """The share of a box (x, y, w, h) of level 0 that is no glass."""
        x, y, w, h = box
        part = self.levels[0][y : y + h, x : x + w]
        return float((part.min(axis=-1) < 215).mean()) if part.size else 0.0


@cache
def scene() -> Scene:
    """Paint the two slides; takes some seconds, once a process."""
    return Scene(_levels(SCENE), _levels(replace(SCENE, seed=6, label="benign", lesions=None)))


def _levels(spec: SlideSpec) -> tuple[Pixels, ...]:
    return tuple(slide_levels.pyramid(paint_slide(spec)[0], 2, smallest=256))


def write_base(base: str, path: Path, levels: tuple[Pixels, ...] | None = None) -> Path:
    """Write the scene, or other levels, in a format; give the path with the format's suffix (a folder for DICOM)."""
    suffix, write = BASES[base]
    target = path.with_name(path.name + suffix)
    write(target, list(levels or scene().levels))
    return target


def _tiled(kind: str) -> Callable[[Path, list[Pixels]], object]:
    return lambda path, levels: slide_writers.TILED[kind](path, slide_levels.encoded(levels, 90), MPP, levels[-1])


def _stored(kind: str) -> Callable[[Path, list[Pixels]], object]:
    return lambda path, levels: write_kind(path, levels, kind, MPP)


BASES: dict[str, tuple[str, Callable[[Path, list[Pixels]], object]]] = {
    "svs": (".svs", _tiled("svs")),
    "tiff": (".tiff", _tiled("tiff")),
    "ome-tiff": (".ome.tiff", _tiled("ome-tiff")),
    "tables": (".tif", _stored("jpeg-420-tables")),
    "lzw": (".tif", _stored("lzw-predictor")),
    "deflate": (".tif", _stored("deflate")),
    "jpeg2000": (".svs", _stored("aperio-33005")),
    "zarr-0.4": (".ome.zarr", lambda path, levels: slide_writers.write_ome_zarr(path, levels, MPP, "0.4")),
    "zarr-0.5": (".ome.zarr", lambda path, levels: slide_writers.write_ome_zarr(path, levels, MPP, "0.5")),
    "zip-0.4": (".ome.zarr.zip", lambda path, levels: slide_writers.write_ome_zarr(path, levels, MPP, "0.4")),
    "zip-0.5": (".ome.zarr.zip", lambda path, levels: slide_writers.write_ome_zarr(path, levels, MPP, "0.5")),
    "dicom": ("", lambda path, levels: write_series(path, levels, MPP)),
}
"""Name -> suffix, and what writes levels to a path."""
