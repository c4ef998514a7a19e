"""Whether the features of a file are those that a model's encoder would give: encoder, dimension, tile size, scale."""

from __future__ import annotations

import re
from dataclasses import dataclass

from wsi_attention.bags.bag import Bag
from wsi_attention.errors import InputError
from wsi_attention.geometry import same_scale

OURS = "wsi-attention"
NOMINAL_TOLERANCE = 0.34
"""TRIDENT says a tile's scale as a magnification, which stands for 0.2 to 0.3 µm/px as for 0.25."""
SAME = (
    ("uni", "univ1", "mahmooduni"),
    ("uni2h", "univ2", "mahmooduni2", "uni2"),
    ("conch", "conchv1", "mahmoodconch"),
    ("conchv15", "mahmoodconch15"),
    ("midnight12k", "midnight"),
    ("lunitvits8", "lunitdinos8"),
    ("lunitvits16", "lunitdinos16"),
    ("lunitresnet50bt", "lunitbt"),
    ("lunitresnet50mocov2", "lunitmocov2"),
    ("lunitresnet50swav", "lunitswav"),
)
"""Names of one encoder here, at TRIDENT (0.3), STAMP (2.5) and LazySlide (0.13), small letters and digits alone; all
other names are the same everywhere."""


@dataclass(frozen=True)
class Expected:
    """What a model's encoder gives.

    Attributes:
        name: of the encoder, as the model's options say it.
        digest: sha256 of its weights and colours; empty where the model has none (`nn.known_features`).
        dim: length of a feature.
        pixels: side of a tile in pixels.
        tile_mpp: µm per pixel of a tile.
        on_a_grid: whether attention looks at a grid of features instead of an overview.
        turns: in how many turns it sees a tile; features of other tools are of one.
    """

    name: str
    digest: str
    dim: int
    pixels: int
    tile_mpp: float
    on_a_grid: bool = False
    turns: int = 1


def named(name: str, digest: str) -> str:
    """Return what files say of an encoder of ours: "wsi-attention:NAME:" and the beginning of its digest."""
    return f"{OURS}:{name}:{digest[:12]}"


def check_features(bag: Bag, expected: Expected, where: object) -> None:
    """Check that a bag has features, and that they are those of the expected encoder on the same tiles.

    Args:
        bag: with the slide's mpp where it is known.
        expected: what the model's encoder gives.
        where: the file, for the error.

    Raises:
        InputError: no tiles, no features, or another dimension, tile size, scale or encoder.
    """
    if not len(bag):
        raise InputError(f"{where}: no tiles in it; extract the features again, or take the slide out")
    if bag.features is None:
        raise InputError(f"{where}: coordinates without features; give the folder of the features themselves")
    if bag.features.shape[1] != expected.dim:
        raise InputError(
            f"{where}: features of {bag.features.shape[1]} numbers, the encoder {expected.name} gives {expected.dim};"
            " give features of that encoder"
        )
    _check_tiles(bag, expected, where)
    if not same_encoder(bag.encoder, expected):
        raise InputError(
            f"{where}: features of encoder {bag.encoder!r}, the model's is {own_name(expected)!r}; give features of"
            " that one"
        )


def same_encoder(said: str, expected: Expected) -> bool:
    """Return False where what a file says of its encoder is known to be another one; True where it says nothing.

    Features of a tile in several turns are ours alone, and say so.
    """
    ours = said.startswith(f"{OURS}:")
    if expected.turns > 1 and not ours:
        return False
    if not said:
        return True
    if expected.digest and ours:
        return expected.digest.startswith(said.rpartition(":")[2])
    if ours or expected.name.startswith(f"{OURS}:"):
        return said == expected.name
    return _plain(said) == _plain(expected.name)


def _check_tiles(bag: Bag, expected: Expected, where: object) -> None:
    if bag.pixels is not None and bag.pixels != expected.pixels:
        raise InputError(
            f"{where}: tiles of {bag.pixels} pixels, the model reads tiles of {expected.pixels}; give features of such"
            f" tiles, or train with tile_size = {bag.pixels} under [model]"
        )
    found, tolerance = bag.tile_um, 0.05
    if found is None and bag.spacing is not None:
        found, tolerance = bag.spacing * (bag.pixels or expected.pixels), NOMINAL_TOLERANCE
    wanted = expected.pixels * expected.tile_mpp
    if found is not None and not same_scale(found, wanted, tolerance):
        raise InputError(
            f"{where}: tiles of {found:.4g} µm a side, the model reads tiles of {wanted:.4g} µm; give features of such"
            f" tiles, or train with tile_mpp = {found / expected.pixels:.3g} under [model]"
        )


def own_name(expected: Expected) -> str:
    """Return what files would say of the model's encoder."""
    turns = f" in {expected.turns} turns" if expected.turns > 1 else ""
    return f"{named(expected.name, expected.digest) if expected.digest else expected.name}{turns}"


def _plain(name: str) -> str:
    """Return a name without case, punctuation, arguments and the owner of a repository, one of `SAME` by its first."""
    bare = name.partition(" ")[0].rpartition("/")[2]
    letters = re.sub("[^a-z0-9]", "", bare.casefold())
    return next((one[0] for one in SAME if letters in one), letters)
