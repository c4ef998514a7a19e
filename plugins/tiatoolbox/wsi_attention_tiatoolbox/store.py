"""A prediction as an annotation store, and our GeoJSON read into one."""

from __future__ import annotations

import sqlite3
from typing import Any

import shapely
from tiatoolbox.annotation import Annotation, SQLiteStore

from wsi_attention import Prediction
from wsi_attention.errors import MissingExtraError
from wsi_attention.export import geojson_features

FACTS = "wsi-attention"
"""Key of a store's metadata under which label, probabilities and provenance stand."""


def to_store(prediction: Prediction, top: int = 5) -> SQLiteStore:
    """The regions and tiles of a prediction as annotations, in level-0 pixels, under the ids of our GeoJSON.

    `type` is the slide's label for a region and "Inspected" or "Not readable" for a tile; `object` says "annotation"
    or "tile". Numbers are `weight`, `attention`, `attention_percentile`, `rank`, `tiles`, and
    `sampling_probability` where tiles were drawn at random.

    Args:
        prediction: of one slide.
        top: how many of the heaviest tiles become regions; those that touch become one.

    Raises:
        MissingExtraError: this Python cannot hold a store.
    """
    check_sqlite()
    collection = geojson_features(prediction, bounds="none", top=top)
    store = SQLiteStore()
    found = collection["features"]
    annotations = [unpack(Annotation(shapely.geometry.shape(one["geometry"]), one["properties"])) for one in found]
    store.append_many(annotations, [one["id"] for one in found])
    store.metadata[FACTS] = collection["metadata"]
    store.commit()
    return store


def unpack(annotation: Annotation) -> Annotation:
    """Flattens the properties of our GeoJSON, for `AnnotationStore.from_geojson(…, transform=unpack)`.

    The GeoJSON of a slide with bounds counts from them: `origin=(-x, -y)`, with the `offset` (x, y) in its `metadata`,
    moves it back.
    """
    properties: dict[str, Any] = dict(annotation.properties)
    numbers = properties.pop("measurements", {})
    named = properties.pop("classification", {})
    kind = properties.pop("objectType", None)
    flat = {key.lower().replace(" ", "_"): value for key, value in numbers.items()}
    return Annotation(annotation.geometry, {"type": named.get("name"), "object": kind} | properties | flat)


def check_sqlite() -> None:
    """Make sure that this Python's sqlite3 can do what TIAToolbox asks of it.

    Raises:
        MissingExtraError: it was built without loadable extensions.
    """
    if not hasattr(sqlite3.Connection, "enable_load_extension"):
        raise MissingExtraError(
            "TIAToolbox's annotation store needs a Python whose sqlite3 loads extensions, which this one's does not;"
            " take another Python (Debian's, conda's), or output_type 'zarr' or 'qupath'"
        )
