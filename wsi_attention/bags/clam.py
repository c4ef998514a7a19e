"""CLAM: `patches/<slide>.h5` has `coords` with attributes, `h5_files/<slide>.h5` features and bare coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from wsi_attention.bags import hdf5
from wsi_attention.bags.bag import Bag
from wsi_attention.errors import InputError

if TYPE_CHECKING:
    import h5py

NAME, FEATURES = "clam", "features"


def recognises(root: Mapping[str, Any], coords: Mapping[str, Any]) -> bool:
    """Tell whether the attributes are CLAM's."""
    return {"patch_size", "patch_level", "downsample", "level_dim"} <= set(coords)


def read(file: h5py.File, name: str, mpp: float | None = None) -> Bag:
    """Return the tiles; CLAM keeps them in level-0 pixels whatever level it reads, their size in pixels of that level.

    Raises:
        InputError: attributes missing, or datasets of another shape or kind.
    """
    locations, where = hdf5.whole_coordinates(file), f"{file.filename}: coords"
    attributes = file["coords"].attrs
    pixels = hdf5.number(attributes, "patch_size", where)
    downsample = hdf5.number(attributes, "downsample", where)
    level = np.asarray(attributes["patch_level"]).ravel()
    if level.size != 1 or level.dtype.kind not in "iu":
        raise InputError(
            f"{where}: attribute patch_level is {attributes['patch_level']!r:.60}, a whole number is needed"
        )
    extent = hdf5.whole_pair(attributes, ("level_dim",), where)
    return Bag(
        name=name,
        locations=locations,
        side=round(pixels * downsample),
        extent=extent if level[0] == 0 else None,  # of a coarser level, rounded: no measure of level 0
        mpp=mpp,
        weights=hdf5.weights(file, len(locations)),
        dialect=NAME,
    )


def write(file: h5py.File, bag: Bag) -> None:
    """Write the coordinates as CLAM's patching does: tiles of level 0, resized by whoever reads them.

    Raises:
        InputError: the slide's size is unknown.
    """
    extent = np.array(bag.known_extent, np.int64)
    coords = file.create_dataset("coords", data=bag.locations.astype(np.int64), maxshape=(None, 2), chunks=True)
    coords.attrs.update(
        {
            "patch_size": bag.side,
            "patch_level": 0,
            "downsample": np.array([1.0, 1.0]),
            "downsampled_level_dim": extent,
            "level_dim": extent,
            "name": bag.name,
            "save_path": "",
        }
    )


def write_features(file: h5py.File, bag: Bag) -> None:
    """Write the features as CLAM's extraction does, float32 beside int32 coordinates, without attributes."""
    if bag.features is None:
        raise InputError(f"{bag.name}: there are no features to write")
    file.create_dataset("features", data=bag.features.astype(np.float32))
    file.create_dataset("coords", data=bag.locations.astype(np.int32))
