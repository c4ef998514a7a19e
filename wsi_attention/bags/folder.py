"""Which file of a folder holds a slide's features, in the folders of TRIDENT, CLAM, STAMP and LazySlide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wsi_attention.bags.dialects import patches_beside, stem_of
from wsi_attention.bags.lazyslide import TABLE_MARK, TABLES, is_store, store_of
from wsi_attention.errors import InputError

SUFFIX = ".h5"
COORDINATES = "patches"
"""The folder in which TRIDENT, CLAM and WSInfer keep coordinates without features."""


def feature_files(folder: str | Path) -> dict[Path, str]:
    """Return the feature files below a folder, and the name of each one's slide, without suffix.

    A store of LazySlide counts as a file; `FOLDER#TABLE` chooses its table of that name where it has several. Files of
    coordinates alone, hidden and unfinished ones are left out, as far as names tell.

    Raises:
        InputError: no such folder, or no such file in it.
    """
    place, table = _named(folder)
    if not place.is_dir():
        raise InputError(f"{folder}: no such folder of features")
    found = [place] if is_store(place) else sorted(_below(place))
    if table:
        found = [path / TABLES / table if is_store(path) else path for path in found]
    if not found:
        raise InputError(
            f"{folder}: no {SUFFIX} file with features; it takes those of TRIDENT, CLAM and STAMP, and LazySlide's"
            " zarr stores"
        )
    return {path: stem_of(path) for path in found}


def files_of(path: str | Path) -> tuple[Path, ...]:
    """Return all that a bag rests on: a store whole, and CLAM's coordinates beside its features."""
    store, patches = store_of(path), patches_beside(path)
    return (store,) if store else (Path(path), *([patches] if patches else []))


def place_of(path: Path, folder: str | Path) -> str:
    """Return where a feature file lies below its folder, without suffix: another name of its slide."""
    whole, above = store_of(path) or path, _named(folder)[0]
    return whole.stem if whole == above else whole.relative_to(above).with_suffix("").as_posix()


def _named(folder: str | Path) -> tuple[Path, str]:
    """Return a folder and the name of a table after its mark; no table where there is such a folder as it stands."""
    before, mark, table = str(folder).rpartition(TABLE_MARK)
    return (Path(folder), "") if not mark or Path(folder).is_dir() else (Path(before), table)


def _below(folder: Path) -> Iterator[Path]:
    """Yield HDF5 files and stores of LazySlide below a folder; zarr stores and unreadable folders are not entered."""
    try:
        inside = list(folder.iterdir())
    except PermissionError:
        return
    for path in inside:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if is_store(path):
                yield path
            elif not path.is_symlink() and not _is_zarr(path):
                yield from _below(path)
        elif path.suffix == SUFFIX and folder.name != COORDINATES and not path.stem.endswith(f"_{COORDINATES}"):
            yield path


def _is_zarr(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))
