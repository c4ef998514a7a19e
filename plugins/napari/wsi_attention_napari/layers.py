"""Slides and predictions as napari's layer data: (what to show, how, which kind of layer)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from napari.utils.colormaps import Colormap, ensure_colormap
from numpy.typing import NDArray

from wsi_attention import AttentionMap, Glimpse, Prediction, Slide
from wsi_attention_napari.levels import levels_of

LayerData = tuple[Any, dict[str, Any], str]

MOST = 2_000
"""Boxes of one layer: napari draws each by itself. The heaviest are shown."""

CORNER = 0.5
"""napari counts from the centre of a pixel, level-0 coordinates from its corner."""


def slide_layer(slide: Slide) -> LayerData:
    """A slide as a multiscale image."""
    known = {"path": slide.path, "reader": slide.reader, "mpp": slide.mpp_xy, "mpp_source": slide.mpp_source}
    how = {
        "name": Path(slide.path).name,
        "multiscale": True,
        "rgb": True,
        "contrast_limits": (0, 255),
        "metadata": {"wsi_attention": known},
    }
    return levels_of(slide), how, "image"


def prediction_layers(prediction: Prediction) -> list[LayerData]:
    """The attention maps of a prediction, the last one shown, and the boxes of the tiles that were read."""
    name = Path(prediction.slide).name
    maps = [_map_layer(found, f"{name}: {found.name}", prediction) for found in prediction.maps]
    for _, how, _ in maps[:-1]:
        how["visible"] = False
    return maps + [_tiles_layer(one, f"{name}: {one.name}", prediction) for one in prediction.glimpses]


def _map_layer(found: AttentionMap, name: str, prediction: Prediction) -> LayerData:
    finite = found.values[np.isfinite(found.values)]
    (x, y), (left, top) = found.grid.step, found.grid.origin
    how = {
        "name": name,
        "scale": (y, x),
        "translate": (top + y / 2 - CORNER, left + x / 2 - CORNER),
        "colormap": heat(),
        "opacity": 0.6,
        "interpolation2d": "nearest",
        "contrast_limits": (0.0, float(max(finite.max(initial=0.0), np.finfo(np.float32).tiny))),
        "metadata": {"wsi_attention": _facts(prediction)},
    }
    return found.values, how, "image"


def heat() -> Colormap:
    """Inferno that lets the slide through where attention is low."""
    colours = np.array(ensure_colormap("inferno").colors, np.float64)
    colours[:, 3] = np.linspace(0.2, 1.0, len(colours))
    return Colormap(colours, name="attention")


def _tiles_layer(glimpse: Glimpse, name: str, prediction: Prediction) -> LayerData:
    shown, weights, places = _heaviest(glimpse)
    if len(shown) < places:
        name = f"{name} ({len(shown)} heaviest of {places})"
    how = {
        "name": name,
        "shape_type": "rectangle",
        "features": {"weight": weights, "attention": glimpse.attention[shown], "read": glimpse.valid[shown]},
        "edge_color": "weight",
        "edge_colormap": "viridis",
        "edge_contrast_limits": (0.0, float(max(weights.max(initial=0.0), 1e-12))),
        "edge_width": max(1.0, max(glimpse.tiles.footprint) / 32),
        "face_color": "transparent",
        "metadata": {"wsi_attention": _facts(prediction)},
    }
    if not len(shown):
        how = {key: how[key] for key in ("name", "metadata")} | {"ndim": 2}
    return _corners(glimpse.tiles.boxes[0][shown]), how, "shapes"


def _heaviest(glimpse: Glimpse) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
    """Tiles in the order they were drawn, at most `MOST`; their weights, each draw of a place counted; all places."""
    _, first, member = np.unique(glimpse.tiles.locations[0], axis=0, return_index=True, return_inverse=True)
    weights = np.bincount(member.ravel(), np.where(glimpse.valid, glimpse.weights, 0.0), minlength=len(first))
    order = np.argsort(-weights, kind="stable")[:MOST]
    order = order[np.argsort(first[order])]
    return first[order].astype(np.int64), weights[order].astype(np.float64), len(first)


def _corners(boxes: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    """(n, 4) x, y, w, h as four corners (y, x) each."""
    x, y, w, h = boxes.T - np.array([CORNER, CORNER, 0, 0])[:, None] if len(boxes) else np.empty((4, 0))
    corners = [(y, x), (y, x + w), (y + h, x + w), (y + h, x)]
    return list(np.stack([np.stack(corner, -1) for corner in corners], 1))


def _facts(prediction: Prediction) -> dict[str, Any]:
    return {
        "slide": prediction.slide,
        "label": prediction.shown_label,
        "probabilities": dict(zip(prediction.classes, prediction.probabilities.tolist(), strict=True)),
        "spread": prediction.spread,
        "unread_mass": prediction.unread_mass,
        "purpose": prediction.purpose,
        "status": prediction.status,
        "notes": list(prediction.remarks),
        "use": "research use only",
    }
