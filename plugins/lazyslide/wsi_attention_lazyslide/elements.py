"""A prediction as elements of a `WSIData`: shapes, tables and attrs, as LazySlide's own functions write them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata.models import ShapesModel, TableModel
from wsidata import TileSpec, WSIData
from wsidata.io import add_tiles, update_shapes_data

from wsi_attention import AttentionMap, Glimpse, Prediction
from wsi_attention.export import geojson_features, map_of, percentiles

MEASURED = ("weight", "attention", "attention_percentile")
"""Columns of every tile, and the variables of the table of weights."""
AGGREGATE = "agg_attention"
"""Key under which the slide's feature stands, as `wsidata.agg_wsi(…, agg_key=…)` asks for it."""


@dataclass(frozen=True, eq=False)
class Read:
    """The tiles of one glimpse that could be read; a place drawn several times stands once.

    Attributes:
        first: (n,) its draw's index in the glimpse.
        locations: (n, 2) top left corners in level-0 pixels.
        measured: weight (summed over draws), attention and its percentile.
    """

    first: NDArray[np.int64]
    locations: NDArray[np.int64]
    measured: pd.DataFrame

    @classmethod
    def of(cls, glimpse: Glimpse, found: AttentionMap | None) -> Read:
        """What a glimpse read, in the order of drawing; percentiles are among the cells of the map."""
        good = np.flatnonzero(glimpse.valid)
        places, first, member = np.unique(
            glimpse.tiles.locations[0][good], axis=0, return_index=True, return_inverse=True
        )
        weights = np.bincount(member.ravel(), glimpse.weights[good], minlength=len(places))
        order = np.argsort(first)
        first = good[first[order]]
        attention = glimpse.attention[first]
        columns = (weights[order], attention, percentiles(attention, found))
        return cls(first, glimpse.tiles.locations[0][first], pd.DataFrame(dict(zip(MEASURED, columns, strict=True))))


def reads_of(prediction: Prediction) -> list[Read]:
    """What each glimpse read."""
    return [Read.of(glimpse, map_of(prediction, k)) for k, glimpse in enumerate(prediction.glimpses)]


def add_read_tiles(wsi: WSIData, key: str, glimpse: Glimpse, read: Read, tissue_key: str | None) -> None:
    """Write the tiles of a glimpse as shapes with a `TileSpec`, so that LazySlide's functions take them as tiles."""
    spec = _tile_spec(wsi, glimpse)
    _drop(wsi, key)
    add_tiles(wsi, key, read.locations, spec, _tissue_ids(wsi, glimpse, read, tissue_key))
    update_shapes_data(wsi, key, read.measured)


def add_regions(wsi: WSIData, key: str, prediction: Prediction, top: int) -> int:
    """Write the heaviest tiles, united where they touch, as shapes; heaviest first. Return how many there are."""
    found = [one for one in geojson_features(prediction, bounds="none", top=top)["features"] if _is_region(one)]
    _drop(wsi, key)
    if not found:
        return 0
    numbers = [one["properties"]["measurements"] for one in found]
    rows = gpd.GeoDataFrame(
        {
            "region_id": np.arange(len(found)),
            "rank": [int(one["Rank"]) for one in numbers],
            "tiles": [int(one["Tiles"]) for one in numbers],
            "weight": [float(one["Weight"]) for one in numbers],
            "attention_percentile": [float(one.get("Attention percentile", math.nan)) for one in numbers],
            "label": [prediction.shown_label] * len(found),
        },
        geometry=[shapely.geometry.shape(one["geometry"]) for one in found],
    )
    wsi.shapes[key] = ShapesModel.parse(rows)
    return len(found)


def add_table(
    wsi: WSIData, key: str, tile_key: str, values: NDArray[Any], names: list[str], uns: dict[str, Any]
) -> None:
    """Write a table (tiles, variables) that annotates tiles by their `tile_id`, as tables of features do."""
    tiles = wsi.shapes[tile_key]
    ids = tiles["tile_id"].to_numpy()
    obs = pd.DataFrame(tiles[list(MEASURED)].to_numpy(), columns=list(MEASURED), index=ids.astype(str))
    obs["tile_id"] = ids
    obs["library_id"] = pd.Categorical([tile_key] * len(ids))
    data = AnnData(X=np.asarray(values, np.float32), obs=obs, var=pd.DataFrame(index=names), uns=uns)
    _drop(wsi, key)
    wsi.tables[key] = TableModel.parse(data, region=tile_key, region_key="library_id", instance_key="tile_id")


def maps_of(prediction: Prediction) -> dict[str, Any]:
    """Every attention map of a prediction, by name: values, NaN where there is no tissue, and where its cells lie."""
    return {
        one.name: {
            "values": np.asarray(one.values, np.float32),
            "origin": np.asarray(one.grid.origin, np.float64),
            "step": np.asarray(one.grid.step, np.float64),
        }
        for one in prediction.maps
    }


def facts_of(prediction: Prediction) -> dict[str, Any]:
    """What attrs say of a prediction: plain values, for they are written as JSON."""
    unread = [glimpse.tiles.boxes[0][~glimpse.valid] for glimpse in prediction.glimpses]
    known = ("fingerprint", "weights_sha256", "model", "seed", "precision", "snap", "reader", "mpp_source", "versions")
    return {
        "label": prediction.label,
        "purpose": prediction.purpose,
        "probabilities": {
            name: float(value) for name, value in zip(prediction.classes, prediction.probabilities, strict=True)
        },
        "spread": prediction.spread,
        "unread_mass": prediction.unread_mass,
        "status": prediction.status,
        "notes": list(prediction.remarks),
        "tissue": prediction.tissue.source,
        "tiles_read": int(sum(glimpse.valid.sum() for glimpse in prediction.glimpses)),
        "unreadable": [[int(side) for side in box] for boxes in unread for box in boxes],
        "provenance": {name: prediction.provenance[name] for name in known if name in prediction.provenance},
        "use": "research use only",
    }


def _is_region(feature: dict[str, Any]) -> bool:
    return bool(feature["properties"]["objectType"] == "annotation")


def _drop(wsi: WSIData, key: str) -> None:
    """Remove what an earlier run left, for SpatialData warns of what is written over."""
    for elements in (wsi.shapes, wsi.tables):
        if key in elements:
            del elements[key]


def _tile_spec(wsi: WSIData, glimpse: Glimpse) -> TileSpec:
    (width, height), (base_width, base_height) = glimpse.tiles.size, glimpse.tiles.footprint
    downsamples = np.asarray(wsi.properties.level_downsample)
    level = int(np.flatnonzero(downsamples <= glimpse.tiles.downsample * (1 + 1e-9)).max())
    base = _factor(width, base_width, height, base_height, glimpse.tiles.downsample)
    return TileSpec(
        height=height,
        width=width,
        stride_height=height,
        stride_width=width,
        mpp=None if wsi.properties.mpp is None else float(wsi.properties.mpp * glimpse.tiles.downsample),
        ops_level=level,
        ops_downsample=base / float(downsamples[level]),
        base_downsample=base,
    )


def _factor(width: int, base_width: int, height: int, base_height: int, downsample: float) -> float:
    """The downsample, raised by as little as makes wsidata, which rounds down, arrive at our rounded footprint."""
    for factor in (downsample, max(base_width / width, base_height / height) * (1 + 1e-12)):
        if (int(width * factor), int(height * factor)) == (base_width, base_height):
            return factor
    return downsample


def _tissue_ids(wsi: WSIData, glimpse: Glimpse, read: Read, tissue_key: str | None) -> NDArray[np.int64]:
    """The tissue that each tile's centre lies in, -1 for none."""
    ids = np.full(len(read.first), -1, np.int64)
    if tissue_key is None or "tissue_id" not in wsi.shapes[tissue_key]:
        return ids
    tissues = wsi.shapes[tissue_key]
    centres = shapely.points(read.locations + np.array(glimpse.tiles.footprint) / 2)
    tile, tissue = shapely.STRtree(tissues.geometry.to_numpy()).query(centres, predicate="intersects")
    ids[tile] = tissues["tissue_id"].to_numpy()[tissue]
    return ids
