"""A `Prediction` as files that other programs read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_attention.lazy import on_first_use

if TYPE_CHECKING:
    from wsi_attention.export.chosen import exporter_of
    from wsi_attention.export.geojson import GeoJSONExporter, geojson_features
    from wsi_attention.export.heatmap import HeatmapExporter
    from wsi_attention.export.measures import clipped, deciding, heaviest, main_map, map_of, percentiles
    from wsi_attention.export.record import from_record, to_record
    from wsi_attention.export.report import ReportExporter
    from wsi_attention.export.table import TilesExporter, interval
    from wsi_attention.export.zarr import HeatmapPyramidExporter

__all__ = [
    "GeoJSONExporter",
    "HeatmapExporter",
    "HeatmapPyramidExporter",
    "ReportExporter",
    "TilesExporter",
    "clipped",
    "deciding",
    "exporter_of",
    "from_record",
    "geojson_features",
    "heaviest",
    "interval",
    "main_map",
    "map_of",
    "percentiles",
    "to_record",
]
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "GeoJSONExporter": "geojson",
        "HeatmapExporter": "heatmap",
        "HeatmapPyramidExporter": "zarr",
        "ReportExporter": "report",
        "TilesExporter": "table",
        "clipped": "measures",
        "deciding": "measures",
        "exporter_of": "chosen",
        "from_record": "record",
        "geojson_features": "geojson",
        "heaviest": "measures",
        "interval": "table",
        "main_map": "measures",
        "map_of": "measures",
        "percentiles": "measures",
        "to_record": "record",
    },
)
