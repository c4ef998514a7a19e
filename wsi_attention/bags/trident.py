"""TRIDENT: `coords` (n, 2) int64 in level-0 pixels with attributes on the dataset, `features` (n, d) beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from wsi_attention.bags import hdf5
from wsi_attention.bags.bag import Bag
from wsi_attention.errors import InputError

if TYPE_CHECKING:
    import h5py

NAME, FEATURES = "trident", "features"
MAGNIFICATIONS = ((0.16, 80), (0.2, 60), (0.3, 40), (0.6, 20), (1.2, 10), (2.4, 5))
"""Below how many µm per pixel TRIDENT calls a slide 80x, 60x and so on."""
MPP_OF_1X = 10.0
"""µm per pixel that a magnification of 1 stands for."""


def recognises(root: Mapping[str, Any], coords: Mapping[str, Any]) -> bool:
    """Tell whether the attributes are TRIDENT's."""
    return "target_magnification" in coords and "level0_magnification" in coords


def read(file: h5py.File, name: str, mpp: float | None = None) -> Bag:
    """Return the tiles, and the encoder's name where there are features; `mpp` is the slide's.

    Raises:
        InputError: attributes missing, or datasets of another shape or kind.
    """
    locations, where = hdf5.whole_coordinates(file), f"{file.filename}: coords"
    attributes = file["coords"].attrs
    pixels = hdf5.number(attributes, "patch_size", where)
    sized = "level0_width" in attributes
    return Bag(
        name=name,
        locations=locations,
        side=_side(attributes, pixels, where),
        pixels=round(pixels),
        extent=hdf5.whole_pair(attributes, ("level0_width", "level0_height"), where) if sized else None,
        mpp=mpp,
        weights=hdf5.weights(file, len(locations)),
        encoder=_encoder(file, len(locations)),
        dialect=NAME,
        spacing=MPP_OF_1X / hdf5.number(attributes, "target_magnification", where),
    )


def write(file: h5py.File, bag: Bag) -> None:
    """Write the bag as TRIDENT does, features and coordinates in one file.

    Raises:
        InputError: the slide is coarser than TRIDENT takes, or its size or mpp is unknown.
    """
    source = magnification(bag.known_mpp, bag.name)
    pixels = bag.pixels or bag.side
    target = source * pixels / bag.side
    attributes: dict[str, Any] = {
        "patch_size": pixels,
        "patch_size_level0": bag.side,
        "level0_magnification": source,
        "target_magnification": int(target) if target.is_integer() else target,
        "overlap": 0,
        "name": bag.name,
        "savetodir": "",
        "level0_width": bag.known_extent[0],
        "level0_height": bag.known_extent[1],
    }
    coords = file.create_dataset("coords", data=bag.locations.astype(np.int64), maxshape=(None, 2), chunks=True)
    coords.attrs.update(attributes)
    if bag.features is not None:
        features = file.create_dataset("features", data=bag.features.astype(np.float32))
        features.attrs.update({"name": bag.name, "savetodir": "", "encoder": bag.encoder})


def magnification(mpp: float, name: str) -> int:
    """Return what TRIDENT calls the slide's magnification.

    Raises:
        InputError: 2.4 µm/px or coarser, which TRIDENT refuses too.
    """
    for limit, found in MAGNIFICATIONS:
        if mpp < limit:
            return found
    raise InputError(f"{name}: {mpp:g} µm/px; TRIDENT takes slides finer than 2.4 µm/px")


def _encoder(file: h5py.File, tiles: int) -> str:
    """Return the encoder's name; TRIDENT writes "None" where its encoder has none."""
    if not tiles or not hdf5.is_own(file, FEATURES):
        return ""
    name = hdf5.text(file["features"].attrs, "encoder")
    return "" if name == "None" else name


def _side(attributes: Mapping[str, Any], pixels: float, where: str) -> int:
    if "patch_size_level0" in attributes:
        return round(hdf5.number(attributes, "patch_size_level0", where))
    source = hdf5.number(attributes, "level0_magnification", where)
    return round(pixels * source / hdf5.number(attributes, "target_magnification", where))
