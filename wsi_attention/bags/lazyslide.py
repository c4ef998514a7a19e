"""LazySlide: a SpatialData store in zarr; features in `tables/<encoder>_<tiles>`, places in `shapes/<tiles>`.

Tables are AnnData: `X` (n, d), one row a tile, and `obs/tile_id`, which names it. Places are polygons in level-0 pixels
in GeoParquet, which pyarrow reads. Attributes of the store say how tiles were cut (`tile_spec`) and what the slide was
like (`slide_properties`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_attention.bags import hdf5
from wsi_attention.bags.bag import Bag
from wsi_attention.bags.ours import ENCODER
from wsi_attention.bags.rows import Rows
from wsi_attention.errors import InputError, MissingExtraError
from wsi_attention.extras import how_to_install

if TYPE_CHECKING:
    import zarr

NAME = "lazyslide"
TABLES, SHAPES, PLACES = "tables", "shapes", "shapes.parquet"
TABLE_MARK = "#"
"""Between a folder and the name of the table that is meant, where stores hold several."""
OURS = "weights_"
"""Begins the name of a table of weights that this project's plugin writes; it holds no features."""


def is_store(path: str | Path) -> bool:
    """Return whether a folder is a zarr store with tables."""
    place = Path(path)
    return (place / TABLES).is_dir() and any((place / name).is_file() for name in ("zarr.json", ".zgroup"))


def store_of(path: str | Path) -> Path | None:
    """Return the store that a path names, or one of whose tables it names; None where it is neither."""
    place = Path(path)
    if place.parent.name == TABLES and is_store(place.parent.parent):
        return place.parent.parent
    return place if is_store(place) else None


@contextmanager
def opened(path: str | Path, mpp: float | None = None) -> Iterator[tuple[Bag, Rows]]:
    """Yield the tiles of a store without features, and the features, not yet read.

    Args:
        path: a store with one table of features, or `STORE/tables/NAME`.
        mpp: µm per level-0 pixel of the slide, where the caller knows it; else what the store says.

    Raises:
        InputError: no features, several tables of them, no such tiles, or damaged.
        MissingExtraError: pyarrow is not installed.
    """
    store = store_of(path)
    assert store is not None
    with _told_plainly(path, KeyError, TypeError, AttributeError):  # of metadata that another program damaged
        found = _read(store, Path(path).name if Path(path) != store else "", mpp)
    with _told_plainly(path):  # of chunks, which are read by whoever takes rows
        yield found


@contextmanager
def _told_plainly(path: str | Path, *more: type[Exception]) -> Iterator[None]:
    """Turn what a damaged store raises into one error, besides the usual ones `more`."""
    kinds: tuple[type[Exception], ...] = (OSError, RuntimeError, ValueError, *more)
    try:
        yield
    except (InputError, MissingExtraError):
        raise
    except kinds as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable store of LazySlide ({reason}); copy or make it again") from error


def _read(store: Path, wanted: str, mpp: float | None) -> tuple[Bag, Rows]:
    import zarr

    root = zarr.open_group(str(store), mode="r", use_consolidated=False)
    specs, slide = _mapping(root.attrs.get("tile_spec")), _mapping(root.attrs.get("slide_properties"))
    name = _chosen(_tables(root, specs), wanted, store)
    table, where = _group(root, f"{TABLES}/{name}"), f"{store}: {TABLES}/{name}"
    region = _region(table)
    spec, rows = _mapping(specs[region]), _rows(table, where)
    ids, corners, side = _places(store / SHAPES / region / PLACES)
    own = _values(table, f"obs/{table.attrs.get('instance_key', 'tile_id')}")
    if own.ndim != 1 or len(own) != rows.shape[0]:
        raise InputError(f"{where}: {rows.shape[0]} features for {own.size} tiles; extract the features again")
    pixels = hdf5.number(spec, "width", f"{store}: tile_spec of {region}")
    if pixels != spec.get("height"):
        raise InputError(f"{store}: {region} are tiles of {pixels:g} × {spec.get('height')} pixels; squares are needed")
    bag = Bag(
        name=store.stem,
        locations=corners[_order(ids, own, where)],
        side=side,
        pixels=round(pixels),
        extent=_extent(slide),
        mpp=mpp if mpp is not None else _positive(slide.get("mpp")),
        encoder=_encoder(table, name, region),
        dialect=NAME,
        spacing=_positive(spec.get("mpp")),
    )
    return bag, rows if len(bag) else np.empty((0, 0), np.float32)


def _tables(root: zarr.Group, specs: Mapping[str, Any]) -> list[str]:
    """Return the names of tables that say something of each tile, sorted."""
    there = _group(root, TABLES)
    tables = {name: _group(there, name) for name in sorted(there.group_keys()) if not name.startswith(OURS)}
    return [name for name, table in tables.items() if _region(table) in specs and "X" in table]


def _chosen(found: list[str], wanted: str, store: Path) -> str:
    if wanted in found:
        return wanted
    listed = ", ".join(found) or "none"
    if wanted:
        raise InputError(f"{store}: no table {wanted} of features of tiles; there are: {listed}")
    if not found:
        raise InputError(f"{store}: no features of tiles in it; extract some, or take the slide out")
    if len(found) > 1:
        raise InputError(
            f"{store}: features of several kinds ({listed}); name one after the folder, FOLDER{TABLE_MARK}{found[0]}"
        )
    return found[0]


def _group(group: zarr.Group, name: str) -> zarr.Group:
    import zarr

    found = group[name]
    if not isinstance(found, zarr.Group):
        raise InputError(f"{group.store_path}: {name} is an array, a group is needed")
    return found


def _values(group: zarr.Group, name: str) -> NDArray[Any]:
    """Return a whole array of a group."""
    import zarr

    found = group[name]
    if not isinstance(found, zarr.Array) or found.size > hdf5.MAX_TILES:
        raise InputError(f"{group.store_path}: {name} is no array of values of tiles")
    return np.asarray(found[()])


def _region(table: zarr.Group) -> str:
    region = table.attrs.get("region", "")
    return str(region[0] if isinstance(region, list) and len(region) == 1 else region)


def _rows(table: zarr.Group, where: str) -> Rows:
    """Return the features of a table, not yet read."""
    import zarr

    found = table["X"]
    if not isinstance(found, zarr.Array) or found.ndim != 2 or found.dtype.kind != "f":
        kind = f"has shape {found.shape} of {found.dtype}" if isinstance(found, zarr.Array) else "is sparse"
        raise InputError(f"{where}: X {kind}, (n, d) of floating point is needed")
    most = max(math.prod(found.shape), math.prod(found.chunks)) * found.dtype.itemsize
    if found.shape[0] > hdf5.MAX_TILES or most > hdf5.MAX_BYTES:
        raise InputError(f"{where}: X has shape {found.shape}, {most / 2**30:.0f} GiB; at most 8 GiB are read")
    rows: Rows = found
    return rows


def _places(file: Path) -> tuple[NDArray[Any], NDArray[np.int64], int]:
    """Return the id (n,) of each tile, its top left corner (n, 2), and the side of all of them.

    Raises:
        InputError: they are no squares of one size in whole level-0 pixels.
        MissingExtraError: pyarrow is not installed.
    """
    import shapely

    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(
            f"{file}: LazySlide keeps places of tiles in GeoParquet, which needs the package pyarrow; "
            f"{how_to_install('lazyslide')}"
        ) from error
    with parquet.ParquetFile(file) as opened:
        if opened.metadata.num_rows > hdf5.MAX_TILES:
            raise InputError(f"{file}: {opened.metadata.num_rows} tiles; at most {hdf5.MAX_TILES} are read")
        schema = opened.schema_arrow
        column = json.loads((schema.metadata or {}).get(b"geo", b"{}")).get("primary_column", "geometry")
        known = "tile_id" in schema.names
        table = opened.read(columns=[column, *(["tile_id"] if known else [])])
    shapes = shapely.from_wkb(table.column(column).to_numpy(zero_copy_only=False))
    boxes: NDArray[np.float64] = shapely.bounds(shapes).reshape(-1, 4)
    ids = table.column("tile_id").to_numpy() if known else np.arange(len(boxes))
    sides = boxes[:, 2:] - boxes[:, :2]
    side = float(sides[0, 0]) if len(sides) else 1.0
    if not np.isfinite(boxes).all() or side < 1 or (np.abs(sides - side) > 1).any():
        raise InputError(f"{file}: the shapes are no squares of one size; tiles are needed")
    return ids, np.rint(boxes[:, :2]).astype(np.int64), round(side)


def _order(ids: NDArray[Any], wanted: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Return the index of each wanted tile among those that have a place."""
    order = np.argsort(ids, kind="stable")
    at = np.searchsorted(ids, wanted, sorter=order).clip(0, max(0, len(ids) - 1))
    index: NDArray[np.int64] = order[at] if len(ids) else np.empty(0, np.int64)
    if len(index) != len(wanted) or (ids[index] != wanted).any():
        raise InputError(f"{where}: features of tiles that have no place in the store; extract the features again")
    return index


def _encoder(table: zarr.Group, name: str, region: str) -> str:
    """Return the encoder's name: what we say in `uns`, else the table's name without that of its tiles."""
    if f"uns/{ENCODER}" in table:
        return str(_values(table, f"uns/{ENCODER}").item())
    return name.removesuffix(f"_{region}")


def _extent(slide: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return (w, h); the store keeps rows first."""
    shape = slide.get("shape")
    return hdf5.whole_pair({"shape": shape[::-1]}, ("shape",), "slide_properties") if shape else None


def _positive(value: object) -> float | None:
    sound = isinstance(value, int | float) and math.isfinite(value) and value > 0
    return float(value) if sound and isinstance(value, int | float) else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
