"""The four dialects in one place: which one a file speaks, and where each keeps its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from wsi_attention.bags import clam, hdf5, ours, stamp, trident, wsinfer
from wsi_attention.bags.bag import Bag, check_on_slide
from wsi_attention.errors import InputError
from wsi_attention.safe_names import safe_name

if TYPE_CHECKING:
    import h5py

DIALECTS: dict[str, ModuleType] = {one.NAME: one for one in (trident, clam, wsinfer, stamp)}
ATTRIBUTES = (
    "TRIDENT's level0_magnification and target_magnification, CLAM's patch_level, downsample and level_dim,"
    " WSInfer's patch_spacing_um_px, or STAMP's tile_size_um"
)


def dialect_of(file: h5py.File) -> ModuleType:
    """Return the dialect an open file speaks, told by its attributes alone.

    Raises:
        InputError: no dataset `coords`, or attributes of none of the four, or of several.
    """
    coords = hdf5.dataset(file, "coords")
    found = [one for one in DIALECTS.values() if one.recognises(file.attrs, coords.attrs)]
    if len(found) == 1:
        return found[0]
    names = sorted(name for name in {*coords.attrs, *file.attrs} if not name.startswith(ours.PREFIX))
    if found:
        several = " and ".join(one.NAME for one in found)
        raise InputError(f"{file.filename}: the attributes are those of {several} ({', '.join(names)}); keep one set")
    hint = (
        "; CLAM's feature files have none: give its patches/<slide>.h5 too" if not names and "features" in file else ""
    )
    raise InputError(
        f"{file.filename}: nothing says what its coordinates mean; found attributes: {', '.join(names) or 'none'};"
        f" needed: {ATTRIBUTES}{hint}"
    )


def read_bag(
    path: str | Path,
    *,
    mpp: float | None = None,
    extent: tuple[int, int] | None = None,
    patches: str | Path | None = None,
) -> Bag:
    """Read coordinates, and features where there are some, of TRIDENT, CLAM, WSInfer or STAMP.

    Args:
        path: an HDF5 file.
        mpp: µm per level-0 pixel of the slide; STAMP's files need it.
        extent: (w, h) of the slide; with it, coordinates of another slide are found out.
        patches: for a feature file of CLAM, which has no attributes: the file of coordinates it was made from; where
            None, `patches/<slide>.h5` beside its folder `h5_files/`.

    Raises:
        InputError: not HDF5, none of the four, damaged, or of another slide; the text says what was found.
    """
    patches = patches or _patches_beside(Path(path))
    if patches is not None:
        return _with_features(read_bag(patches, mpp=mpp, extent=extent), path)
    with hdf5.opened(path) as file:
        bag = ours.completed(dialect_of(file).read(file, stem_of(path), mpp), file)
    check_on_slide(bag, extent, path)
    return bag if extent is None else replace(bag, extent=extent)


def own_scale(path: str | Path) -> float | None:
    """Return µm per pixel of the tiles in a file of STAMP that does not say the slide's; None for all other files.

    Where the slide is not at hand, level 0 may as well be taken to be as fine as the tiles: STAMP's places are in µm.

    Raises:
        InputError: not HDF5, or an attribute is no number.
    """
    with hdf5.opened(path) as file:
        return stamp.own_scale(file)


def write_bag(bag: Bag, folder: str | Path, dialect: str) -> list[Path]:
    """Write a bag where a dialect's own tools look for it below their folder.

    Args:
        bag: the tiles; features are written where there are some.
        folder: TRIDENT's job folder, CLAM's or WSInfer's results folder, STAMP's feature folder.
        dialect: "trident", "clam", "wsinfer" or "stamp".

    Returns:
        The files: coordinates first.

    Raises:
        InputError: no such dialect, or something it needs is not known.
        ResultsError: a file cannot be written.
    """
    if dialect not in DIALECTS:
        raise InputError(f"no dialect {dialect!r}; there are: {', '.join(DIALECTS)}")
    if not len(bag):
        raise InputError(f"{bag.name}: no tiles to write")
    root, bag = Path(folder), replace(bag, name=safe_name(bag.name))
    written = []
    for relative, write in _files(bag, dialect):
        with hdf5.created(root / relative) as file:
            write(file, bag)
            ours.add(file, bag)
        written.append(root / relative)
    if dialect == clam.NAME and bag.features is not None:
        from wsi_attention.bags.clam_tensor import write_tensor

        written.append(write_tensor(bag, root / "pt_files" / f"{bag.name}.pt"))
    return written


def stem_of(path: str | Path) -> str:
    """Return the slide's name, without suffix, from the name of a file of coordinates or features."""
    return Path(path).stem.removesuffix("_patches")


def _files(bag: Bag, dialect: str) -> list[tuple[str, Callable[[h5py.File, Bag], None]]]:
    with_features = bag.features is not None
    if dialect == trident.NAME:
        if with_features:
            return [(f"features_{_safe(bag.encoder)}/{bag.name}.h5", trident.write)]
        return [(f"patches/{bag.name}_patches.h5", trident.write)]
    if dialect == clam.NAME:
        more = [(f"h5_files/{bag.name}.h5", clam.write_features)] if with_features else []
        return [(f"patches/{bag.name}.h5", clam.write), *more]
    if dialect == wsinfer.NAME:
        if with_features:
            raise InputError(f"{bag.name}: WSInfer has no place for features; leave --features out")
        return [(f"patches/{bag.name}.h5", wsinfer.write)]
    return [(f"{bag.name}.h5", stamp.write)]


def _with_features(bag: Bag, path: str | Path) -> Bag:
    with hdf5.opened(path) as file:
        locations = hdf5.whole_coordinates(file)
        found = hdf5.features(file, "features", len(locations))
        bag = ours.completed(bag, file)
    if found is None:
        raise InputError(f"{path}: no dataset features in this file")
    if not np.array_equal(locations, bag.locations):
        raise InputError(f"{path}: its {len(locations)} tiles are not the {len(bag)} of the coordinates given with it")
    return replace(bag, features=found)


def _patches_beside(path: Path) -> Path | None:
    """Return CLAM's file of coordinates for one of its feature files, None where there is none in its usual place."""
    beside = path.parent.parent / "patches" / path.name
    return beside if path.parent.name == "h5_files" and beside.is_file() else None


def _safe(name: str) -> str:
    return "".join(one if one.isalnum() or one in "-_." else "_" for one in name) or "unknown"
