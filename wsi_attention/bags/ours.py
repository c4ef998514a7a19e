"""What we add to the files of others, so that nothing a bag says is lost: attributes of the file, and the weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wsi_attention.bags import hdf5
from wsi_attention.bags.bag import Bag

if TYPE_CHECKING:
    import h5py

PREFIX = "wsi_attention_"
MPP = f"{PREFIX}mpp"
"""µm per level-0 pixel; no dialect has it, and STAMP's coordinates lead back to pixels by it alone."""
EXTENT = f"{PREFIX}extent"
"""(w, h) of the slide in level-0 pixels."""
PIXELS = f"{PREFIX}pixels"
"""Side of a tile as the encoder saw it; CLAM does not say."""
ENCODER = f"{PREFIX}encoder"
"""What the features come from; CLAM does not say."""


def add(file: h5py.File, bag: Bag) -> None:
    """Add what the bag knows to a file that a dialect has written."""
    known: dict[str, Any] = {MPP: bag.mpp, PIXELS: bag.pixels}
    known |= {EXTENT: None if bag.extent is None else np.array(bag.extent, np.int64)}
    known |= {ENCODER: bag.encoder if bag.features is not None and bag.encoder else None}
    file.attrs.update({name: value for name, value in known.items() if value is not None})
    if bag.weights is not None:
        file.create_dataset("weights", data=np.asarray(bag.weights, np.float64))


def completed(bag: Bag, file: h5py.File) -> Bag:
    """Return the bag with what the file's attributes of ours say and the dialect did not.

    Raises:
        InputError: such an attribute is no positive number.
    """
    said, where = file.attrs, str(file.filename)
    mpp = hdf5.number(said, MPP, where) if bag.mpp is None and MPP in said else bag.mpp
    pixels = round(hdf5.number(said, PIXELS, where)) if bag.pixels is None and PIXELS in said else bag.pixels
    extent = hdf5.whole_pair(said, (EXTENT,), where) if bag.extent is None and EXTENT in said else bag.extent
    return replace(bag, mpp=mpp, pixels=pixels, extent=extent, encoder=bag.encoder or hdf5.text(said, ENCODER))
