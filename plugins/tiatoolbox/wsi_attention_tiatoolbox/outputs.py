"""What a run leaves on disk for each slide, in the formats of TIAToolbox's engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from wsi_attention import Prediction
from wsi_attention.export import GeoJSONExporter, geojson_features, map_of, percentiles
from wsi_attention_tiatoolbox.store import to_store

OutputType = Literal["annotationstore", "zarr", "qupath", "dict"]


def arrays_of(prediction: Prediction) -> dict[str, Any]:
    """The tiles asked for as arrays, in the order of drawing, and the slide's label.

    `coordinates` (n, 4) are left, top, right, bottom in level-0 pixels (units "baseline", resolution 1); `weights`,
    `attention`, `attention_percentile` and `read` have one value a tile; `looks` says which glimpse it is of.
    `probabilities` (classes,) and `predictions` (the label's index, −1 where it is undecided) are of the slide: tiles
    have no class of their own.
    """
    glimpses = prediction.glimpses
    boxes = [glimpse.tiles.boxes[0] for glimpse in glimpses]
    ranks = [percentiles(glimpse.attention, map_of(prediction, k)) for k, glimpse in enumerate(glimpses)]
    corners = [np.concatenate([one[:, :2], one[:, :2] + one[:, 2:]], axis=1) for one in boxes]
    return {
        "coordinates": np.concatenate([np.empty((0, 4), np.int64), *corners]),
        "weights": np.concatenate([np.empty(0), *(glimpse.weights for glimpse in glimpses)]),
        "attention": np.concatenate([np.empty(0), *(glimpse.attention for glimpse in glimpses)]),
        "attention_percentile": np.concatenate([np.empty(0), *ranks]),
        "read": np.concatenate([np.empty(0, np.bool_), *(glimpse.valid for glimpse in glimpses)]),
        "looks": np.repeat(np.arange(len(glimpses)), [len(glimpse.valid) for glimpse in glimpses]),
        "probabilities": np.asarray(prediction.probabilities, np.float64),
        "predictions": int(np.argmax(prediction.probabilities)) if prediction.decided else -1,
    }


def _store(prediction: Prediction, stem: Path, top: int) -> Path:
    path = stem.with_name(f"{stem.name}.db")
    store = to_store(prediction, top)
    store.dump(path)
    store.close()
    return path


def _zarr(prediction: Prediction, stem: Path, top: int) -> Path:
    del top
    path = stem.with_name(f"{stem.name}.zarr")
    group = zarr.open_group(path, mode="w")
    arrays = arrays_of(prediction)
    arrays["predictions"] = np.array([arrays["predictions"]])
    for name, values in arrays.items():
        group.create_array(name, data=values)
    facts = geojson_features(prediction, bounds="none")["metadata"]
    group.attrs.update(
        {"wsi-attention": facts, "units": "baseline", "resolution": 1.0, "label": prediction.shown_label}
    )
    return path


def _geojson(prediction: Prediction, stem: Path, top: int) -> Path:
    path = stem.with_name(f"{stem.name}.geojson")
    GeoJSONExporter(top=top)(prediction, path)
    return path


WRITERS: dict[str, Callable[[Prediction, Path, int], Path]] = {
    "annotationstore": _store,
    "zarr": _zarr,
    "qupath": _geojson,
}
