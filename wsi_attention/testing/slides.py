"""Synthetic H&E slides with known lesions: for samples, tests, and training. The same spec makes the same pixels."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import InputError
from wsi_attention.testing.slide_plan import Blob, SlidePlan

CLASSES = ("benign", "lesion")
SUFFIXES = {
    "svs": ".svs",
    "tiff": ".tiff",
    "ome-tiff": ".ome.tiff",
    "ome-zarr": ".ome.zarr",
    "ome-zarr-zip": ".ome.zarr.zip",
}
LARGEST_SHARE = 0.0045
"""Share of the tissue that all lesions of a slide take together, at most, at lesion scale 1."""


@dataclass(frozen=True)
class SlideSpec:
    """A slide in numbers.

    Attributes:
        size: (w, h) of level 0 in pixels; need not be divisible by anything.
        mpp: µm per level-0 pixel.
        seed: fixes everything else.
        label: "benign" or "lesion".
        lesions: (x, y, radius) in level-0 pixels of lesions at given places, tissue grows around them; with None and
            the label "lesion" one or two are placed at random, at most 0.45 % of the tissue together.
        lesion_scale: factor on the area of lesions placed at random.
        coverage: share of the slide that is tissue.
        level_factor: each level is so many times coarser than the one before.
        quality: JPEG quality; OME-Zarr is lossless.
        ngff: version of OME-Zarr, "0.4" (zarr format 2) or "0.5" (zarr format 3).
    """

    size: tuple[int, int] = (8192, 8192)
    mpp: float = 0.5
    seed: int = 0
    label: str = "benign"
    lesions: tuple[tuple[float, float, float], ...] | None = None
    lesion_scale: float = 1.0
    coverage: float = 0.3
    level_factor: int = 4
    quality: int = 75
    ngff: Literal["0.4", "0.5"] = "0.5"

    def __post_init__(self) -> None:
        if self.label not in CLASSES:
            raise InputError(f"a slide cannot be labelled {self.label!r}; possible: {', '.join(CLASSES)}")


@dataclass(frozen=True, eq=False)
class SlideTruth:
    """What is known about a written slide.

    Attributes:
        label: "benign" or "lesion".
        extent: (w, h) in level-0 pixels.
        lesions: polygons (n, 2) of (x, y) in level-0 pixels, inside the slide.
        aggregates: polygons of the lymphoid aggregates, which look alike from afar.
        tissue_area: level-0 pixels.
        lesion_area: level-0 pixels.
    """

    label: str
    extent: tuple[int, int]
    lesions: tuple[NDArray[np.float64], ...]
    aggregates: tuple[NDArray[np.float64], ...] = field(default=())
    tissue_area: float = 0.0
    lesion_area: float = 0.0

    def geojson(self) -> dict[str, object]:
        """Return the lesions as annotations in QuPath's GeoJSON."""
        features = [_feature(polygon, index) for index, polygon in enumerate(self.lesions)]
        return {"type": "FeatureCollection", "features": features}


def _feature(polygon: NDArray[np.float64], index: int) -> dict[str, object]:
    ring = np.round(np.vstack([polygon, polygon[:1]]), 1).tolist()
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "annotation",
            "name": f"lesion {index + 1}",
            "classification": {"name": "Lesion", "color": [200, 0, 0]},
        },
    }


def paint_slide(spec: SlideSpec) -> tuple[NDArray[np.uint8], SlideTruth]:
    """Return level 0 as RGB (h, w, 3), and what is on it; takes 6 bytes of memory a pixel."""
    from wsi_attention.testing import slide_scene
    from wsi_attention.testing.stain import Stain

    rng = np.random.default_rng([spec.seed, 3])
    fixed = tuple(Blob(x, y, r, spec.seed + k) for k, (x, y, r) in enumerate(spec.lesions or ()))
    shares = _shares(spec, rng)
    plan = slide_scene.plan_slide(rng, spec.size, spec.mpp, spec.coverage, fixed, shares)
    stain = Stain.drawn(rng)
    return slide_scene.colour(slide_scene.paint(plan, spec.mpp, rng), plan, stain, rng), _truth(spec, plan)


def _shares(spec: SlideSpec, rng: np.random.Generator) -> tuple[float, ...]:
    """Return the shares of the tissue for random lesions: one, or two where both would be wider than 70 µm."""
    share, two = rng.uniform(0.0022, LARGEST_SHARE * 0.95) * spec.lesion_scale, rng.random() < 0.25
    if spec.label == "benign" or spec.lesions is not None:
        return ()
    tissue = spec.size[0] * spec.size[1] * spec.coverage * spec.mpp**2
    return (share * 0.6, share * 0.4) if two and 0.4 * share * tissue > np.pi * 35**2 else (share,)


def _truth(spec: SlideSpec, plan: SlidePlan) -> SlideTruth:
    lesions = tuple(np.clip(blob.polygon(), 0, spec.size) for blob in plan.lesions)
    area = sum(polygon_area(polygon) for polygon in lesions)
    aggregates = tuple(np.clip(blob.polygon(), 0, spec.size) for blob in plan.aggregates)
    return SlideTruth(spec.label, spec.size, lesions, aggregates, float(plan.tissue.sum()) * plan.step**2, area)


def polygon_area(polygon: NDArray[np.float64]) -> float:
    """Return the area of a polygon (n, 2)."""
    x, y = polygon.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def format_of(path: Path) -> str:
    """Return the format that a file name asks for.

    Raises:
        InputError: no format has that suffix.
    """
    for name, suffix in sorted(SUFFIXES.items(), key=lambda item: -len(item[1])):
        if path.name.lower().endswith(suffix):
            return name
    raise InputError(f"{path}: no slide format ends like this; possible: {', '.join(SUFFIXES.values())}")


def write_slide(path: str | Path, spec: SlideSpec) -> SlideTruth:
    """Paint a slide and write it in the format that the path's suffix names, whole or not at all.

    Raises:
        InputError: the suffix names no format.
    """
    from wsi_attention.testing import slide_levels, slide_writers

    path = Path(path)
    kind = format_of(path)
    rgb, truth = paint_slide(spec)
    levels = slide_levels.pyramid(rgb, spec.level_factor)
    with replacing(path) as part:
        if kind in slide_writers.TILED:
            encoded = slide_levels.encoded(levels, spec.quality)
            slide_writers.TILED[kind](part, encoded, spec.mpp, levels[-1])
        else:
            slide_writers.write_ome_zarr(part, levels, spec.mpp, spec.ngff)
    return truth


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside the wanted one that takes its place if the block ends well, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}.part.{path.name}")
    try:
        yield part
        if path.is_dir():
            shutil.rmtree(path)
        part.replace(path)
    finally:
        if part.is_dir():
            shutil.rmtree(part)
        part.unlink(missing_ok=True)


def truth_name(name: str) -> str:
    """Return the file name of a slide's ground truth: its own up to the first dot, then `.geojson`."""
    return f"{name.partition('.')[0]}.geojson"


def write_truth(path: Path, truth: SlideTruth) -> None:
    """Write the lesions as a GeoJSON file that QuPath opens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(truth.geojson()) + "\n", encoding="utf-8")
