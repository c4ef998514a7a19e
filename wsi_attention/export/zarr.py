"""Attention maps as OME-Zarr 0.5 pyramids at the slide's geometry, to lay over the slide, e.g. in napari.

Layout: axes c, y, x in micrometers; channel 0 the attention, channel 1 the share of each cell that was read. Cells
without tissue are NaN in both. The map over the whole slide is the folder itself; further maps of a model, such as one
a class, are folders of the same kind in `maps/`. Specification: https://ngff.openmicroscopy.org/0.5/ .
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import SlideError
from wsi_attention.export.measures import covered, main_map, read_boxes, shown_name
from wsi_attention.geometry import Grid
from wsi_attention.registry import IMPORTING
from wsi_attention.structures import AttentionMap, Prediction, shown_class

if TYPE_CHECKING:
    from zarr.core.common import JSON

VERSION = "0.5"
CHUNK = 512
"""Cells along y and x of one stored chunk; each level of a map of usual size is one file."""

MAPS = "maps"
"""Folder of all maps but the main one; they are numbered in the model's order."""

INSPECTED = "inspected"
"""Name of the second channel, by which our maps are distinguished from slides."""

SMALLEST = 64
"""Levels are halved until neither side is longer than this."""


def levels(found: AttentionMap, prediction: Prediction) -> list[NDArray[np.float32]]:
    """Return the pyramid, finest first: (2, rows, cols) float32, attention and share read; each level halves the last.

    A coarse cell is the mean of its tissue cells; NaN where it has none.
    """
    read = np.where(np.isfinite(found.values), covered(read_boxes(prediction), found.grid), np.nan)
    pyramid = [np.stack([found.values, read]).astype(np.float32)]
    while max(pyramid[-1].shape[1:]) > SMALLEST:
        pyramid.append(_halved(pyramid[-1]))
    return pyramid


def metadata(found: AttentionMap, prediction: Prediction, count: int) -> dict[str, JSON]:
    """Return the group's attributes for a pyramid of `count` levels.

    A pixel's coordinate is its centre, as napari and the slide's own OME-Zarr have it: level-0 pixel 0 lies at 0 µm, so
    a cell that starts at pixel s and is d pixels wide lies at (s + (d - 1) / 2) · mpp. Our own attributes repeat mpp,
    so that a program that counts in level-0 pixels can divide by it.
    """
    scales = [_placed(found.grid, prediction.mpp, 2**level) for level in range(count)]
    space = [{"name": name, "type": "space", "unit": "micrometer"} for name in ("y", "x")]
    name = shown_class(shown_name(prediction, found), prediction.purpose)
    multiscale: dict[str, JSON] = {
        "name": name,
        "type": "mean",
        "axes": [{"name": "c", "type": "channel"}, *space],
        "datasets": [{"path": str(n), "coordinateTransformations": placed} for n, placed in enumerate(scales)],
    }
    highest = float(np.nanmax(found.values)) if np.isfinite(found.values).any() else 0.0
    channels = [_channel(name, "FFFFFF", highest), _channel(INSPECTED, "00B4FF", 1.0)]
    about: dict[str, JSON] = {
        "label": prediction.shown_label,
        "mpp": prediction.mpp,
        "unread_mass": prediction.unread_mass,
        "remarks": list(prediction.remarks),
    }
    ome: dict[str, JSON] = {"version": VERSION, "multiscales": [multiscale], "omero": {"channels": channels}}
    return {"ome": ome, "wsi_attention": about}


class HeatmapPyramidExporter:
    """Writes the attention maps of a prediction as an OME-Zarr folder, the main one first."""

    suffix: ClassVar[str] = "heatmaps/{slide}.ome.zarr"

    def __call__(self, prediction: Prediction, path: str | Path) -> None:
        """Write the folder anew; the same prediction gives the same bytes.

        Raises:
            SlideError: the prediction holds no attention map.
        """
        with IMPORTING:
            import zarr

        path, main = Path(path), main_map(prediction)
        if main is None:
            raise SlideError(f"{prediction.slide}: the prediction holds no attention map to write as {path.name}")
        _write(main, prediction, path)
        others = [found for found in prediction.maps if found is not main]
        if others:
            zarr.open_group(path / MAPS, mode="w", zarr_format=3)
        for number, found in enumerate(others):
            _write(found, prediction, path / MAPS / f"{number}-{_plain(found.name)}")


def _write(found: AttentionMap, prediction: Prediction, path: Path) -> None:
    import zarr

    pyramid = levels(found, prediction)
    group = zarr.open_group(path, mode="w", zarr_format=3, attributes=metadata(found, prediction, len(pyramid)))
    for number, values in enumerate(pyramid):
        array = group.create_array(
            str(number),
            shape=values.shape,
            dtype=values.dtype,
            chunks=(len(values), min(CHUNK, values.shape[1]), min(CHUNK, values.shape[2])),
            fill_value=float("nan"),
            dimension_names=("c", "y", "x"),
            chunk_key_encoding={"name": "default", "separator": "/"},
        )
        array[:] = values


def _plain(name: str) -> str:
    """Return a name that is safe as a folder's."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)


def _halved(values: NDArray[np.float32]) -> NDArray[np.float32]:
    channels, rows, cols = values.shape
    padded = np.pad(values, ((0, 0), (0, rows % 2), (0, cols % 2)), constant_values=np.nan)
    blocks = padded.reshape(channels, (rows + 1) // 2, 2, (cols + 1) // 2, 2)
    total = np.nansum(blocks, axis=(2, 4), dtype=np.float64)
    known = np.isfinite(blocks).sum(axis=(2, 4))
    mean = np.full(total.shape, np.nan)
    np.divide(total, known, out=mean, where=known > 0)
    return mean.astype(np.float32)


def _placed(grid: Grid, mpp: float, factor: int) -> list[dict[str, JSON]]:
    (dx, dy), (x, y) = grid.step, grid.origin
    scale = [1.0, dy * factor * mpp, dx * factor * mpp]
    translation = [0.0, (y + (dy * factor - 1) / 2) * mpp, (x + (dx * factor - 1) / 2) * mpp]
    return [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]


def _channel(label: str, color: str, end: float) -> dict[str, JSON]:
    top = end if end > 0 else 1.0
    return {
        "label": label,
        "color": color,
        "active": True,
        "window": {"start": 0.0, "min": 0.0, "end": top, "max": top},
    }
