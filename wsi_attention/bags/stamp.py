"""STAMP: `coords` (n, 2) float32 in µm and `feats` (n, d) float16, attributes on the file itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from wsi_attention.bags import hdf5
from wsi_attention.bags.bag import Bag
from wsi_attention.bags.ours import MPP
from wsi_attention.errors import InputError

if TYPE_CHECKING:
    import h5py

NAME, FEATURES = "stamp", "feats"
USUAL_PIXELS = 224
"""Side of STAMP's tiles as the encoder sees them, where an older file does not say it."""


def recognises(root: Mapping[str, Any], coords: Mapping[str, Any]) -> bool:
    """Tell whether the attributes are those of STAMP 2.0 (`tile_size`, `unit`) or later (`tile_size_um`)."""
    return "tile_size_um" in root or ("tile_size" in root and hdf5.text(root, "unit") == "um")


def read(file: h5py.File, name: str, mpp: float | None = None) -> Bag:
    """Return the tiles; coordinates become level-0 pixels by the slide's mpp.

    Raises:
        InputError: the slide's mpp is unknown, attributes are missing, or datasets have another shape or kind.
    """
    root, where = file.attrs, str(file.filename)
    if mpp is None and MPP not in root:
        raise InputError(f"{where}: STAMP keeps coordinates in µm; give the slide, or its µm per pixel with --mpp")
    scale = mpp if mpp is not None else hdf5.number(root, MPP, where)
    micrometres = hdf5.coordinates(file).astype(np.float64)
    kind = hdf5.text(root, "feat_type")
    if kind not in {"", "tile"}:
        raise InputError(f"{where}: feat_type is {kind}; features of tiles are needed")
    tile_um = hdf5.number(root, "tile_size_um" if "tile_size_um" in root else "tile_size", where)
    return Bag(
        name=name,
        locations=np.rint(micrometres / scale).astype(np.int64),
        side=max(1, round(tile_um / scale)),
        pixels=round(hdf5.number(root, "tile_size_px", where)) if "tile_size_px" in root else None,
        mpp=scale,
        weights=hdf5.weights(file, len(micrometres)),
        encoder=hdf5.text(root, "extractor"),
        dialect=NAME,
    )


def own_scale(file: h5py.File) -> float | None:
    """Return µm per pixel of a tile where the file is STAMP's and does not say the slide's; None otherwise."""
    root, where = file.attrs, str(file.filename)
    if MPP in root or not recognises(root, {}):
        return None
    tile_um = hdf5.number(root, "tile_size_um" if "tile_size_um" in root else "tile_size", where)
    return (
        tile_um / round(hdf5.number(root, "tile_size_px", where)) if "tile_size_px" in root else tile_um / USUAL_PIXELS
    )


def write(file: h5py.File, bag: Bag) -> None:
    """Write features with their coordinates in µm.

    Raises:
        InputError: there are no features, they exceed float16, or the slide's mpp is unknown.
    """
    mpp = bag.known_mpp
    if bag.features is None:
        raise InputError(f"{bag.name}: STAMP has no file for coordinates alone; add features (--features MODEL)")
    with np.errstate(over="ignore"):
        halves = bag.features.astype(np.float16)
    if not np.isfinite(halves).all():
        raise InputError(f"{bag.name}: the features exceed 65504, which STAMP's float16 cannot hold")
    file.create_dataset("coords", data=(bag.locations * mpp).astype(np.float32))
    file.create_dataset("feats", data=halves)
    attributes: dict[str, Any] = {
        "extractor": bag.encoder or "wsi-attention",
        "unit": "um",
        "tile_size_um": bag.side * mpp,
        "tile_size_px": bag.pixels or bag.side,
        "feat_type": "tile",
    }
    file.attrs.update(attributes)
