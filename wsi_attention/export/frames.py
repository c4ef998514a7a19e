"""The tiles of a prediction as data frames of pandas and geopandas; both are extras."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_attention.errors import MissingExtraError
from wsi_attention.export.table import tile_values
from wsi_attention.extras import how_to_install
from wsi_attention.structures import Prediction

if TYPE_CHECKING:
    import geopandas
    import pandas


def tile_frame(prediction: Prediction) -> pandas.DataFrame:
    """Return one row for each tile asked for, in the order of drawing, with the columns of the table of tiles.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise _missing("to_dataframe", "pandas") from error
    return pandas.DataFrame(tile_values(prediction))


def tile_geoframe(prediction: Prediction) -> geopandas.GeoDataFrame:
    """Return `tile_frame` with each tile's box, in level-0 pixels, as its geometry.

    Raises:
        MissingExtraError: geopandas is not installed.
    """
    try:
        import geopandas
    except ImportError as error:
        raise _missing("to_geodataframe", "geopandas") from error
    from wsi_attention.export.geos import GEOS

    frame = tile_frame(prediction)
    left, top = frame["minx"], frame["miny"]
    boxes = GEOS.box(left, top, left + frame["width"], top + frame["height"])
    return geopandas.GeoDataFrame(frame, geometry=list(boxes))


def _missing(method: str, package: str) -> MissingExtraError:
    return MissingExtraError(f"{method} needs the package {package}; {how_to_install(package)}")
