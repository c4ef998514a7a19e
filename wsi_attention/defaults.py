"""Defaults that several rooms and the command line share. Imports nothing, so that the command line starts fast."""

from __future__ import annotations

BATCH = 32
"""Tiles that one task reads."""

LIMIT = 1800.0
"""Seconds that one slide of a batch may take."""

FEATURE_STORE_GB = 20.0
"""Limit of a feature store's size."""

EXPORTS = ("geojson", "tiles", "report")
"""Names of the exporters that `classify` runs where none are asked for."""

PICTURES = ("heatmap", "heatmap-zarr")
"""Names of those that draw or keep the attention map once more; the page of `report` shows it too."""

VIEWER_PORT = 8917
"""Port on 127.0.0.1 that `view` takes where it is free, so that links to a place in a slide keep their address."""
