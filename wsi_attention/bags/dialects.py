"""The dialects in one place: which one a file speaks, and where each keeps its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from wsi_attention.bags import clam, hdf5, lazyslide, ours, stamp, trident, wsinfer
from wsi_attention.bags.bag import Bag, check_on_slide
from wsi_attention.bags.rows import Rows, fingerprint_of, unread, whole
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
    """Read coordinates, and features where there are some, of TRIDENT, CLAM, WSInfer, STAMP or LazySlide.

    Args:
        path: an HDF5 file, or a store of LazySlide.
        mpp: µm per level-0 pixel of the slide; STAMP's files need it.
        extent: (w, h) of the slide; with it, coordinates of another slide are found out.
        patches: for a feature file of CLAM, which has no attributes: the file of coordinates it was made from; where
            None, `patches/<slide>.h5` beside its folder `h5_files/`.

    Raises:
        InputError: neither, none of the dialects, damaged, or of another slide; the text says what was found.
        MissingExtraError: a package that reads such a file is not installed.
    """
    with _opened(path, mpp, patches) as (bag, rows):
        check_on_slide(bag, extent, path)
        found = _with_features(bag, rows, path)
    return found if extent is None else replace(found, extent=extent)


def read_alone(path: str | Path, mpp: float | None = None) -> Bag:
    """Read a bag whose slide may not be at hand; STAMP's µm then become pixels of the tiles' own scale.

    Level 0 may as well be taken to be as fine as the tiles there, for nothing is read from a slide.

    Raises:
        InputError: as `read_bag`.
    """
    with _opened(path, mpp, alone=True) as (bag, rows):
        check_on_slide(bag, None, path)
        return _with_features(bag, rows, path)


def outline_alone(path: str | Path, mpp: float | None = None) -> tuple[Bag, str]:
    """Read what `read_alone` reads, but no more than a few rows of the features.

    Returns:
        The bag, its features zeros that take no memory, and its `rows.fingerprint_of`.

    Raises:
        InputError: as `read_bag`, except that values of features which are not finite are not noticed.
    """
    with _opened(path, mpp, alone=True) as (bag, rows):
        check_on_slide(bag, None, path)
        if rows is None:
            return bag, ""
        return replace(bag, features=unread(rows)), fingerprint_of(bag.locations, rows)


def _with_features(bag: Bag, rows: Rows | None, path: str | Path) -> Bag:
    return bag if rows is None else replace(bag, features=whole(rows, f"{path}: features"))


@contextmanager
def _opened(
    path: str | Path, mpp: float | None, patches: str | Path | None = None, alone: bool = False
) -> Iterator[tuple[Bag, Rows | None]]:
    """Yield a bag without features, and the features of its open file, not yet read.

    `alone` takes STAMP's tiles for the measure of level 0 where nobody says µm per pixel of the slide.
    """
    if lazyslide.store_of(path) is not None:
        with lazyslide.opened(path, mpp) as found:
            yield found
        return
    patches = patches or patches_beside(path)
    if patches is None:
        with hdf5.opened(path) as file:
            own = stamp.own_scale(file) if alone and mpp is None else None
            spoken = dialect_of(file)
            bag = ours.completed(spoken.read(file, stem_of(path), mpp if own is None else own), file)
            yield replace(bag, own_pixels=own is not None), hdf5.features(file, spoken.FEATURES, len(bag))
        return
    with _opened(patches, mpp, alone=alone) as (bag, _), hdf5.opened(path) as file:
        yield ours.completed(bag, file), _rows_of(file, bag, path)


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
    """Return the slide's name, without suffix, from the name of a file of coordinates or features, or of a store."""
    return (lazyslide.store_of(path) or Path(path)).stem.removesuffix("_patches")


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


def patches_beside(path: str | Path) -> Path | None:
    """Return CLAM's file of coordinates for one of its feature files, None where there is none in its usual place."""
    beside = Path(path).parent.parent / "patches" / Path(path).name
    return beside if Path(path).parent.name == "h5_files" and beside.is_file() else None


def _rows_of(file: h5py.File, bag: Bag, path: str | Path) -> Rows:
    """Return the features in a file of CLAM that has them beside bare coordinates.

    Raises:
        InputError: there are none, or they are of other tiles than the bag's.
    """
    locations = hdf5.whole_coordinates(file)
    found = hdf5.features(file, clam.FEATURES, len(locations))
    if found is None:
        raise InputError(f"{path}: no dataset features in this file")
    if not np.array_equal(locations, bag.locations):
        raise InputError(f"{path}: its {len(locations)} tiles are not the {len(bag)} of the coordinates given with it")
    return found


def _safe(name: str) -> str:
    return "".join(one if one.isalnum() or one in "-_." else "_" for one in name) or "unknown"
