"""A store as LazySlide 0.13 leaves it, written without LazySlide: the parts that hold features of tiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import zarr

from wsi_attention.bags import Bag


def write_store(bag: Bag, store: Path, model: str = "tiny", shuffled: bool = False, **changes: Any) -> Path:
    """Write a store; rows of the table may come in another order than places, as `tile_id` says.

    Args:
        bag: with features; each slide has its mpp and extent in the store where the bag knows them.
        store: where, such as slides/a.zarr.
        model: name of the encoder.
        shuffled: whether rows are in another order.
        changes: to `tile_spec`.
    """
    import pyarrow as pa
    from pyarrow import parquet

    assert bag.features is not None and bag.pixels is not None
    spec = {"height": bag.pixels, "width": bag.pixels, "stride_height": bag.pixels, "stride_width": bag.pixels}
    spec |= {"mpp": None if bag.mpp is None else bag.mpp * bag.side / bag.pixels, "ops_level": 0, "base_level": 0}
    spec |= {
        "ops_downsample": bag.side / bag.pixels,
        "base_downsample": bag.side / bag.pixels,
        "tissue_name": "tissues",
    }
    properties = {"shape": list(bag.extent[::-1]) if bag.extent else None, "mpp": bag.mpp, "n_level": 1}
    root = zarr.open_group(store, mode="a", zarr_format=3)
    root.attrs.update({"tile_spec": {"tiles": {**spec, **changes}}, "slide_properties": properties})
    places = store / "shapes" / "tiles"
    places.mkdir(parents=True, exist_ok=True)
    x, y, w, h = bag.boxes.T
    table = pa.table({"tile_id": np.arange(len(bag)), "geometry": shapely.to_wkb(shapely.box(x, y, x + w, y + h))})
    geo = {"primary_column": "geometry", "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"]}}}
    parquet.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), places / "shapes.parquet")
    order = np.random.default_rng(0).permutation(len(bag)) if shuffled else np.arange(len(bag))
    region = {"region": "tiles", "region_key": "library_id", "instance_key": "tile_id"}
    kind = {"encoding-type": "anndata", "spatialdata-encoding-type": "ngff:regions_table"}
    features = root.require_group("tables").create_group(f"{model}_tiles", attributes={**kind, **region})
    features.create_array("X", data=bag.features[order])
    features.create_group("obs").create_array("tile_id", data=order)
    return store
