"""Heatmaps that `export --what heatmap-zarr` wrote, as layers that lie on the slide: in level-0 pixels, not in µm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wsi_attention_napari.layers import LayerData, heat
from wsi_attention_napari.levels import LARGEST
from wsi_attention_napari.readers import Paths, Read, one_path

INSPECTED = "inspected"
"""The second channel of our heatmaps: the share of each cell that was read."""
MAPS = "maps"
"""Folder of further maps of a model, each a heatmap of its own."""


def heatmap_reader(path: Paths) -> Read | None:
    """Read heatmaps of ours that say how large the slide's pixels are; others are left to napari's other readers."""
    one = one_path(path)
    return _read if one is not None and one.is_dir() and _attributes(one) is not None else None


def heatmap_layers(folder: Path) -> list[LayerData]:
    """The attention map of a heatmap's folder, the share that was read (hidden), and the maps of `maps/` (hidden).

    Args:
        folder: NAME.ome.zarr as `export` wrote it.

    Raises:
        ValueError: it is no heatmap of ours, it does not say how large the slide's pixels are, or it is too large.
    """
    found = _attributes(folder)
    if found is None:
        raise ValueError(
            f"{folder}: no heatmap with the slide's µm per pixel; write it with: export --what heatmap-zarr"
        )
    layers = list(_layers(folder, folder.name, found))
    for other in sorted(_below(folder)):
        attributes = _attributes(other)
        layers += list(_layers(other, f"{folder.name}: {other.name}", attributes))[:1] if attributes else []
    for _, how, _ in layers[1:]:
        how["visible"] = False
    return layers


def _read(paths: Paths) -> list[LayerData]:
    one = one_path(paths)
    assert one is not None
    return heatmap_layers(one)


def _below(folder: Path) -> Iterator[Path]:
    return (each for each in (folder / MAPS).glob("*") if each.is_dir())


def _attributes(folder: Path) -> Mapping[str, Any] | None:
    """The attributes of a heatmap; None where the folder is none of ours, or older than its µm per pixel."""
    try:
        found = dict(zarr.open_group(folder, mode="r").attrs)
        labels = [one["label"] for one in found["ome"]["omero"]["channels"]]
        return found if labels[1:] == [INSPECTED] and float(found["wsi_attention"]["mpp"]) > 0 else None
    except (OSError, KeyError, TypeError, ValueError):
        return None


def _layers(folder: Path, name: str, attributes: Mapping[str, Any]) -> Iterator[LayerData]:
    """Both channels, each a pyramid (rows, columns)."""
    multiscale, mpp = attributes["ome"]["multiscales"][0], float(attributes["wsi_attention"]["mpp"])
    levels = [_values(folder, one["path"]) for one in multiscale["datasets"]]
    scale, translate = (np.array(one) / mpp for one in _placed(multiscale["datasets"][0]))
    for number, channel in enumerate(attributes["ome"]["omero"]["channels"]):
        how = {
            "name": f"{name}: {channel['label']}",
            "multiscale": True,
            "rgb": False,
            "scale": tuple(scale[1:]),
            "translate": tuple(translate[1:]),
            "opacity": 0.6,
            "colormap": "gray" if number else heat(),
            "interpolation2d": "nearest",
            "contrast_limits": (0.0, float(channel["window"]["end"])),
            "metadata": {"wsi_attention": {**attributes["wsi_attention"], "use": "research use only"}},
        }
        yield [level[number] for level in levels], how, "image"


def _placed(dataset: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Scale and translation of a level, in µm, along c, y and x."""
    known = {one["type"]: one[one["type"]] for one in dataset["coordinateTransformations"]}
    return known["scale"], known["translation"]


def _values(folder: Path, level: str) -> NDArray[np.float32]:
    array = zarr.open_array(folder / level, mode="r")
    if array.size > 2 * LARGEST:
        raise ValueError(f"{folder}: {array.shape} cells are more than a heatmap has; write it again")
    return np.asarray(array[:], np.float32)
