"""WSInfer: `patches/<slide>.h5` has `coords` in level-0 pixels, their size and its µm per pixel; no features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from wsi_attention.bags import hdf5
from wsi_attention.bags.bag import Bag
from wsi_attention.errors import InputError

if TYPE_CHECKING:
    import h5py

NAME, FEATURES = "wsinfer", ""


def recognises(root: Mapping[str, Any], coords: Mapping[str, Any]) -> bool:
    """Tell whether the attributes are WSInfer's."""
    return "patch_spacing_um_px" in coords and "patch_size" in coords


def read(file: h5py.File, name: str, mpp: float | None = None) -> Bag:
    """Return the tiles; the pixels a network sees follow from the slide's mpp, if that is given.

    Raises:
        InputError: attributes missing, a level other than 0, or coordinates of another shape or kind.
    """
    locations, where = hdf5.whole_coordinates(file), f"{file.filename}: coords"
    attributes = file["coords"].attrs
    level = np.asarray(attributes.get("patch_level", 0)).ravel()
    if level.tolist() != [0]:
        raise InputError(f"{where}: patch_level is {level.tolist()}; WSInfer's coordinates are of level 0")
    side = round(hdf5.number(attributes, "patch_size", where))
    spacing = hdf5.number(attributes, "patch_spacing_um_px", where)
    return Bag(
        name=name,
        locations=locations,
        side=side,
        pixels=round(side * mpp / spacing) if mpp else None,
        mpp=mpp,
        weights=hdf5.weights(file, len(locations)),
        spacing=spacing,
        dialect=NAME,
    )


def write(file: h5py.File, bag: Bag) -> None:
    """Write the coordinates; WSInfer knows no features.

    Raises:
        InputError: the slide's mpp is unknown.
    """
    coords = file.create_dataset("coords", data=bag.locations.astype(np.int64), compression="gzip")
    spacing = bag.known_mpp * bag.side / (bag.pixels or bag.side)
    coords.attrs.update({"patch_size": bag.side, "patch_level": 0, "patch_spacing_um_px": spacing})
